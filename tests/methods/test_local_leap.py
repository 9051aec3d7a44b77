"""LocalLeap's neighbourhoods on the published profile, and where they vanish."""

import pytest

from methods.diffusion.local_leap import LocalLeap
from tests.methods.closed_form import PROFILE, candidates, chosen, replay
from tests.methods.trained import decode_task

EXPECTED = {1: [0, 1, 2, 5, 11], 2: [0, 1, 2, 5, 7, 11], 4: [0, 1, 2, 5, 7, 8, 11]}


@pytest.mark.parametrize("r", EXPECTED)
def test_the_profile_row(r: int):
    """Guards the radius, both ends included."""
    assert chosen(LocalLeap(r=r), PROFILE) == EXPECTED[r]


def test_only_open_positions_are_anchors():
    """Guards against decided tokens and later blocks, sure as they may be, lowering the bar."""
    made, open_BL, canvas = candidates([0.99, 0.8, 0.8, 0.99])
    open_BL[0, [0, 3]] = False
    assert not LocalLeap(r=1)(made, open_BL, None, canvas).any()


def test_thresholds_that_are_met_count():
    """Guards both comparisons."""
    assert chosen(LocalLeap(tau=0.9, tau_rel=0.7, r=1), [0.9, 0.7, 0.7]) == [0, 1]
    assert chosen(LocalLeap(tau=0.9, tau_rel=0.7, r=1, strict=True), [0.95, 0.7, 0.9]) == [0]


@pytest.mark.parametrize("knob", ["r=0", "tau_rel=0.9", "tau_rel=null"])
@pytest.mark.parametrize("task", ["list_shuffle", "list_insert_random"])
def test_without_a_neighbourhood_it_is_the_plain_threshold(knob: str, task: str):
    """Guards the equivalences on the trained model."""
    one = decode_task(task, "method=local_leap", f"method.{knob}")
    plain = decode_task(task, "method=threshold")
    assert one.generations == plain.generations
    assert one.counts == plain.counts


def test_unreachable_thresholds_are_one_position_per_step():
    """Guards progress without anchors."""
    slow = replay("method=local_leap", "method.tau=1.01", "method.tau_rel=0.5")
    reference = replay("method=llada")
    assert (slow.ids, slow.calls, slow.steps) == (reference.ids, reference.calls, reference.steps)


def test_knobs_out_of_range_are_refused():
    """Guards against a relaxed threshold that is stricter than the other."""
    with pytest.raises(ValueError, match=r"tau_rel=0\.75: must be between 0 and tau=0\.5"):
        LocalLeap(tau=0.5)
    with pytest.raises(ValueError, match=r"tau_rel=-0\.5: must be between 0 and tau=0\.9"):
        LocalLeap(tau_rel=-0.5)
    with pytest.raises(ValueError, match=r"r=-1[.0]*: must be at least 0"):
        LocalLeap(r=-1)
