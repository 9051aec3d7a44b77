"""The work of model calls: operations and bytes, by what they are for.

A product of a row with a matrix of n weights takes 2 n operations; a query that meets a key takes 4 per channel, two
for the score and two for the value. Softmax, norms and what is outside the model are left out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Protocol

from harness.models.cost.shape import ModelShape

PARTS = ("attention", "feed_forward", "head", "filling", "lost")
"""What the time of a decoding is spent on."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One model call, summed over its rows.

    `tokens` positions are computed, whose queries meet `pairs` keys together; `visible` positions' keys and values are
    read, `stored` ones are written for later calls, `head` positions get logits. `depth` is the share of the layers
    that run. A call that `fills` a cache computes every position anew for calls that reuse them.
    """

    tokens: float
    pairs: float
    visible: float
    head: float
    stored: float = 0
    depth: float = 1
    fills: bool = False

    @classmethod
    def even(cls, *, rows: int, query: int, keys: int, head: int | None = None, stored: int = 0) -> "Call":
        """Return the call of rows that are alike, with `query`, `keys`, `head` and `stored` positions each."""
        heads = query if head is None else head
        return cls(
            tokens=rows * query,
            pairs=rows * query * keys,
            visible=rows * keys,
            head=rows * heads,
            stored=rows * stored,
        )


@dataclass(frozen=True, kw_only=True)
class Work:
    """Operations and bytes of calls, by what they are for."""

    linear_flops: float = 0
    attention_flops: float = 0
    head_flops: float = 0
    weight_bytes: float = 0
    cache_bytes: float = 0

    @property
    def flops(self) -> float:
        """All operations."""
        return self.linear_flops + self.attention_flops + self.head_flops

    @property
    def moved(self) -> float:
        """All bytes."""
        return self.weight_bytes + self.cache_bytes

    def __add__(self, other: "Work") -> "Work":
        return Work(**{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)})


class Timing(Protocol):
    """What tells how long work takes: a machine of a data sheet, or one that was measured."""

    def seconds(self, work: Work) -> float:
        """Return the predicted seconds of a call."""
        ...

    def total(self, first: Work, last: Work, count: int) -> float:
        """Return the predicted seconds of `count` calls whose work grows evenly from the first to the last."""
        ...

    def split(self, parts: Mapping[str, Work]) -> dict[str, float]:
        """Return the predicted seconds of a call by its parts, and as `lost` what passes with every call."""
        ...


def parts_of(shape: ModelShape, call: Call) -> Mapping[str, Work]:
    """Return the work of a call by part of the model; projections and what is kept of K and V belong to attention."""
    around = shape.layers * shape.projection_weights
    forward = shape.linear_weights - around
    return {
        "attention": Work(
            linear_flops=2 * around * call.tokens * call.depth,
            attention_flops=4 * shape.layers * shape.core_width * call.pairs * call.depth,
            weight_bytes=shape.weight_bytes * around * call.depth,
            cache_bytes=shape.cache_bytes_per_token * (call.visible + call.stored) * call.depth,
        ),
        "feed_forward": Work(
            linear_flops=2 * forward * call.tokens * call.depth,
            weight_bytes=shape.weight_bytes * (shape.read_weights(call.tokens) - around) * call.depth,
        ),
        "head": Work(
            head_flops=2 * shape.head_weights * call.head,
            weight_bytes=shape.weight_bytes * (shape.head_weights if call.head else 0),
        ),
    }


def work_of(shape: ModelShape, call: Call) -> Work:
    """Return the work of a call."""
    return sum(parts_of(shape, call).values(), Work())


def seconds_of(shape: ModelShape, calls: Iterable[Call], machine: Timing) -> float:
    """Return the predicted seconds of calls that follow each other."""
    return sum(machine.seconds(work_of(shape, call)) for call in calls)


def evenly(shape: ModelShape, first: Call, last: Call, count: int, machine: Timing) -> float:
    """Return the predicted seconds of `count` calls that grow evenly from the first to the last, without adding up."""
    return machine.total(work_of(shape, first), work_of(shape, last), count) if count > 0 else 0.0


def spent(shape: ModelShape, calls: Iterable[Call], machine: Timing) -> dict[str, float]:
    """Return the predicted seconds of calls by part; those of calls that fill caches stand together, as `filling`."""
    seconds: dict[str, float] = {part: 0.0 for part in PARTS}
    for call in calls:
        for part, each in machine.split(parts_of(shape, call)).items():
            seconds["filling" if call.fills else part] += each
    return seconds
