"""Machines by what they can do at most, and by what of it programs get."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from harness.errors import ConfigError
from harness.models.cost.work import Work


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A processor for numbers: operations and bytes per second, and the shares of them that programs reach.

    `overhead_s` passes with every call, whatever its size. Prices are per hour; `network` is in bytes per second.
    """

    flops: float
    bandwidth: float
    compute_share: float = 1.0
    memory_share: float = 1.0
    overhead_s: float = 0.0
    price: float | None = None
    network: float | None = None
    source: str = ""

    @property
    def balance(self) -> float:
        """Operations that it does while it reads a byte: calls with fewer wait for memory."""
        return self.flops * self.compute_share / (self.bandwidth * self.memory_share)

    def seconds(self, work: Work) -> float:
        """Return the least time of a call: the roofline, and what is always lost."""
        computing = work.flops / (self.flops * self.compute_share)
        reading = work.moved / (self.bandwidth * self.memory_share)
        return max(computing, reading) + self.overhead_s


@cache
def machines() -> Mapping[str, Machine]:
    """Return the machines that are known, by name."""
    import yaml

    listed = yaml.safe_load(files("harness.models.cost").joinpath("machines.yaml").read_text("utf-8"))
    return {name: Machine(**values) for name, values in listed.items()}


def machine(name: str) -> Machine:
    """Return a machine by name; raise ConfigError, with those that are known, for another."""
    if name not in machines():
        raise ConfigError(
            f"device={name}: no such machine is known; known: {', '.join(machines())}, and files of bench --fit"
        )
    return machines()[name]
