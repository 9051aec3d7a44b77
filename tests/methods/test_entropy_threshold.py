"""dParallel's entropy rule on the published profile, and its ends."""

import math

import pytest

from methods.diffusion.entropy_threshold import EntropyThreshold
from tests.methods.closed_form import PROFILE, chosen, replay
from tests.methods.trained import decode_task

ENTROPIES = [-c * math.log(c) - (1 - c) * math.log((1 - c) / 4) for c in PROFILE]
EXPECTED = {0.2: [2, 11], 0.5: [0, 2, 5, 11], 1.0: [0, 1, 2, 5, 7, 8, 10, 11]}


@pytest.mark.parametrize("theta", EXPECTED)
def test_the_profile_row(theta: float):
    """Guards the sign: the scorer's confidence is the negative entropy."""
    assert chosen(EntropyThreshold(theta=theta), [-h for h in ENTROPIES]) == EXPECTED[theta]


def test_a_bound_that_is_met_counts():
    """Guards <= against <, which is what the authors' code for Dream has."""
    assert chosen(EntropyThreshold(theta=0.5), [-0.4, -0.5, -0.6]) == [0, 1]
    assert chosen(EntropyThreshold(theta=0.5, strict=True), [-0.4, -0.5, -0.6]) == [0]


def test_half_a_nat_is_what_is_usual():
    """Guards the bound of those who choose the rule alone, without the method that names it."""
    assert EntropyThreshold() == EntropyThreshold(theta=0.5, strict=False)


def test_no_bound_is_one_position_per_step_in_the_order_of_entropy():
    """Guards theta = 0: the position of the least entropy closes, and no other."""
    one = replay("method=entropy_threshold", "method.theta=0", "method.block_length=8")
    reference = replay("method=llada", "method.remasking=entropy", "method.block_length=8")
    assert (one.ids, one.calls, one.steps) == (reference.ids, reference.calls, reference.steps)


def test_a_boundless_rule_is_one_call_per_block():
    """Guards the other end."""
    assert replay("method=entropy_threshold", "method.theta=10", "method.block_length=4").calls == 4


def test_a_trained_model_closes_one_position_per_step_at_zero():
    """Guards the same equivalence where predictions depend on what was decided."""
    one = decode_task("list_shuffle", "method=entropy_threshold", "method.theta=0")
    reference = decode_task("list_shuffle", "method=llada", "method.remasking=entropy")
    assert [made.tokens for made in one.generations] == [made.tokens for made in reference.generations]


def test_a_bound_below_zero_is_refused():
    """Guards the knob's range."""
    with pytest.raises(ValueError, match=r"theta=-1[.0]*: must be at least 0"):
        EntropyThreshold(theta=-1)
