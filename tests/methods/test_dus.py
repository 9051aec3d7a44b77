"""Dilated unmasking: its plan, and that the plan is followed."""

import pytest
import torch

from harness.engine.diffusion.canvas import Canvas
from harness.engine.shared.prediction import Candidates
from harness.errors import ConfigError
from methods.diffusion.dus import Dilated, levels
from tests.methods.closed_form import MASK_ID, replay
from tests.methods.trained import decode_task


def groups(length: int, a: int) -> list[list[int]]:
    """Return the places of each level."""
    level_of = levels(length, a)
    return [[p for p in range(length) if level_of[p] == level] for level in range(max(level_of) + 1)]


def test_the_published_groups():
    """Guards the strides."""
    assert groups(8, 2) == [[0, 4], [2, 6], [1, 3, 5, 7]]
    assert groups(16, 2) == [[0, 8], [4, 12], [2, 6, 10, 14], list(range(1, 16, 2))]


def test_every_place_has_a_level_and_the_last_is_no_rest():
    """Guards lengths that are no power of the base: strides round down, and a small last level joins the one before."""
    for length in range(1, 40):
        for a in (2, 3, 5):
            plan = groups(length, a)
            assert sorted(place for group in plan for place in group) == list(range(length))
            assert len(plan) == 1 or len(plan[-1]) >= len(plan[-2])


def test_calls_are_levels_times_blocks():
    """Guards the closed form, and that the order is the plan's."""
    made = replay("method=dus", "method.block_length=8")
    assert made.calls == 6
    assert made.steps == "0 2 1 2 0 2 1 2 3 5 4 5 3 5 4 5"
    assert replay("method=dus", "method.a=16").calls == 1


@pytest.mark.parametrize(("block", "calls"), [(32, 4), (12, 5), (16, 4), (1, 16)])
def test_a_block_that_is_cut_short_has_the_plan_of_its_length(block: int, calls: int):
    """Guards blocks longer than the response, and a last block of 4 behind one of 12 (2 calls behind 3)."""
    assert replay("method=dus", f"method.block_length={block}").calls == calls


def test_rows_have_the_plans_of_their_own_windows():
    """Guards windows of different lengths in one batch, and given tokens, which cost no call."""
    canvas = Canvas.from_prompts(
        [[1], [1, 1, 1]], gen_length=8, mask_id=MASK_ID, pad_id=0, seeds=[0, 1], constraints=[{}, {0: 2, 2: 2}]
    )
    window_BL = canvas.response_BL & (canvas.place_BL < torch.tensor([[8], [4]]))
    canvas.open_window(torch.tensor([True, True]), window_BL)
    no_score_BL = torch.zeros_like(canvas.tokens_BL)
    none = Candidates(tokens_BL=no_score_BL, score_BL=no_score_BL, confidence_BL=no_score_BL)
    chosen_BL = Dilated()(none, canvas.open_BL, None, canvas)
    assert [canvas.place_BL[row][chosen_BL[row]].tolist() for row in range(2)] == [[0, 4], [1, 3]]


def test_dependent_positions_pay_and_independent_ones_do_not():
    """Guards the point of the method on the trained model: a plan costs the same on every task."""
    copied, shuffled = (decode_task(task, "method=dus") for task in ("list_copy", "list_shuffle"))
    assert {counts.nfe for made in (copied, shuffled) for counts in made.counts} == {4}


def test_a_base_below_two_is_refused():
    """Guards against a plan that never gets finer."""
    with pytest.raises(ConfigError, match=r"method.a=1"):
        replay("method=dus", "method.a=1")
