"""What a token costs where many users are served at once, attention apart from the rest (arXiv:2507.19427, §3 and §4).

Batches are so large that weights are read for nothing: feed-forward parts and projections cost their operations,
attention the larger of its operations and its bytes. Embeddings and logits are left out, as there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import prod
from typing import Any

from harness.errors import ConfigError
from harness.models.cost.machine import Machine
from harness.models.cost.shape import ModelShape

_SECONDS_PER_HOUR = 3600
_TOKENS = 1e6
STAGE_S = 11.1e-3
"""Seconds by which the report bounds the network: what of a stage is left for it, 3 bytes per hidden element apart."""


@dataclass(frozen=True, kw_only=True)
class PerToken:
    """The work of one token at a context: bytes of keys and values, operations by part."""

    cache_bytes: float
    core_flops: float
    projection_flops: float
    feed_forward_flops: float

    @property
    def intensity(self) -> float:
        """Operations of attention per byte of keys and values that it reads."""
        return self.core_flops / self.cache_bytes


def per_token(shape: ModelShape, context: int) -> PerToken:
    """Return the work of a token that sees `context` positions."""
    return PerToken(
        cache_bytes=shape.cache_bytes_per_token * context,
        core_flops=4 * shape.core_width * shape.layers * context,
        projection_flops=2 * shape.projection_weights * shape.layers,
        feed_forward_flops=2 * shape.feed_forward_weights,
    )


def attention_price(work: PerToken, machine: Machine) -> float:
    """Return the USD of attention and its projections for a million tokens."""
    per_flop, per_byte = _prices(machine)
    core = max(work.core_flops * per_flop, work.cache_bytes * per_byte)
    return _TOKENS * (core + work.projection_flops * per_flop)


def feed_forward_price(work: PerToken, machine: Machine) -> float:
    """Return the USD of feed-forward parts for a million tokens."""
    return _TOKENS * work.feed_forward_flops * _prices(machine)[0]


def split_price(work: PerToken, machines: Mapping[str, Machine]) -> tuple[float, str, str]:
    """Return the USD for a million tokens with each part where it is cheapest, and where attention and the rest are."""
    attention = {name: attention_price(work, one) for name, one in machines.items()}
    rest = {name: feed_forward_price(work, one) for name, one in machines.items()}
    first, second = min(attention, key=attention.__getitem__), min(rest, key=rest.__getitem__)
    return attention[first] + rest[second], first, second


def batch_that_computes(machine: Machine, *, sparsity: float = 1.0) -> float:
    """Return the tokens of a batch from which a feed-forward part waits for arithmetic: FLOPS / (2 bandwidth), / S."""
    return machine.flops / (2 * machine.bandwidth) / sparsity


def least_sparsity(machine: Machine, *, width: int, layers: int) -> float:
    """Return the share of weights that a token has to pass for the network not to be what a stage waits for."""
    network = _need(machine.network, "network")
    return width * machine.flops * layers / (network * machine.bandwidth * STAGE_S)


def time_per_token(*, layers: int, attention_s: float, transfer_s: float, feed_forward_s: float) -> float:
    """Return the seconds of a token through a pipeline of three stages with three micro-batches in flight."""
    return layers * 3 * max(attention_s, transfer_s, feed_forward_s)


def _prices(machine: Machine) -> tuple[float, float]:
    """Return the USD of an operation and of a byte."""
    second = _need(machine.price, "price") / _SECONDS_PER_HOUR
    return second / machine.flops, second / machine.bandwidth


def _need(value: float | None, what: str) -> float:
    if value is None:
        raise ConfigError(f"device: no {what} is known of it; choose h800, h20, a800 or ascend_910b")
    return value


@cache
def served() -> Mapping[str, ModelShape]:
    """Return the models of the report, with one byte per weight and per element of K and V."""
    import yaml

    listed = yaml.safe_load(files("harness.models.cost").joinpath("served.yaml").read_text("utf-8"))
    return {name: _shape(values) for name, values in listed.items()}


def _shape(values: dict[str, Any]) -> ModelShape:
    return ModelShape(
        layers=values["layers"],
        projection_weights=sum(map(prod, values["projections"])),
        core_width=prod(values["core"]),
        cache_width=prod(values["cache"]),
        feed_forward_weights=sum(map(prod, values["feed_forward"])),
        weight_bytes=1,
        cache_bytes=1,
    )
