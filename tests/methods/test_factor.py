"""Fast-dLLM's factor rule against its golden trajectories."""

import pytest

from methods.diffusion.fast_dllm import Factor
from tests.methods.closed_form import PROFILE, chosen, replay

GOLDEN = {
    0.5: ("3 10 2 6 0 10 5 9 10 8 9 3 10 0 7 2", 14, 16, "1 5 6 6 0 3 2 4 13 12 10 11 8 7 9 13"),
    1.0: ("3 10 2 6 0 10 5 9 10 8 2 3 10 0 6 2", 11, 13, "1 5 5 0 0 3 2 4 10 9 7 8 7 6 6 10"),
    1.5: ("3 10 2 6 0 6 3 9 9 8 2 3 10 0 6 2", 7, 9, "1 2 3 0 0 3 0 1 5 4 6 4 5 4 4 6"),
}


@pytest.mark.parametrize("factor", GOLDEN)
def test_golden_trajectories(factor: float):
    """Guards the reference's off-by-one under its flag, and the plain rule: same ids, the calls it really needs."""
    ids, calls, plain_calls, steps = GOLDEN[factor]
    knobs = ("method=factor", f"method.factor={factor}", "method.block_length=8")
    compat, plain = replay(*knobs, "method.factor_compat=true"), replay(*knobs)
    assert (compat.ids, compat.calls, compat.steps) == (ids, calls, steps)
    assert (plain.ids, plain.calls) == (ids, plain_calls)


def test_hand_written_rows():
    """Guards the prefix rule and where the reference departs from it."""
    plain, compat = Factor(factor=1.0), Factor(factor=1.0, compat=True)
    assert chosen(plain, [0.99, 0.95, 0.90, 0.70, 0.30]) == [0, 1, 2]
    assert chosen(plain, [0.99, 0.95, 0.90, 0.85, 0.80]) == [0, 1, 2, 3]
    assert chosen(compat, [0.99, 0.95, 0.90, 0.85, 0.80]) == [0, 1, 2, 3, 4]
    assert chosen(plain, [0.60, 0.50]) == [0]
    assert chosen(compat, [0.60, 0.50]) == [0, 1]


@pytest.mark.parametrize(
    ("factor", "positions"),
    [(0.5, [0, 2, 5, 11]), (0.75, [0, 2, 5, 8, 11]), (1.0, [0, 2, 5, 8, 11]), (1.5, [0, 1, 2, 5, 8, 11])],
)
def test_the_profile_row(factor: float, positions: list[int]):
    """Guards the published selector vectors."""
    assert chosen(Factor(factor=factor), PROFILE) == positions


def test_a_vanishing_factor_is_one_token_per_step():
    """Guards the limit."""
    slow, reference = replay("method=factor", "method.factor=1e-9"), replay("method=llada")
    assert (slow.ids, slow.steps) == (reference.ids, reference.steps)
