"""Tests of what is remembered of the steps that a verifier makes."""

import gc
from collections.abc import Sequence

import torch

from harness.config.build import build_method
from harness.config.composition import compose
from harness.engine.diffusion import loop
from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.loop import decode
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.diffusion.steps import Steps
from harness.engine.shared.places import Places
from harness.engine.shared.prediction import Prediction
from harness.engine.shared.records import Ledger
from tests.caches.decoding import random_model

MODEL = random_model("masked_diffusion")


def _canvas() -> Canvas:
    assert MODEL.spec.mask_id is not None
    return Canvas.from_prompts(
        [[2, 30], [2, 31]], gen_length=4, mask_id=MODEL.spec.mask_id, pad_id=MODEL.spec.pad_id, seeds=range(2)
    )


def _prediction(canvas: Canvas) -> Prediction:
    places = Places.marked(canvas.undecided_BL, canvas.undecided_BL.sum(1).tolist())
    return Prediction(logits_NV=torch.zeros(8, MODEL.spec.vocab_size), places=places, spec=MODEL.spec)


def _tick(canvas: Canvas, prediction: Prediction, rows: Sequence[bool] | None = None) -> Canvas:
    after = canvas.copy()
    after.tick(None)
    return after


def test_the_last_step_is_known_from_the_same_state_and_prediction_alone():
    """Guards the answer: a state that a verifier has changed since, in a field or in a memory, is stepped from anew."""
    canvas = _canvas()
    prediction, steps = _prediction(canvas), Steps(_tick)
    assert steps.taken(canvas, prediction) is None
    after = steps(canvas, prediction)
    again = steps.taken(canvas.with_stores({}, torch.arange(2)), prediction)
    assert again is not None and again.clock_B is after.clock_B
    assert steps.taken(canvas, _prediction(canvas)) is None
    later = canvas.copy()
    later.idle_B = later.idle_B + 0
    assert steps.taken(later, prediction) is None
    told = canvas.copy()
    told.memory["told_B"] = torch.zeros(2)
    assert steps.taken(told, prediction) is None
    steps(canvas, prediction, [True, False])
    assert steps.taken(canvas, prediction) is None, "a step of some rows is no step of all"


def test_no_prediction_lives_on_for_it():
    """Guards the peak of memory: logits are dropped when the loop drops them."""
    canvas = _canvas()
    prediction, steps = _prediction(canvas), Steps(_tick)
    steps(canvas, prediction)
    del prediction
    gc.collect()
    assert steps.taken(canvas, _prediction(canvas)) is None


def test_a_step_that_a_verifier_has_tried_is_not_made_twice(monkeypatch):
    """Guards FreeDave against stepping from a state twice: by its walk, and by the loop."""
    method = build_method(compose(["model=random_mdm", "method=freedave", "method.block_length=8", "gen_length=16"]))
    assert isinstance(method, DiffusionMethod)
    seen, own = [], loop._advance

    def counted(method: DiffusionMethod, canvas: Canvas, prediction: Prediction, *others: object):
        seen.append((canvas.tokens_BL, canvas.clock_B, prediction))
        return own(method, canvas, prediction, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "_advance", counted)
    canvas = Canvas.from_prompts(
        [[2, 30, 76, 4]], gen_length=16, mask_id=MODEL.spec.mask_id or 0, pad_id=MODEL.spec.pad_id, seeds=[0]
    )
    decode(MODEL, method, canvas, Ledger())
    states = [(id(tokens_BL), id(clock_B), id(prediction)) for tokens_BL, clock_B, prediction in seen]
    assert len(states) == len(set(states))
