"""LoPA against a plain reading of its rule, and where it has nothing to choose."""

import pytest
import torch

from harness.commands.check.methods import model
from harness.commands.check.subject import LENGTH, PROMPTS
from harness.config.build import build_method
from harness.config.composition import compose
from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.loop import decode
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.shared.model import ForwardRequest, ModelKind, ModelSpec
from harness.engine.shared.places import Places
from harness.engine.shared.prediction import Candidates, Prediction, ScoreDtype
from harness.engine.shared.records import Ledger
from harness.errors import ConfigError
from harness.models.closed_form import ClosedForm, ClosedFormModel
from methods.diffusion.lopa import LookAhead
from tests.caches.decoding import decode_with, trained_model
from tests.methods.closed_form import MASK_ID, PROMPT, replay
from tests.methods.test_arrivals import alone
from tests.methods.test_freedave import GROWTH, on_random_model
from tests.methods.trained import decode_task

GOLDEN = ClosedFormModel(ClosedForm(vocab_size=12, mask_id=MASK_ID, eos_id=0, a1=4, f1=1.3, a2=1.5, f2=0.9, f3=2.1))


def predict(tokens: list[int], block: range) -> dict[int, tuple[float, int]]:
    """Return confidence and token of every mask of the block."""
    logits_LV = GOLDEN.forward(ForwardRequest(torch.tensor([tokens])))[0]
    logits_LV[:, MASK_ID] = -torch.inf
    best = logits_LV.softmax(-1).max(-1)
    return {i: (float(best.values[i]), int(best.indices[i])) for i in block if tokens[i] == MASK_ID}


def filled(tokens: list[int], seen: dict[int, tuple[float, int]], places: list[int]) -> list[int]:
    """Return the tokens with some of the masks replaced."""
    return [seen[i][1] if i in places else token for i, token in enumerate(tokens)]


def plain_reading(k: int, threshold: float, block_length: int, branch_topp: float) -> tuple[str, int, int]:
    """Decode one row of 16 as the paper tells it; return ids, calls and evaluated rows."""
    start, calls, rows = len(PROMPT), 0, 0
    tokens = PROMPT + [MASK_ID] * 16
    for first in range(start, start + 16, block_length):
        block = range(first, first + block_length)
        seen, calls, rows = predict(tokens, block), calls + 1, rows + 1
        while seen:
            ranked = sorted(seen, key=lambda i: -seen[i][0])
            base = [i for i in ranked if seen[i][0] > threshold] or ranked[:1]
            left = [i for i in ranked if i not in base]
            tokens_of = [filled(tokens, seen, [*base, i]) for i in left[: k - 1]] if len(left) > 1 else []
            tokens_of.append(filled(tokens, seen, base))
            if not left:
                tokens = tokens_of[-1]
                break
            best = -1.0
            for branch in tokens_of:
                found = predict(branch, block)
                weakest = sorted(confidence for confidence, _ in found.values())
                weakest = weakest[: max(1, int(len(weakest) * branch_topp))]
                if sum(weakest) / len(weakest) > best:
                    best, tokens, seen = sum(weakest) / len(weakest), branch, found
            calls, rows = calls + 1, rows + len(tokens_of)
    return " ".join(map(str, tokens[start:])), calls, rows


@pytest.mark.parametrize(("threshold", "block", "branch_topp"), [(0.9, 16, 1.0), (0.9, 8, 0.5), (0.5, 16, 0.5)])
@pytest.mark.parametrize("k", [1, 3, 20])
def test_a_plain_reading(k: int, threshold: float, block: int, branch_topp: float):
    """Guards which branches are made, how they are judged, and calls against rows."""
    knobs = {"k": k, "threshold": threshold, "block_length": block, "branch_topp": branch_topp}
    made = replay("method=lopa", *(f"method.{name}={value}" for name, value in knobs.items()))
    assert (made.ids, made.counts.nfe, made.counts.nfe_total) == plain_reading(k, threshold, block, branch_topp)
    assert made.counts.query_tokens == made.counts.nfe_total * 21


@pytest.mark.parametrize("task", ["list_shuffle", "list_insert_random"])
def test_one_branch_is_the_method_itself(task: str):
    """Guards k = 1 on the trained model: answers, steps and every count."""
    one = decode_task(task, "method=lopa", "method.k=1")
    usual = decode_task(task, "method=threshold", "method.selector.strict=true")
    assert (one.generations, one.counts) == (usual.generations, usual.counts)


def test_branches_save_calls():
    """Guards the point of it, on a task whose answer is fixed: right, fewer rounds, more rows."""
    knobs = ["method.threshold=1.0", "method.block_length=16"]
    usual = decode_task("list_sort", "method=threshold", "method.selector.strict=true", *knobs)
    mine = decode_task("list_sort", "method=lopa", *knobs)
    assert [g.tokens for g in mine.generations] == [g.tokens for g in usual.generations]
    assert sum(c.nfe for c in mine.counts) < sum(c.nfe for c in usual.counts)
    assert all(c.nfe < c.nfe_total <= 3 * c.nfe for c in mine.counts)


def judged(probabilities: list[list[float]], creation: list[float], **knobs) -> int:
    """Return which of a row's drafts is followed; drafts have these probabilities at their positions."""
    canvas = Canvas.from_prompts([[]], gen_length=len(probabilities[0]), mask_id=1, pad_id=0, seeds=[0])
    canvas.open_window(torch.tensor([True]), canvas.response_BL)
    drafts = canvas.rows(torch.zeros(len(probabilities), dtype=torch.int64))
    drafts.memory["lopa.creation_B"] = torch.tensor(creation, dtype=torch.float64)
    drafts.memory |= {f"lopa.{name}_BL": drafts.decided_at_BL for name in ("tokens", "score", "confidence")}
    drafts.memory["number"] = torch.arange(len(probabilities))
    p_N = torch.tensor(probabilities, dtype=torch.float64).flatten()
    row_N, position_N = drafts.open_BL.nonzero(as_tuple=True)
    prediction = Prediction(
        logits_NV=torch.stack([p_N, 1 - p_N], 1).log(),
        places=Places.of(row_N, position_N, (len(probabilities), len(probabilities[0]))),
        spec=ModelSpec(
            name="none", kind=ModelKind.MASKED_DIFFUSION, vocab_size=2, max_length=8, layers=1, stop_ids=(0,), pad_id=0,
        ),
    )  # fmt: skip
    verifier = LookAhead(score_dtype=ScoreDtype.float64, **knobs)
    chosen, known = verifier.accept(drafts, prediction, lambda before, seen: before, lambda *shown: None)
    number = int(chosen.memory["number"])
    assert known.logits_NV.equal(prediction.logits_NV[row_N == number])
    return number


def test_the_surest_branch_is_followed():
    """Guards the mean, the base among the branches, ties, the lowest share, and the weight of the creation."""
    assert judged([[0.8, 0.7], [0.9, 0.8], [0.9, 0.7]], [1, 0.5, 0.5]) == 1
    assert judged([[0.9, 0.9], [0.9, 0.8], [0.9, 0.7]], [1, 0.5, 0.5]) == 0
    assert judged([[0.8, 0.8], [0.8, 0.8], [0.8, 0.8]], [1, 0.5, 0.5]) == 1
    assert judged([[0.8, 0.8], [0.99, 0.75], [0.8, 0.7]], [1, 0.5, 0.5], branch_topp=0.5) == 0
    assert judged([[0.8, 0.8], [0.9, 0.9], [0.9, 0.85]], [1, 0.5, 0.6], alpha=0.3) == 0
    assert judged([[0.7, 0.7], [0.9, 0.9], [0.9, 0.85]], [0, 0.5, 0.6], alpha=0.5) == 2


def test_observers_see_every_commit_once():
    """Guards traces: the position that a branch adds is shown, as of the step that its prediction belongs to."""
    made = build_method(compose(["method=lopa", f"gen_length={LENGTH}"]))
    loaded, seen = model("masked_diffusion"), []
    assert isinstance(made, DiffusionMethod) and loaded.spec.mask_id is not None

    def note(before: Canvas, candidates: Candidates, after: Canvas) -> None:
        for row, position in (before.undecided_BL & ~after.undecided_BL).nonzero().tolist():
            assert candidates.score_BL[row, position] > -torch.inf
            assert candidates.tokens_BL[row, position] == after.tokens_BL[row, position]
            assert after.decided_at_BL[row, position] == before.clock_B[row]
            seen.append((int(after.sample_B[row]), position, int(after.tokens_BL[row, position])))

    canvas = Canvas.from_prompts(
        PROMPTS, gen_length=LENGTH, mask_id=loaded.spec.mask_id, pad_id=loaded.spec.pad_id, seeds=range(8)
    )
    with torch.inference_mode():
        generations = decode(loaded, made, canvas, Ledger(), [note])
    assert sorted(seen) == [
        (one.sample, len(PROMPTS[one.sample]) + place, token)
        for one in generations
        for place, token in enumerate(one.tokens)
    ]


def test_it_looks_ahead_with_other_rules():
    """Guards the verifier as a part: with a quota every branch is one token ahead of the schedule."""
    ahead = replay("method=llada", "method/verifier=lopa", "method.verifier.k=3")
    usual = replay("method=llada")
    assert ahead.counts.nfe <= usual.counts.nfe < ahead.counts.nfe_total


@pytest.mark.parametrize("finish", ["predict_eos", "canvas_growth"])
def test_it_looks_ahead_beside_lengths_that_depend_on_a_prediction(finish: str):
    """Guards branches of rows that are cut, or grow before they commit: one is the method itself, more decode all."""
    setting = ["method=threshold", f"method/finish={finish}", "method.block_length=8", *GROWTH.get(finish, [])]
    usual, calls = on_random_model(setting)
    assert on_random_model([*setting, "method/verifier=lopa", "method.verifier.k=1"]) == (usual, calls)
    made, fewer = on_random_model([*setting, "method/verifier=lopa"])
    assert fewer < calls
    assert all(min(one.decided_at) >= 0 or finish == "canvas_growth" for one in made)


@pytest.mark.parametrize("wrong", ["k=0", "branch_topp=0", "alpha=2", "threshold=-1", "block_length=0"])
def test_wrong_knobs_are_refused(wrong: str):
    """Guards the message, which names the knob."""
    with pytest.raises(ConfigError, match=f"method.{wrong.split('=')[0]}"):
        replay("method=lopa", f"method.{wrong}")


@pytest.mark.parametrize("more", ["method/selector=hierarchy", "method.mode=ccd_ds"])
def test_positions_without_a_score_are_no_branches(more: str):
    """Guards scorers that leave positions which were read without a score, where a rank may be any position's."""
    words = ["model=tiny_mdm", "method=ccd", "method.block_length=8", "gen_length=16", *more.split()]
    method = build_method(compose([*words, "method/verifier=lopa"]))
    assert isinstance(method, DiffusionMethod)
    model, prompts = trained_model(samples=4)
    together = decode_with(method, model, prompts)
    assert (together.generations, together.counts) == alone(method, model, prompts)
