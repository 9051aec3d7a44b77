"""dInfer's threshold: what gives way where nothing is sure, and that nothing else differs from the plain rule."""

import pytest

from methods.diffusion.dinfer_threshold import DinferThreshold
from tests.methods.closed_form import PROFILE, chosen, replay
from tests.methods.trained import decode_task


def test_sure_positions_close():
    """Guards the threshold itself, on the profile and where it is met exactly."""
    assert chosen(DinferThreshold(tau=0.9), PROFILE) == [0, 2, 5, 11]
    assert chosen(DinferThreshold(tau=0.9), [0.95, 0.90, 0.50]) == [0, 1]


def test_where_none_is_sure_near_ties_close_together():
    """Guards the rule that tells this method from the plain one: within 1e-5 of the best, at any confidence."""
    assert chosen(DinferThreshold(tau=0.9), [0.5, 0.499995, 0.49998]) == [0, 1]


def test_a_best_position_just_above_the_threshold_takes_those_just_below():
    """Guards the minimum of the two bounds."""
    assert chosen(DinferThreshold(tau=0.9), [0.900004, 0.899996, 0.8999]) == [0, 1]


@pytest.mark.parametrize("tau", [0.5, 0.7, 0.9, 1.1])
def test_without_near_ties_it_is_the_plain_threshold(tau: float):
    """Guards the equivalence on a model without ties; above 1 that is one position per step."""
    one = replay("method=dinfer_threshold", f"method.tau={tau}", "method.block_length=8")
    plain = replay("method=threshold", f"method.threshold={tau}", "method.block_length=8")
    assert (one.ids, one.calls, one.steps) == (plain.ids, plain.calls, plain.steps)


def test_early_stop_ends_at_the_first_block_that_holds_an_end_token():
    """Guards the knob: off decodes every position, whatever is in it."""
    knobs = ["list_sort", "method=dinfer_threshold", "gen_length=32", "method.block_length=8"]
    short, full = decode_task(*knobs, "method.early_stop=true"), decode_task(*knobs)
    for one, other in zip(short.counts, full.counts, strict=True):
        assert one.nfe < other.nfe
    assert all(made.tokens_generated == 32 and not made.forced for made in full.generations)


def test_a_threshold_below_zero_is_refused():
    """Guards the knob's range."""
    with pytest.raises(ValueError, match=r"tau=-1[.0]*: must be at least 0"):
        DinferThreshold(tau=-1)
