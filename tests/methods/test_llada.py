"""LLaDA's sampler against its golden trajectories."""

import pytest
import torch

from harness.engine.diffusion.canvas import Canvas
from methods.diffusion.llada import Split, Top
from tests.methods.closed_form import chosen, replay

GOLDEN = {
    "steps=16 block_length=16": (
        "3 10 2 6 0 10 5 9 8 8 2 3 10 0 7 2", 16, 336, "4 12 15 13 0 10 7 11 8 9 5 6 2 1 3 14"),
    "steps=8 block_length=16": (
        "3 10 2 7 0 10 5 2 8 8 2 3 10 0 7 2", 8, 168, "1 6 7 6 0 4 3 5 4 5 2 3 1 0 2 7"),
    "steps=16 block_length=4": (
        "3 10 2 6 0 10 3 9 8 8 2 1 10 0 6 2", 16, 336, "1 2 3 0 5 6 4 7 10 8 11 9 13 12 14 15"),
    "steps=8 block_length=4": (
        "3 10 2 6 0 6 3 9 9 8 2 3 6 1 7 2", 8, 168, "0 1 1 0 3 3 2 2 5 4 5 4 7 6 6 7"),
    "steps=4 block_length=16": (
        "3 10 2 6 0 10 5 9 8 9 9 3 10 0 6 2", 4, 84, "1 3 3 0 0 2 1 3 2 2 1 2 1 0 0 3"),
    "cfg_scale=1 block_length=16": (
        "7 8 10 6 0 10 5 9 8 8 2 3 10 0 7 2", 16, 672, "10 11 15 12 0 9 6 13 7 8 4 5 2 1 3 14"),
}  # fmt: skip
WITH_END_BIAS = {
    "steps=16": ("3 10 2 0 0 10 3 2 0 0 2 5 6 0 0 2", "11 12 13 7 0 6 8 9 3 2 10 4 14 1 5 15"),
    "logits_eos_inf=true": ("3 10 2 6 1 6 1 9 9 8 9 3 2 1 6 2", "4 11 13 1 7 12 6 8 2 3 9 5 15 10 0 14"),
    "confidence_eos_eot_inf=true": (
        "3 10 2 0 0 10 3 9 0 0 2 3 10 0 7 2", "4 5 10 11 12 8 3 7 13 14 6 0 2 15 1 9"),
}  # fmt: skip


@pytest.mark.parametrize("knobs", GOLDEN)
def test_golden_trajectories(knobs: str):
    """Guards ids, calls, query tokens (two rows per call under guidance) and the step of every commit."""
    made = replay("method=llada", *(f"method.{knob}" for knob in knobs.split()))
    assert (made.ids, made.calls, made.counts.query_tokens, made.steps) == GOLDEN[knobs]


@pytest.mark.parametrize("knobs", WITH_END_BIAS)
def test_golden_trajectories_of_the_end_controls(knobs: str):
    """Guards what the two switches do to end tokens: no such token, or no confidence in it.

    End tokens without confidence tie at 0: ours close by position, where the reference's order is undefined.
    """
    made = replay("method=llada", f"method.{knobs}", eos_bias=3.0)
    assert (made.ids, made.steps) == WITH_END_BIAS[knobs]


def test_top_takes_the_lowest_position_of_a_tie():
    """Guards the canonical order: score descending, then position."""
    assert chosen(Top(), [0.2, 0.9, 0.9, 0.5], quota=2) == [1, 2]
    assert chosen(Top(), [0.5, 0.5, 0.5], quota=1) == [0]
    assert chosen(Top(), [0.5, 0.5, 0.2]) == [0]


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 16])
def test_a_schedule_takes_its_steps(steps: int):
    """Guards the closed form: one call per step, every call a full canvas."""
    made = replay("method=llada", f"method.steps={steps}")
    assert made.calls == made.counts.nfe == steps
    assert made.counts.query_tokens == steps * 21


@pytest.mark.parametrize(
    ("masks", "steps", "quotas"), [(10, 4, [3, 3, 2, 2]), (3, 8, [1, 1, 1, 0, 0, 0, 0, 0]), (32, 32, [1] * 32)]
)
def test_a_block_is_split_into_quotas(masks: int, steps: int, quotas: list[int]):
    """Guards the remainder, which goes to the first steps, and the count of masks, taken when the block opens."""
    schedule = Split(steps=steps, block_length=32, gen_length=32)
    canvas = Canvas.from_prompts([[]], gen_length=32, mask_id=11, pad_id=0, seeds=[0])
    canvas.commit(canvas.place_BL >= masks, canvas.tokens_BL)
    canvas.open_window(torch.tensor([True]), canvas.response_BL)
    found = []
    for _ in range(steps):
        found.append(int(schedule.quota(canvas)))
        canvas.tick(torch.tensor([True]))
    assert found == quotas


def test_steps_beyond_the_masks_are_idle():
    """Guards against calls after which nothing can change."""
    made = replay("method=llada", "method.steps=32")
    assert (made.calls, made.counts.nfe) == (32, 16)


def test_a_bad_split_is_refused():
    """Guards the message of the two ways in which steps and blocks do not fit."""
    with pytest.raises(ValueError, match=r"block_length=5[.0]*: must divide gen_length=16"):
        Split(steps=None, block_length=5, gen_length=16)
    with pytest.raises(ValueError, match=r"steps=6[.0]*: must be a multiple of the 4 blocks"):
        Split(steps=6, block_length=4, gen_length=16)
