"""Machines by what they can do at most, and by what of it programs get."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from math import floor

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
        return max(self._computing(work), self._reading(work)) + self.overhead_s

    def total(self, first: Work, last: Work, count: int) -> float:
        """Return the least time of `count` calls whose work grows evenly from that of the first to that of the last."""
        lines = [(each(first), each(last)) for each in (self._computing, self._reading)]
        begins, other = sorted(lines, reverse=True)
        before, after = begins[0] - other[0], begins[1] - other[1]
        # Of two straight lines the longer one at the start is so up to where they cross, and the other from there on.
        change = count if after >= 0 else 1 + floor(before / (before - after) * (count - 1))
        straight = partial(_straight, count=count)
        return straight(begins, range(change)) + straight(other, range(change, count)) + count * self.overhead_s

    def split(self, parts: Mapping[str, Work]) -> dict[str, float]:
        """Return the seconds of a call by its parts, each by its share of what the call waits for, and those lost."""
        whole = sum(parts.values(), Work())
        waits = self._computing if self._computing(whole) >= self._reading(whole) else self._reading
        return {name: waits(part) for name, part in parts.items()} | {"lost": self.overhead_s}

    def _computing(self, work: Work) -> float:
        return work.flops / (self.flops * self.compute_share)

    def _reading(self, work: Work) -> float:
        return work.moved / (self.bandwidth * self.memory_share)


def _straight(ends: tuple[float, float], places: range, *, count: int) -> float:
    """Return the sum of values at some places of `count` values between two ends, evenly apart."""
    if not places:
        return 0.0
    middle = (places[0] + places[-1]) / 2
    return len(places) * (ends[0] + (ends[1] - ends[0]) * middle / max(1, count - 1))


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
