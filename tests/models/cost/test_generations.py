"""Whole generations by arithmetic, against the figures that were worked out for two published shapes on an H200."""

import pytest

from harness.models.checkpoint import read_config
from harness.models.cost.generations import CACHES, Lengths, break_even, causal_calls, causal_s, line_of
from harness.models.cost.machine import Machine, machine
from harness.models.cost.shape import ModelShape, shape_of
from harness.models.cost.work import PARTS, Call, evenly, parts_of, seconds_of, spent, work_of
from harness.models.embedded import CHECKPOINTS
from harness.models.public.synthetic import SHAPES

LLADA, DREAM = (shape_of(SHAPES[name]) for name in ("llada_8b_instruct", "dream_7b_instruct"))
H200 = machine("h200")

# By batch size: without a cache, with prefix and dual caches, block-causal; None is "not even a call per block".
EVEN = {
    1: (2.6, 1.12, 1.06, 1.04),
    4: (9.9, 3.7, 1.4, 1.04),
    8: (18.5, 9.0, 2.7, 1.3),
    16: (None, None, None, 2.5),
    32: (None, None, None, 4.5),
    64: (None, None, None, 7.4),
}


@pytest.mark.parametrize("rows", EVEN)
def test_the_tokens_of_a_call_that_make_blocks_as_fast(rows: int):
    """Guards the published table: LLaDA's shape, 256 tokens behind 256, blocks of 32."""
    found = break_even(LLADA, rows, Lengths(), H200)
    assert [*found] == [*CACHES]
    for value, expected in zip(found.values(), EVEN[rows], strict=True):
        assert value == (None if expected is None else pytest.approx(expected, rel=2.5e-2))


def test_grouped_keys_make_a_causal_model_cheaper():
    """Guards the shape of Dream: at large batches its blocks need twice as many tokens per call as LLaDA's."""
    found = {rows: break_even(DREAM, rows, Lengths(), H200) for rows in (4, 8, 16, 32, 64)}
    assert [found[rows]["dual"] for rows in (4, 8, 16)] == [
        pytest.approx(1.4, rel=2e-2),
        pytest.approx(3.2, rel=2e-2),
        None,
    ]
    block = [found[rows]["block_causal"] for rows in (8, 16, 32, 64)]
    assert block == pytest.approx([1.5, 3.0, 6.4, 14.6], rel=3e-2)


@pytest.mark.parametrize(
    ("cache", "rows", "tokens_per_call", "expected"),
    [
        ("none", 1, 1, 108), ("none", 64, 4, 432), ("prefix", 1, 1, 255), ("prefix", 16, 4, 1155), ("dual", 1, 4, 938),
        ("dual", 64, 1, 1126), ("block_causal", 1, 1, 273), ("block_causal", 1, 4, 995), ("block_causal", 16, 4, 5270),
    ],
)  # fmt: skip
def test_generations_are_as_fast_as_the_limit(cache: str, rows: int, tokens_per_call: int, expected: float):
    """Guards each closed form on its own: tokens per second, as published for LLaDA's shape."""
    line = line_of(cache, LLADA, rows, Lengths(), H200)
    assert 256 * rows / line.seconds(tokens_per_call) == pytest.approx(expected, rel=6e-3)


@pytest.mark.parametrize(("rows", "expected"), [(1, 282), (16, 3539), (64, 8397)])
def test_a_causal_model_is_as_fast_as_the_limit(rows: int, expected: float):
    """Guards the other side of the comparison."""
    assert 256 * rows / causal_s(LLADA, rows, Lengths(), H200) == pytest.approx(expected, rel=6e-3)


@pytest.mark.parametrize("machine_of", [H200, Machine(flops=1e12, bandwidth=2.5e11, overhead_s=1e-4)])
@pytest.mark.parametrize(
    ("first", "last", "count"), [(1, 4000, 1000), (4000, 1, 1000), (7, 7, 5), (9, 9, 1), (1, 2, 2)]
)
def test_calls_that_grow_evenly_take_the_sum_of_their_times(machine_of: Machine, first: int, last: int, count: int):
    """Guards the closed sum, below the corner of the roof, above it and across."""
    step = (last - first) // max(1, count - 1)
    calls = [Call.even(rows=4, query=first + step * at, keys=512, head=8) for at in range(count)]
    total = evenly(LLADA, calls[0], calls[-1], count, machine_of)
    assert total == pytest.approx(seconds_of(LLADA, calls, machine_of), rel=1e-12)


@pytest.mark.parametrize("shape", [LLADA, DREAM, shape_of(read_config(CHECKPOINTS / "tiny_moe"))])
@pytest.mark.parametrize(("rows", "lengths"), [(1, (7, 96, 4)), (5, (300, 64, 1)), (64, (1, 32, 32)), (2, (1, 1, 1))])
def test_generations_take_the_sum_of_their_calls(shape: ModelShape, rows: int, lengths: tuple[int, int, int]):
    """Guards what is not added up one by one: tokens of a causal model, and windows that its experts see unevenly."""
    prompt, response, block = lengths
    asked = Lengths(prompt=prompt, response=response, block=block)
    causal = seconds_of(shape, causal_calls([prompt] * rows, [response] * rows), H200)
    assert causal_s(shape, rows, asked, H200) == pytest.approx(causal, rel=1e-12)
    windows = [
        Call.even(rows=rows, query=size, keys=asked.whole, head=block) for size in range(block, response + 1, block)
    ]
    assert line_of("prefix", shape, rows, asked, H200).stepping_s == pytest.approx(
        block * seconds_of(shape, windows, H200), rel=1e-12
    )


def test_the_longest_generations_are_priced_as_the_shortest():
    """Guards minutes of adding up: a million tokens behind a million, in blocks of one."""
    found = break_even(LLADA, 64, Lengths(prompt=1 << 20, response=1 << 20, block=1), H200)
    assert found == dict.fromkeys(CACHES)


def test_at_the_break_even_both_take_the_same_time():
    """Guards the solution of the equation, whatever the machine."""
    where, lengths = Machine(flops=1e12, bandwidth=1e11, overhead_s=1e-3), Lengths(prompt=10, response=24, block=8)
    found = break_even(LLADA, 1, lengths, where)
    assert len(found) > 1
    for cache, value in found.items():
        assert value is not None
        line = line_of(cache, LLADA, 1, lengths, where)
        assert line.seconds(value) == pytest.approx(causal_s(LLADA, 1, lengths, where))


def test_causal_rows_end_one_by_one():
    """Guards answers of different lengths: prompts first, then one position per answer that goes on."""
    first, second, third = causal_calls([5, 3], [1, 3])
    assert (first.tokens, first.pairs, first.head, first.fills) == (8, 15 + 6, 2, True)
    assert (second.tokens, second.visible, second.head, second.fills) == (1, 4, 1, False)
    assert (third.tokens, third.visible) == (1, 5)


@pytest.mark.parametrize("query", [1, 4096])
def test_parts_share_what_a_call_waits_for(query: int):
    """Guards where time goes: by bytes where memory is waited for, by operations where arithmetic is."""
    call = Call.even(rows=1, query=query, keys=4096, head=1, stored=query)
    parts, whole = parts_of(LLADA, call), work_of(LLADA, call)
    found = spent(LLADA, [call], H200)
    assert [*found] == [*PARTS] and found["filling"] == found["lost"] == 0
    for part, work in parts.items():
        share = work.moved / whole.moved if query == 1 else work.flops / whole.flops
        assert found[part] == pytest.approx(share * seconds_of(LLADA, [call], H200))


def test_calls_that_fill_caches_stand_together():
    """Guards the time of refreshes, and what every call loses, against being counted twice or nowhere."""
    where = Machine(flops=H200.flops, bandwidth=H200.bandwidth, overhead_s=2e-3)
    calls = [Call(tokens=512, pairs=512**2, visible=512, head=32, stored=512, fills=True)]
    calls += [Call.even(rows=1, query=32, keys=512)] * 3
    found = spent(LLADA, calls, where)
    assert sum(found.values()) == pytest.approx(seconds_of(LLADA, calls, where))
    assert found["filling"] == pytest.approx(seconds_of(LLADA, calls[:1], where))
    assert found["lost"] == pytest.approx(3 * 2e-3)
