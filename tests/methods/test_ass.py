"""ASS, with and without EOSER, against golden trajectories and the published block sizes."""

import pytest

from harness.config.build import build_method
from harness.config.composition import compose
from harness.errors import ConfigError
from methods.diffusion.ass import ascending_blocks
from tests.methods.closed_form import replay

GOLDEN = {
    ("ass", 1, 0): ("3 10 2 7 0 6 5 9 10 9 2 1 10 0 6 2", "2 3 3 2 0 3 2 3 3 3 3 3 2 1 1 3"),
    ("eoser_ass", 1, 0): ("3 10 2 6 1 6 3 2 10 8 2 3 10 0 6 2", "2 3 3 1 3 3 2 3 3 2 3 1 2 3 0 3"),
    ("ass", 2, 0): ("3 10 2 5 0 10 5 9 8 9 9 3 6 0 6 2", "1 2 2 2 0 2 1 3 3 3 3 3 3 3 3 3"),
    ("eoser_ass", 2, 0): ("3 10 2 6 1 6 3 9 9 10 9 3 6 0 6 2", "1 2 2 0 2 2 1 3 3 3 3 3 3 3 3 3"),
    ("ass", 3, 0): ("3 10 2 6 1 10 3 2 10 10 9 3 6 0 6 2", "0 1 1 2 2 2 2 3 3 3 3 3 3 3 3 3"),
    ("eoser_ass", 3, 0): ("3 10 2 6 1 10 3 2 10 10 9 3 6 0 6 2", "0 1 1 2 2 2 2 3 3 3 3 3 3 3 3 3"),
    ("ass", 1, 3): ("3 10 2 0 0 6 5 2 0 0 2 1 10 0 0 2", "3 3 3 2 0 3 2 3 2 1 2 3 3 1 3 3"),
    ("eoser_ass", 1, 3): ("3 6 2 7 0 6 3 9 0 0 2 3 10 0 0 2", "2 2 3 3 3 3 1 3 3 3 2 0 1 2 3 3"),
    ("ass", 2, 3): ("3 10 2 0 0 6 5 9 0 0 9 3 6 0 0 2", "2 2 2 1 0 2 1 3 3 3 3 3 3 3 3 3"),
    ("eoser_ass", 2, 3): ("3 6 2 7 0 6 3 9 0 0 9 3 6 0 0 2", "1 1 2 2 2 2 0 3 3 3 3 3 3 3 3 3"),
    ("ass", 3, 3): ("3 10 2 0 0 10 3 9 0 0 9 3 6 0 0 2", "0 1 1 2 2 2 2 3 3 3 3 3 3 3 3 3"),
    ("eoser_ass", 3, 3): ("3 10 2 0 0 10 3 9 0 0 9 3 6 0 0 2", "0 1 1 2 2 2 2 3 3 3 3 3 3 3 3 3"),
}
SIZES = {(256, 1): [256], (256, 4): [31, 32, 64, 129], (128, 4): [15, 16, 32, 65], (16, 4): [1, 2, 4, 9], (1, 1): [1]}
QUOTAS = {256: [1, 2, 4, 8, 16, 32, 64, 129], 48: [1, 2, 4, 8, 33], 2: [2], 1: [1]}


@pytest.mark.parametrize(("method", "blocks", "bias"), GOLDEN)
def test_golden_trajectories(method: str, blocks: int, bias: int):
    """Guards ids, calls, query tokens and commits."""
    made = replay(f"method={method}", f"method.block_num={blocks}", eos_bias=bias)
    assert (made.ids, made.steps) == GOLDEN[method, blocks, bias]
    assert made.calls == made.counts.nfe == 4
    assert made.counts.query_tokens == 4 * 21


@pytest.mark.parametrize(("length", "blocks"), SIZES)
def test_block_sizes(length: int, blocks: int):
    """Guards the remainder, which goes to the last block."""
    assert ascending_blocks(length, blocks) == SIZES[length, blocks]


@pytest.mark.parametrize("length", QUOTAS)
def test_steps_double(length: int):
    """Guards the quotas of one block, at lengths that are no power of two as well."""
    steps = list(map(int, replay("method=ass", length=length).steps.split()))
    assert [steps.count(step) for step in range(max(steps) + 1)] == QUOTAS[length]


def test_given_tokens_leave_steps_idle():
    """Guards a block that constraints shorten: it keeps its share of the steps, and later blocks their one each."""
    given = "+method.preparation={constraints: {0: 3, 1: 3, 2: 3, 3: 3, 4: 3, 5: 3}}"
    made = replay("method=ass", "method.block_num=2", "method/preparation=constraints", given)
    assert made.steps == " ".join(["-1"] * 6 + ["0"] + ["3"] * 9)
    assert (made.calls, made.counts.nfe) == (4, 2)


def test_other_steps_are_refused():
    """Guards the message: key, what would do, and the value."""
    with pytest.raises(ConfigError, match=r"method.steps=8: must be 4 .*gen_length=16"):
        build_method(compose(["method=ass", "method.steps=8", "gen_length=16"]))
    with pytest.raises(ConfigError, match=r"method.block_num=5: must lie in 1 to 4 for gen_length=16"):
        build_method(compose(["method=ass", "method.block_num=5", "gen_length=16"]))
