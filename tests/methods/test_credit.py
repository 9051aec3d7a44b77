"""CreditDecoding's credit against its published vector, and where it has no effect."""

import pytest
import torch

from harness.config.build import build_method
from harness.config.composition import compose
from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.loop import decode
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.shared.model import ModelKind, ModelSpec
from harness.engine.shared.places import Places
from harness.engine.shared.prediction import Candidates, Prediction
from harness.engine.shared.records import Ledger
from harness.models.closed_form import ClosedForm, ClosedFormModel
from methods.diffusion.blocks import Blocks
from methods.diffusion.credit import Credit
from tests.methods.closed_form import MASK_ID, replay
from tests.methods.trained import decode_task

SPEC = ModelSpec(
    name="written",
    kind=ModelKind.MASKED_DIFFUSION,
    vocab_size=5,
    max_length=99,
    layers=1,
    stop_ids=(),
    pad_id=0,
    mask_id=None,
)


def score(canvas: Canvas, *leads: tuple[int, float]) -> Candidates:
    """Score one step of a row of `leads`: per position the leading of five tokens and its probability."""
    p_NV = torch.stack([torch.full((5,), (1 - p) / 4).index_fill(0, torch.tensor(token), p) for token, p in leads])
    prediction = Prediction(
        logits_NV=p_NV.double().log(),
        places=Places.of(torch.zeros(len(leads), dtype=torch.int64), torch.arange(len(leads)), (1, len(leads))),
        spec=SPEC,
    )
    candidates = Credit()(prediction, canvas)
    canvas.tick(torch.tensor([True]))
    return candidates


def blank(length: int, block_length: int) -> Canvas:
    """Return a canvas of masks with its first block open."""
    canvas = Canvas.from_prompts([[]], gen_length=length, mask_id=MASK_ID, pad_id=0, seeds=[0])
    Blocks(length=block_length).update(canvas)
    return canvas


def test_the_published_vector():
    """Guards decay before boost, and the present step's credit, which counts at once."""
    canvas = blank(1, 1)
    made, credit = [], []
    for p in (0.6, 0.7, 0.8, 0.8, 0.8):
        made.append(score(canvas, (2, p)).confidence_BL.item())
        credit += canvas.memory["credit.credit_BSL"].amax(1).flatten().tolist()
    assert made == pytest.approx([0.7018, 0.8221, 0.9018, 0.9103, 0.9159], abs=5e-5)
    assert credit == pytest.approx([0.9029, 1.6535, 2.2791, 2.7796, 3.1801], abs=5e-5)


def test_a_leader_that_loses_the_lead_keeps_what_is_left():
    """Guards the whole history: two tokens have credit, the present leader more."""
    canvas = blank(1, 1)
    for token in (0, 1, 0):
        made = score(canvas, (token, 0.6))
    boost = 0.6**0.2
    credits = torch.tensor([boost * 0.64 + boost, boost * 0.8, 0.0, 0.0, 0.0])
    p_V = (torch.tensor([0.6, 0.1, 0.1, 0.1, 0.1]).log() + 0.7 * credits.log1p()).softmax(0)
    assert made.confidence_BL.item() == pytest.approx(p_V[0].item(), abs=1e-6)


def test_credit_can_change_the_token():
    """Guards the token, which comes from the sum as well: after a long lead, a narrow one does not win."""
    canvas = blank(1, 1)
    for _ in range(3):
        score(canvas, (3, 0.9))
    assert score(canvas, (0, 0.21)).tokens_BL.tolist() == [[3]]


def test_decided_positions_earn_nothing_and_a_new_block_starts_fresh():
    """Guards the two ends of a position's history."""
    canvas = blank(2, 1)
    score(canvas, (2, 0.6), (2, 0.6))
    assert canvas.memory["credit.credit_BSL"][0, 0, 1] == 0
    canvas.commit(canvas.open_BL, canvas.tokens_BL)
    Blocks(length=1).update(canvas)
    made = score(canvas, (2, 0.6), (2, 0.6))
    assert made.confidence_BL.tolist() == [pytest.approx([0.6, 0.7018], abs=5e-5)]


@pytest.mark.parametrize("tau", [0.5, 0.7, 0.9])
def test_without_weight_it_is_the_threshold_decoder(tau: float):
    """Guards the equivalence on the closed-form model."""
    knobs = [f"method.tau={tau}", "method.block_length=8"]
    one, plain = replay("method=credit", "method.alpha=0", *knobs), replay("method=dinfer_threshold", *knobs)
    assert (one.ids, one.calls, one.steps) == (plain.ids, plain.calls, plain.steps)


def test_credit_lets_positions_pass_earlier():
    """Guards the purpose."""
    knobs = ["method.tau=0.7", "method.block_length=8"]
    assert replay("method=credit", *knobs).calls < replay("method=dinfer_threshold", *knobs).calls


def test_rows_start_fresh_on_their_own():
    """Guards the memory of a batch whose rows open their blocks at different times."""
    method = build_method(compose(["method=credit", "gen_length=16", "method.block_length=4", "method.tau=0.7"]))
    assert isinstance(method, DiffusionMethod)
    model = ClosedFormModel(ClosedForm(vocab_size=12, mask_id=MASK_ID, eos_id=0, a1=4, f1=1.3, a2=1.5, f2=0.9, f3=2.1))
    prompts = [[3, 1, 4], [2, 7, 1, 8], [5]]

    def decoded(*rows: int) -> list[tuple]:
        canvas = Canvas.from_prompts(
            [prompts[r] for r in rows], gen_length=16, mask_id=MASK_ID, pad_id=0, seeds=[0] * len(rows)
        )
        return [(made.tokens, made.decided_at) for made in decode(model, method, canvas, Ledger())]

    together = decoded(0, 1, 2)
    assert len({max(steps) for _, steps in together}) > 1
    assert together == decoded(0) + decoded(1) + decoded(2)


def test_without_weight_it_is_the_threshold_decoder_on_the_trained_model():
    """Guards the same equivalence in batches of ragged prompts, whose rows open blocks at different times."""
    knobs = ["list_shuffle", "method.block_length=4", "method.early_stop=true"]
    one = decode_task(*knobs, "method=credit", "method.alpha=0")
    assert one.generations == decode_task(*knobs, "method=dinfer_threshold").generations


@pytest.mark.parametrize("knob", ["alpha", "gam", "temperature", "beta"])
def test_knobs_below_zero_are_refused(knob: str):
    """Guards the ranges."""
    with pytest.raises(ValueError, match=f"{knob}=-1[.0]*: must be .*"):
        Credit(**{knob: -1})
