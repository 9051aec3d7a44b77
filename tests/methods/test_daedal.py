"""DAEDAL: the end in sight, the search for a length, and room for what is unsure."""

from dataclasses import replace

import pytest
import torch

from harness.engine.diffusion.canvas import Canvas
from harness.engine.shared.places import Places
from harness.engine.shared.prediction import Candidates, Prediction
from harness.errors import ConfigError
from methods.diffusion.daedal import CanvasGrowth, LeadingBlock
from tests.methods.closed_form import MASK_ID, replay
from tests.methods.test_every_method import subject
from tests.methods.test_saber import NOTHING
from tests.methods.trained import decode_task

END = 0


def row(length: int) -> Canvas:
    """Return a row of masks behind one prompt token, its first block of four open."""
    canvas = Canvas.from_prompts([[3]], gen_length=length, mask_id=MASK_ID, pad_id=0, stop_ids=(END,), seeds=[0])
    LeadingBlock(length=4).update(canvas)
    return canvas


def look(growth: CanvasGrowth, canvas: Canvas, *places: tuple[int, float]) -> bool:
    """Show a prediction (token, probability) per place of the response; return whether it asks for another."""
    position_N = torch.arange(1, len(places) + 1)
    p_NV = torch.stack([torch.full((4,), (1 - p) / 3) for _, p in places]).double()
    for place, (token, p) in enumerate(places):
        p_NV[place, token] = p
    spec = replace(NOTHING.spec, vocab_size=4, max_length=20)
    prediction = Prediction(
        logits_NV=p_NV.log(),
        places=Places.of(torch.zeros_like(position_N), position_N, tuple(canvas.tokens_BL.shape)),
        spec=spec,
    )  # fmt: skip
    best_N = p_NV.max(-1)
    confidence_BL = prediction.scatter(best_N.values, -torch.inf)
    made = Candidates(
        tokens_BL=prediction.scatter(best_N.indices, 0), score_BL=confidence_BL, confidence_BL=confidence_BL
    )
    return bool(growth.before_commit(canvas, prediction, made))


def close(canvas: Canvas, place: int) -> None:
    """Take a step that closes one place."""
    canvas.commit(canvas.place_BL == place, torch.full_like(canvas.tokens_BL, 7))
    canvas.tick(torch.tensor([True]))


def test_masks_are_appended_until_the_end_is_in_sight():
    """Guards the end confidence (over W, from the end) and the end tokens that stage 1 leaves behind."""
    growth, canvas = CanvasGrowth(grow=2, W=2, eos_init=0.5), row(4)
    assert look(growth, canvas, (1, 0.9), (1, 0.9), (1, 0.9), (END, 0.9))
    assert canvas.length_B.tolist() == [7] and not bool(canvas.memory["canvas_growth.searched_B"])
    assert look(growth, canvas, *[(1, 0.9)] * 4, (END, 0.9), (END, 0.9))
    assert canvas.tokens_BL[0].tolist() == [3, *[MASK_ID] * 6, END]
    assert canvas.decided_at_BL[0, -1] == -1 and not bool(canvas.undecided_BL[0, -1])


def test_an_unsure_position_becomes_several():
    """Guards the second stage: the least sure open position that stays open, where the end is not in sight."""
    growth, canvas = CanvasGrowth(grow=3, W=1, eos_init=0, low=0.5, eos_grow=0.9), row(5)
    unsure = [(1, 0.95), (1, 0.4), (1, 0.45), (1, 0.8), (1, 0.8)]
    look(growth, canvas, *unsure)
    assert not look(growth, canvas, *unsure)
    growth(canvas, torch.tensor([False]))
    assert canvas.length_B.tolist() == [6], "a step that closes nothing makes no room"
    close(canvas, 0)
    growth(canvas, torch.tensor([False]))
    assert canvas.tokens_BL[0, :8].tolist() == [3, 7, *[MASK_ID] * 6]
    assert canvas.length_B.tolist() == [8]


def test_what_the_step_has_closed_is_not_expanded():
    """Guards decoders that close unsure positions, as by a low threshold or in a fixed order."""
    growth, canvas = CanvasGrowth(grow=3, W=1, eos_init=0, low=0.5), row(5)
    unsure = [(1, 0.95), (1, 0.4), (1, 0.45), (1, 0.8), (1, 0.8)]
    look(growth, canvas, *unsure)
    look(growth, canvas, *unsure)
    close(canvas, 1)
    growth(canvas, torch.tensor([False]))
    assert canvas.tokens_BL[0, :8].tolist() == [3, MASK_ID, 7, *[MASK_ID] * 5]


def test_nothing_grows_beyond_the_largest_length():
    """Guards Lmax and the model's context: what no longer fits is cut off at the end."""
    growth, canvas = CanvasGrowth(grow=8, W=1, eos_init=0, low=0.5, Lmax=6), row(5)
    unsure = [(1, 0.95), (1, 0.4), (1, 0.45), (1, 0.8), (1, 0.8)]
    look(growth, canvas, *unsure)
    look(growth, canvas, *unsure)
    close(canvas, 4)
    growth(canvas, torch.tensor([False]))
    assert canvas.length_B.tolist() == [7]
    assert canvas.tokens_BL[0, :7].tolist() == [3, *[MASK_ID] * 6]


def test_without_growth_it_is_the_threshold_decoder():
    """Guards the rest of the method: one call more, for the length, and no other token."""
    still = ("method.eos_init=0", "method.eos_grow=0", "method.W=1")
    ours = replay("method=daedal", "method.high=0.7", "method.block_length=8", *still)
    theirs = replay("method=threshold", "method.threshold=0.7", "method.block_length=8")
    assert (ours.ids, ours.calls, ours.steps) == (theirs.ids, theirs.calls + 1, theirs.steps)


def test_an_answer_gets_the_room_that_it_needs_on_the_trained_model():
    """Guards growth through the whole street: from 4 places, lists of 7 and their end tokens fit."""
    knobs = ("method.L0=4", "method.grow=4", "method.W=4", "task.lengths=[7]")
    made = decode_task("list_copy", "method=daedal", *knobs, samples=4)
    assert all(len(one.tokens) >= 8 for one in made.generations)


def test_any_decoder_can_grow():
    """Guards the finish as an option of its own."""
    made = decode_task("list_copy", "method=llada", "method/finish=canvas_growth", "method.finish.W=8", samples=2)
    assert all(len(one.tokens) > 16 for one in made.generations)


GROWING = ("method/finish=canvas_growth", "method.finish.low=0.6", "method.finish.grow=4", "method.finish.Lmax=24")
GROWING += ("method.finish.W=4", "method.finish.eos_init=0", "method.finish.eos_grow=2")


@pytest.mark.parametrize(
    "method",
    ["ccd", "dream", "eb", "entropy_threshold", "klass", "llada method.steps=64", "multi_block", "prophet", "saber"],
)
def test_room_is_made_beside_any_scorer_and_memory(method: str):
    """Guards scores that are no probabilities, what policies remember of positions, and schedules that are over."""
    growing = subject(" ".join([method, *GROWING]))
    made = growing.decode(range(3))
    assert [len(one.tokens) for one in made.generations] == [24] * 3
    assert made.answers[1:2] == growing.decode([1]).answers


def test_a_reference_answer_is_refused():
    """Guards against an answer that is looked up where it does not stand."""
    with pytest.raises(ConfigError, match="canvas_growth does not go with method/preparation=reference_answer"):
        replay("method=oracle", "method/finish=canvas_growth")


def test_the_end_stays_in_sight_of_calls_that_leave_it_out():
    """Guards what was last said of a position, which moves with it."""
    growth, canvas = CanvasGrowth(grow=3, W=1, eos_init=0, low=0.5, eos_grow=0.9), row(5)
    sure = [(1, 0.95), (1, 0.4), (1, 0.8), (1, 0.8), (END, 0.95)]
    look(growth, canvas, *sure)
    canvas.insert(torch.tensor([2]), torch.tensor([1]))
    look(growth, canvas, *sure[:3])
    assert not canvas.memory["canvas_growth.doubt_BL"].any()
    assert canvas.memory["canvas_growth.end_BL"][0].nonzero().flatten().tolist() == [6]


@pytest.mark.parametrize("knob", ["L0=0", "Lmax=0", "grow=0", "W=0", "high=-1", "low=-1", "eos_init=-1", "eos_grow=-1"])
def test_values_out_of_range_are_refused(knob: str):
    """Guards against a silent clamp."""
    with pytest.raises(ConfigError, match=f"method.{knob.split('=')[0]}"):
        replay("method=daedal", f"method.{knob}")
