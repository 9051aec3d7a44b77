"""CCD as published: what stays among the surest, and the mean of its distributions."""

import math

import pytest
import torch

from harness.engine.diffusion.canvas import Canvas
from harness.engine.shared.model import ModelKind, ModelSpec
from harness.engine.shared.places import Places
from harness.engine.shared.prediction import Candidates, Prediction, ScoreDtype
from harness.errors import ConfigError
from methods.diffusion.ccd import Coherent, Contextual, Mode
from tests.methods.closed_form import MASK_ID, replay
from tests.methods.trained import decode_task

SPEC = ModelSpec(
    name="none", kind=ModelKind.MASKED_DIFFUSION, vocab_size=3, max_length=8, layers=1, stop_ids=(0,), pad_id=0
)


def score(scorer: Contextual, canvas: Canvas, *rows: list[float]) -> Candidates:
    """Score one distribution per open position of a canvas of one row, and let a step pass."""
    row_N, position_N = canvas.open_BL.nonzero(as_tuple=True)
    logits_NV = torch.tensor(rows, dtype=torch.float64).log()[position_N]
    prediction = Prediction(
        logits_NV=logits_NV, places=Places.of(row_N, position_N, tuple(canvas.open_BL.shape)), spec=SPEC
    )
    made = scorer(prediction, canvas)
    canvas.tick(torch.tensor([True]))
    return made


def open_row(length: int) -> Canvas:
    """Return a row of open masks."""
    canvas = Canvas.from_prompts([[]], gen_length=length, mask_id=MASK_ID, pad_id=0, seeds=[0])
    canvas.open_window(torch.tensor([True]), canvas.response_BL)
    return canvas


def test_only_what_stayed_among_the_surest_is_scored():
    """Guards the intersection over steps: the position that is surest now, but was not before, has to wait."""
    canvas, scorer = open_row(3), Contextual(top_v=2, d=1, score_dtype=ScoreDtype.float64)
    first = score(scorer, canvas, [0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.4, 0.3, 0.3])
    assert first.score_BL.argmax() == 0 and bool(first.score_BL.isfinite().all())
    later = score(scorer, canvas, [0.4, 0.3, 0.3], [0.1, 0.8, 0.1], [0.02, 0.02, 0.96])
    assert later.score_BL.isfinite().tolist() == [[False, True, False]]


def test_the_token_is_that_of_the_mean():
    """Guards the averaged distribution: a token that was sure before outvotes the present best one."""
    canvas, scorer = open_row(1), Contextual(top_v=1, d=1, score_dtype=ScoreDtype.float64)
    score(scorer, canvas, [0.1, 0.8, 0.1])
    made = score(scorer, canvas, [0.5, 0.4, 0.1])
    assert made.tokens_BL.tolist() == [[1]]
    mean = [0.3, 0.6, 0.1]
    assert made.score_BL.item() == pytest.approx(sum(p * math.log(p) for p in mean))


def test_coherent_positions_close_together():
    """Guards CCD-DS with its entropies: both positions kept their distribution, so that nothing depends on context."""
    canvas = open_row(3)
    scorer = Contextual(top_v=3, d=1, eps=0.5, score_dtype=ScoreDtype.float64)
    sure, unsure = [0.98, 0.01, 0.01], [0.5, 0.25, 0.25]
    for _ in range(2):
        made = score(scorer, canvas, sure, unsure, sure)
    chosen_BL = Coherent(mode=Mode.ccd_ds)(made, canvas.open_BL, None, canvas)
    assert chosen_BL.tolist() == [[True, False, True]]
    assert Coherent(b=1)(made, canvas.open_BL, None, canvas).tolist() == [[True, False, False]]


def test_without_eps_the_same_token_counts_as_coherent():
    """Guards the authors' approximation."""
    canvas, scorer = open_row(2), Contextual(top_v=2, d=1, score_dtype=ScoreDtype.float64)
    score(scorer, canvas, [0.6, 0.3, 0.1], [0.6, 0.3, 0.1])
    made = score(scorer, canvas, [0.6, 0.3, 0.1], [0.3, 0.6, 0.1])
    assert Coherent(mode=Mode.ccd_ds)(made, canvas.open_BL, None, canvas).tolist() == [[True, False]]


def test_without_history_it_is_llada():
    """Guards the fallback and the order, also of positions whose probability rounds to 1, as the trained model's do."""
    made = replay("method=ccd", "method.d=0", "method.order=confidence")
    best = replay("method=llada", "method.block_length=16")
    assert (made.ids, made.calls, made.steps) == (best.ids, best.calls, best.steps)
    ours = decode_task("list_shuffle", "method=ccd", "method.d=0", "method.order=confidence")
    theirs = decode_task("list_shuffle", "method=llada")
    assert [one.tokens for one in ours.generations] == [one.tokens for one in theirs.generations]
    assert [one.decided_at for one in ours.generations] == [one.decided_at for one in theirs.generations]


def test_dynamic_steps_are_fewer_on_the_trained_model():
    """Guards the gain of CCD-DS, and that CCD takes b positions per step."""
    assert {counts.nfe for counts in decode_task("list_copy", "method=ccd").counts} == {16}
    assert all(counts.nfe < 16 for counts in decode_task("list_copy", "method=ccd", "method.mode=ccd_ds").counts)


@pytest.mark.parametrize("knob", ["top_v=0", "d=-1", "b=0", "eps=-1"])
def test_values_out_of_range_are_refused(knob: str):
    """Guards against a silent clamp."""
    with pytest.raises(ConfigError, match=f"method.{knob.split('=')[0]}"):
        replay("method=ccd", f"method.{knob}")
