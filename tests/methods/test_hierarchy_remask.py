"""The hierarchy rule with second thoughts: what is doubted, edited and masked again."""

import pytest
import torch

from harness.config.build import build_method
from harness.config.composition import compose
from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.loop import decode
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.shared.places import Places
from harness.engine.shared.prediction import Candidates, Prediction
from harness.engine.shared.records import Ledger
from harness.models.closed_form import ClosedForm, ClosedFormModel
from methods.diffusion.hierarchy import HierarchyOfDoubted, RemaskDoubted
from tests.methods.closed_form import MASK_ID, replay
from tests.methods.trained import decode_task

OLD, NEW = 1, 2
UNSURE = ClosedForm(vocab_size=16, mask_id=15, eos_id=0, a1=2.31, f1=1.288, a2=2.98, f2=0.537, f3=1.765)

UNREAD = Prediction(
    logits_NV=torch.zeros(0, 12),
    places=Places.of(torch.zeros(0), torch.zeros(0), (1, 0)),
    spec=ClosedFormModel(UNSURE).spec,
)


def stepped(confidences: list[float], decided: list[int], given: dict[int, int] | None = None) -> Canvas:
    """Take one step of selector and reviser on a row whose `decided` positions hold OLD; NEW is predicted."""
    length = len(confidences)
    canvas = Canvas.from_prompts(
        [[]], gen_length=length, mask_id=MASK_ID, pad_id=0, seeds=[0], constraints=[given or {}]
    )
    canvas.open_window(torch.tensor([True]), torch.ones(1, length, dtype=torch.bool))
    canvas.commit(
        torch.tensor([[place in decided for place in range(length)]]),
        torch.full((1, length), OLD),
    )
    canvas.tick(torch.tensor([True]))
    confidence_BL = torch.tensor([confidences])
    made = Candidates(tokens_BL=torch.full((1, length), NEW), score_BL=confidence_BL, confidence_BL=confidence_BL)
    commit_BL = HierarchyOfDoubted()(made, canvas.open_BL, None, canvas)
    canvas.commit(commit_BL, made.tokens_BL)
    RemaskDoubted()(canvas, UNREAD, made, commit_BL)
    return canvas


def test_what_is_decided_and_not_doubted_stays():
    """Guards the bound, which 0.4 itself meets, and the rule for the rest: the best of the run closes."""
    made = stepped([0.4, 0.5, 0.6, 0.95, 0.3], decided=[0])
    assert made.tokens_BL.tolist() == [[OLD, MASK_ID, MASK_ID, NEW, MASK_ID]]


def test_doubted_positions_take_part_in_runs_and_are_masked_again():
    """Guards the doubted position 1: it joins the run of its neighbours, is not chosen, and is a mask again."""
    made = stepped([0.5, 0.2, 0.6, 0.3], decided=[1])
    assert made.tokens_BL.tolist() == [[NEW, MASK_ID, NEW, MASK_ID]]
    assert made.remasked_B.tolist() == [1]


def test_a_doubted_position_that_is_chosen_is_edited():
    """Guards the edit: the new token, the old step, and no re-masking."""
    made = stepped([0.1, 0.35, 0.2], decided=[1])
    assert made.tokens_BL.tolist() == [[MASK_ID, NEW, NEW]]
    assert made.decided_at_BL.tolist() == [[-1, 0, 1]]
    assert made.remasked_B.tolist() == [0]


def test_given_positions_are_never_doubted():
    """Guards constraints, which also part the runs around them."""
    made = stepped([0.5, 0.1, 0.6], decided=[], given={1: 7})
    assert made.tokens_BL.tolist() == [[NEW, 7, NEW]]


def test_masks_become_fewer_in_every_step():
    """Guards termination: one more is chosen than are doubted, so a block takes at most as many calls as masks."""
    method = build_method(compose(["method=hierarchy_remask", "gen_length=24", "method.rm=0.6"]))
    assert isinstance(method, DiffusionMethod)
    canvas = Canvas.from_prompts([[3, 2, 4]], gen_length=24, mask_id=15, pad_id=0, seeds=[0])
    left = [24]

    def count(before: Canvas, candidates: Candidates, after: Canvas) -> None:
        left.append(int(after.undecided_BL.sum()))

    (made,) = decode(ClosedFormModel(UNSURE), method, canvas, Ledger(), [count])
    assert left == sorted(set(left), reverse=True)
    assert made.remasked > 0
    assert made.forced == 0


@pytest.mark.parametrize("knob", ["rm=0", "low=1"])
def test_without_doubt_it_is_the_hierarchy(knob: str):
    """Guards rm = 0, where nothing is masked again, with and without runs."""
    knobs = ["method.block_length=8", f"method.{knob}"]
    one = replay("method=hierarchy_remask", "method.rm=0", *knobs)
    plain = replay("method=hierarchy", *[k for k in knobs if "rm" not in k])
    assert (one.ids, one.calls, one.steps) == (plain.ids, plain.calls, plain.steps)


def test_without_doubt_it_is_the_hierarchy_on_the_trained_model():
    """Guards the same equivalence on ragged prompts."""
    one = decode_task("list_shuffle", "method=hierarchy_remask", "method.rm=0")
    assert one.generations == decode_task("list_shuffle", "method=hierarchy").generations
