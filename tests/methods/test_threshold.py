"""Fast-dLLM's threshold against its golden trajectories."""

import pytest

from methods.diffusion.fast_dllm import Threshold
from tests.methods.closed_form import PROFILE, chosen, replay

GOLDEN = {
    0.9: ("3 10 2 6 0 10 5 9 10 8 9 3 10 0 7 2", 16, "1 5 7 6 0 3 2 4 15 13 11 12 9 8 10 14"),
    0.7: ("3 10 2 6 0 6 3 9 9 8 2 3 10 0 6 2", 11, "1 3 5 0 0 4 0 2 8 6 9 6 7 6 6 10"),
    0.5: ("3 10 2 6 0 6 3 9 8 8 2 3 6 0 6 2", 5, "0 1 2 0 0 0 0 0 3 3 3 3 3 3 3 4"),
}
CARRIED = {
    2: ("3 10 2 6 0 6 3 9 8 9 9 3 10 0 6 2", 11, "1 7 9 0 0 8 0 2 3 5 4 0 6 0 0 10"),
    4: ("3 10 2 6 0 10 5 9 8 8 2 3 10 0 6 2", 11, "1 8 9 0 0 5 4 7 5 6 2 3 1 0 0 10"),
    8: ("3 10 2 6 0 10 5 9 8 8 2 3 10 0 7 2", 14, "3 10 13 11 0 7 6 9 7 8 4 5 1 0 2 12"),
}


@pytest.mark.parametrize("threshold", GOLDEN)
def test_golden_trajectories(threshold: float):
    """Guards ids, calls, query tokens and commits."""
    made = replay("method=threshold", f"method.threshold={threshold}", "method.block_length=8")
    assert (made.ids, made.calls, made.steps) == GOLDEN[threshold]
    assert made.counts.query_tokens == made.calls * 21


@pytest.mark.parametrize("steps", CARRIED)
def test_golden_trajectories_of_the_carried_allowance(steps: int):
    """Guards the schedule of their Dream sampler: what was not sure enough is allowed again in the next step."""
    made = replay(
        "method=threshold",
        "method.threshold=0.7",
        "method.block_length=16",
        "method/schedule=allowance",
        f"method.schedule.steps={steps}",
        "method.schedule.gen_length=16",
    )
    assert (made.ids, made.calls, made.steps) == CARRIED[steps]


def test_a_threshold_that_is_met_counts():
    """Guards >= against > ; the strict form exists for the papers that mean it."""
    assert chosen(Threshold(threshold=0.9), [0.95, 0.90, 0.50]) == [0, 1]
    assert chosen(Threshold(threshold=0.9, strict=True), [0.95, 0.90, 0.50]) == [0]
    assert chosen(Threshold(threshold=0.9), PROFILE) == [0, 2, 5, 11]


def test_the_best_position_closes_where_none_is_sure():
    """Guards progress: above 1 the method is one token per step, exactly."""
    slow, reference = replay("method=threshold", "method.threshold=1.1"), replay("method=llada")
    assert (slow.ids, slow.calls, slow.steps) == (reference.ids, reference.calls, reference.steps)


def test_everything_is_sure_at_zero():
    """Guards one call per block at the other end."""
    assert replay("method=threshold", "method.threshold=0", "method.block_length=4").calls == 4


def test_knobs_are_given_by_name():
    """Guards every policy against numbers whose meaning hangs on the order of fields."""
    with pytest.raises(TypeError, match="positional"):
        Threshold(0.5)  # type: ignore[misc]
