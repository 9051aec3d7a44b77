"""Whole generations by arithmetic: what a causal model does for given answers, and what blocks with a cache do."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

from harness.models.cost.shape import ModelShape
from harness.models.cost.work import Call, Timing, evenly, seconds_of


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Positions of prompt and response, and of the blocks in which a response is decided one after another."""

    prompt: int = 256
    response: int = 256
    block: int = 32

    @property
    def whole(self) -> int:
        """Positions of prompt and response together."""
        return self.prompt + self.response


@dataclass(frozen=True, kw_only=True)
class Line:
    """The time of a generation over the tokens that a call decides in each row: `fixed_s`, and `stepping_s` at one."""

    fixed_s: float
    stepping_s: float

    def seconds(self, tokens_per_call: float) -> float:
        """Return the seconds of the generation."""
        return self.fixed_s + self.stepping_s / tokens_per_call

    def even_with(self, seconds: float) -> float:
        """Return the tokens per call at which the generation takes so long, infinity where none are enough."""
        left = seconds - self.fixed_s
        return self.stepping_s / left if left > 0 else float("inf")


def causal_calls(prompts: Sequence[int], answers: Sequence[int]) -> Iterator[Call]:
    """Yield the calls that write answers of given lengths with keys and values kept: one per token of the longest."""
    for place in range(max(answers)):
        rows = [prompt for prompt, length in zip(prompts, answers, strict=True) if place < length]
        computed = rows if place == 0 else [1] * len(rows)
        seen = [prompt + place for prompt in rows]
        yield Call(
            tokens=sum(computed),
            pairs=sum(query * (2 * keys - query + 1) / 2 for query, keys in zip(computed, seen, strict=True)),
            visible=sum(seen),
            head=len(rows),
            stored=sum(computed),
            fills=place == 0,
        )


def causal_s(shape: ModelShape, rows: int, lengths: Lengths, machine: Timing) -> float:
    """Return the seconds in which a causal model writes `rows` responses at the same time."""
    begin = causal_calls([lengths.prompt] * rows, [1] * rows)
    first, last = (Call.even(rows=rows, query=1, keys=k, stored=1) for k in (lengths.prompt + 1, lengths.whole - 1))
    return seconds_of(shape, begin, machine) + evenly(shape, first, last, lengths.response - 1, machine)


def line_of(cache: str, shape: ModelShape, rows: int, lengths: Lengths, machine: Timing) -> Line:
    """Return the time of `rows` responses in blocks, over the tokens that a call decides in each.

    With `none` every call computes the whole row; `prefix` and `dual` compute it once per block and then what is not
    decided, or the block alone; `block_causal` computes the prompt, then the block alone, and once more to keep it.
    Logits are those of the block.
    """

    whole, block = lengths.whole, lengths.block
    blocks = lengths.response // block

    def call(query: int, keys: int = whole, *, head: int = block, stored: int = 0) -> Call:
        return Call.even(rows=rows, query=query, keys=keys, head=head, stored=stored)

    def taken(one: Call) -> float:
        return seconds_of(shape, [one], machine)

    if cache == "none":
        return Line(fixed_s=0.0, stepping_s=lengths.response * taken(call(whole)))
    if cache == "block_causal":

        def growing(*, head: int, stored: int = 0) -> float:
            first, last = (call(block, end, head=head, stored=stored) for end in (lengths.prompt + block, whole))
            return evenly(shape, first, last, blocks, machine)

        begin = taken(call(lengths.prompt, lengths.prompt, head=0, stored=lengths.prompt))
        return Line(fixed_s=begin + growing(head=0, stored=block), stepping_s=block * growing(head=block))
    steps = blocks * taken(call(block, stored=block)) if cache == "dual" else _windows(shape, rows, lengths, machine)
    return Line(fixed_s=blocks * taken(call(whole, stored=whole)) - steps, stepping_s=block * steps)


def _windows(shape: ModelShape, rows: int, lengths: Lengths, machine: Timing) -> float:
    """Return the seconds of one call for each block that computes it and all behind it."""
    block, blocks = lengths.block, lengths.response // lengths.block

    def call(of: int) -> Call:
        return Call.even(rows=rows, query=of * block, keys=lengths.whole, head=block)

    # The experts that few tokens pass do not grow evenly with them.
    alone = min(blocks, ceil(shape.mixture.saturated / (rows * block))) if shape.mixture else 0
    one_by_one = seconds_of(shape, (call(of) for of in range(1, alone + 1)), machine)
    return one_by_one + evenly(shape, call(alone + 1), call(blocks), blocks - alone, machine)


CACHES = ("none", "prefix", "dual", "block_causal")
"""What `line_of` knows."""


def break_even(shape: ModelShape, rows: int, lengths: Lengths, machine: Timing) -> dict[str, float | None]:
    """Return, by cache, the tokens per call at which blocks are as fast as a causal model of the same shape.

    None is said where even a call per block is slower.
    """
    causal = causal_s(shape, rows, lengths, machine)
    even = {cache: line_of(cache, shape, rows, lengths, machine).even_with(causal) for cache in CACHES}
    return {cache: value if value <= lengths.block else None for cache, value in even.items()}
