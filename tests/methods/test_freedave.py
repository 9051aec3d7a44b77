"""FreeDave against its golden runs, and as a wrapper that changes no token of any method."""

from collections import ChainMap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch

from harness.commands.conform import replay as replay_case
from harness.config.build import build_method
from harness.config.catalogue import names, read
from harness.config.compatibility import check
from harness.config.composition import compose
from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.loop import Observer, decode, evaluate, take_step
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.shared.generation import Generation
from harness.engine.shared.model import LanguageModel
from harness.engine.shared.prediction import Candidates, Prediction
from harness.engine.shared.records import Ledger
from harness.errors import ConfigError
from harness.models import random as random_models
from methods.diffusion.freedave import FreeDave
from methods.diffusion.llada import Confidence
from tests.methods.closed_form import replay
from tests.methods.trained import decode_task

STATIC = {
    16: ("3 10 2 6 0 10 5 9 8 8 2 3 10 0 7 2", "4 12 15 13 0 10 7 11 8 9 5 6 2 1 3 14"),
    8: ("3 10 2 6 0 10 5 9 10 8 9 3 10 0 7 2", "1 5 7 6 0 3 2 4 15 13 11 12 9 8 10 14"),
}
GOLDEN = {
    (16, 1): (16, 16), (16, 2): (10, 19), (16, 4): (9, 32), (16, 8): (9, 56),
    (8, 1): (16, 16), (8, 2): (13, 24), (8, 4): (13, 41), (8, 8): (13, 58),
}  # fmt: skip
PLUS = {16: ("3 10 2 6 0 6 3 9 8 9 9 3 10 0 6 2", 7, 23), 8: ("3 10 2 6 0 6 3 9 9 8 2 3 10 0 6 2", 6, 17)}
DIFFUSION = [name for name in names("method") if read("method", name)["family"] == "diffusion"]
WRAPPED = [name for name in DIFFUSION if not {"verifier", "cache"} & {*ChainMap(*read("method", name)["defaults"])}]
EAGER = "method.verifier.reach=eager"
GROWTH = {"canvas_growth": ["method.finish.grow=4", "method.finish.Lmax=32", "method.finish.eos_init=0.01"]}
DRAFTED = ["method/verifier=freedave", "method.verifier.draft_steps=4"]


@pytest.mark.parametrize(("block", "drafts"), GOLDEN)
def test_golden_runs(block: int, drafts: int):
    """Guards calls and rows of the published code, and that ids and steps are those of one token per step."""
    made = replay("method=freedave", f"method.block_length={block}", f"method.draft_steps={drafts}")
    assert (made.ids, made.steps) == STATIC[block]
    assert (made.calls, made.counts.nfe_total) == GOLDEN[block, drafts]
    assert made.counts.query_tokens == made.counts.nfe_total * 21


@pytest.mark.parametrize("block", PLUS)
def test_golden_runs_with_a_threshold(block: int):
    """Guards FreeDave++: calls, rows and ids under subset acceptance."""
    knobs = [f"method.block_length={block}", "method.threshold=0.7"]
    made = replay("method=freedave", *knobs)
    assert (made.ids, made.calls, made.counts.nfe_total) == PLUS[block]


def test_a_completed_window_is_verified_on_request():
    """Guards the published calls: each block of 8 closes at once, then 4 drafts of it are verified all the same.

    A single position left (blocks of 1) needs no verification there either, nor is there a second draft with d = 1.
    """
    at_once, idle = ["method=freedave", "method.threshold=0"], "method.idle_calls=true"
    for block, drafts, calls, rows in ((8, 4, 4, 10), (8, 1, 4, 4), (16, 8, 2, 9), (2, 4, 16, 24), (1, 4, 16, 16)):
        knobs = [*at_once, f"method.block_length={block}", f"method.draft_steps={drafts}"]
        made, skipped = replay(*knobs, idle), replay(*knobs)
        assert (made.calls, made.counts.nfe_total, made.ids) == (calls, rows, skipped.ids)
        assert skipped.calls == skipped.counts.nfe_total == 16 // block


@pytest.mark.parametrize("block", PLUS)
def test_no_call_is_added_where_one_position_completes_the_window(block: int):
    """Guards `idle_calls` against every other completed window."""
    made = replay("method=freedave", f"method.block_length={block}", "method.threshold=0.7", "method.idle_calls=true")
    assert (made.ids, made.calls, made.counts.nfe_total) == PLUS[block]


def test_a_draft_that_completes_the_window_is_the_longest():
    """Guards FreeDave++: D_3 fills the block and agrees with the real step, so the shorter D_2 is not gone on from.

    From D_2 the model would put 3 where D_3 has 12. Nothing is verified behind it: the draft was the verified one.
    """
    model = {
        "vocab_size": 16, "mask_id": 15, "eos_id": 0, "a1": 4.84, "f1": 1.112, "a2": 3.3, "f2": 0.939, "f3": 1.622,
        "eos_bias": 0.0, "shifted": False,
    }  # fmt: skip
    params = {"block_length": 6, "draft_steps": 3, "threshold": 0.5}
    expected = {"ids": [14, 3, 7, 0, 12, 4], "forwards": 2, "rows": 4}
    case = {"params": params, "gen_length": 6, "prompt": [6, 13], "model": model, "expected": expected}
    assert replay_case({"id": "longest", "method": "freedave", **case}).detail == ""


def plain(made: list[Generation]) -> list[Generation]:
    """Return generations without the call after which an answer begins, the one thing that drafts may change."""
    return [replace(one, first_call=0) for one in made]


@cache
def random_model(kind: str) -> LanguageModel:
    """Make a random-weight model in float64, where a batch cannot change an answer by rounding."""
    block = 8 if kind == "block_diffusion" else None
    return random_models.load(
        name="random", kind=kind, seed=3, max_length=64, block_length=block, dtype=torch.float64, device="cpu"
    ).model


PROMPTS = ((2, 31, 4), (2, 40, 76, 77, 4), (2, 50, 76, 4))


def on_random_model(
    setting: Sequence[str],
    observers: Sequence[Observer] = (),
    *,
    kind: str | None = None,
    ledger: Ledger | None = None,
    prompts: Sequence[Sequence[int]] = PROMPTS,
    length: int = 16,
    seeds: Sequence[int] | None = None,
    **parts: object,
) -> tuple[list[Generation], int]:
    """Decode ragged prompts with a random-weight model; return what was made and the calls."""
    cfg = compose([*setting, f"gen_length={length}"])
    model, method = random_model(kind or cfg.method.models[0]), build_method(cfg)
    spec, ledger, rows = model.spec, ledger or Ledger(), range(len(prompts))
    assert isinstance(method, DiffusionMethod) and spec.mask_id is not None
    canvas = Canvas.from_prompts(
        prompts,
        gen_length=length,
        mask_id=spec.mask_id,
        pad_id=spec.pad_id,
        stop_ids=spec.stop_ids,
        seeds=seeds or rows,
    )
    with torch.inference_mode():
        made = decode(model, replace(method, **parts), canvas, ledger, observers)
    return made, sum(counts.nfe for counts in ledger.counts(rows))


@pytest.mark.parametrize("method", WRAPPED)
def test_no_method_changes_a_token(method: str):
    """Guards the headline: answers, steps and counters of any step rule, in no more calls."""
    expected, most = on_random_model([f"method={method}"])
    made, calls = on_random_model([f"method={method}", *DRAFTED])
    assert plain(made) == plain(expected)
    assert calls <= most
    made, calls = on_random_model([f"method={method}", *DRAFTED, EAGER])
    assert plain(made) == plain(expected)
    assert calls <= most


@pytest.mark.parametrize("method", WRAPPED)
def test_drafts_that_a_step_contains_go_with_any_step_rule(method: str):
    """Guards FreeDave++ around rules that move positions, grow or remember: every answer ends, as it does alone."""
    setting = [f"method={method}", *DRAFTED, "method.verifier.threshold=0.1"]
    together, _ = on_random_model(setting)
    alone = [on_random_model(setting, prompts=[prompt], seeds=[seed])[0][0] for seed, prompt in enumerate(PROMPTS)]
    assert [replace(one, sample=0) for one in together] == [replace(one, sample=0) for one in alone]
    assert not any(one.out_of_budget for one in together)


def test_a_response_that_is_cut_takes_its_drafts_along():
    """Guards memories that are as wide as the response, against predictions of what was cut off."""
    setting = ["method=klass", "method.block_length=4", "method/finish=predict_eos"]
    prompts = [[2, 77, 13, 4]]
    made, _ = on_random_model([*setting, *DRAFTED, "method.verifier.draft_steps=8"], prompts=prompts, length=12)
    assert plain(made) == plain(on_random_model(setting, prompts=prompts, length=12)[0])


@pytest.mark.parametrize("finish", ["block_eos", "prefix_eos", "predict_eos", "canvas_growth"])
@pytest.mark.parametrize("method", ["llada", "threshold"])
def test_no_end_of_text_rule_makes_a_draft_change_a_token(method: str, finish: str):
    """Guards rows that are cut, filled or moved between a prediction and the drafts made of it."""
    setting = [f"method={method}", f"method/finish={finish}", "method.block_length=8", *GROWTH.get(finish, [])]
    expected, most = on_random_model(setting)
    made, calls = on_random_model([*setting, *DRAFTED])
    assert plain(made) == plain(expected)
    assert calls <= most


@dataclass(frozen=True)
class Momentum:
    """A scorer with a memory: scores of all steps so far, the older the stronger."""

    def __call__(self, prediction: Prediction, canvas: Canvas) -> Candidates:
        """Return candidates of all read positions."""
        now = Confidence()(prediction, canvas)
        before_BL = 2 * canvas.memory.get("momentum", torch.zeros_like(now.score_BL))
        canvas.memory["momentum"] = before_BL + now.confidence_BL.masked_fill(now.score_BL.isinf(), 0)
        return replace(now, score_BL=canvas.memory["momentum"])


def test_a_memory_is_that_of_the_real_steps():
    """Guards methods that remember: what goes on is the state the steps led to, not the draft that looks like it.

    Nor do they get to see positions that only drafts have read.
    """
    setting = ["method=llada", "method.block_length=4"]
    expected, most = on_random_model(setting, scorer=Momentum())
    for reach in ("across", "eager"):
        drafted = [*setting, *DRAFTED, f"method.verifier.reach={reach}"]
        made, calls = on_random_model(drafted, scorer=Momentum())
        assert plain(made) == plain(expected)
        assert calls < most


SETTINGS = [
    "method=llada method.steps=8 method.block_length=8",
    "method=llada method.cfg_scale=1",
    "method=llada method.steps=32 method.block_length=4",
    "method=llada method.temperature=0.7",
    "method=llada method.remasking=random",
    "method=dream method.alg=entropy method.steps=8",
    "method=dream method.alg=maskgit_plus method.temperature=0.5 method.alg_temp=0.3",
    "method=eoser method.steps=8 method.block_length=4",
    "method=ass method.block_num=2",
    "method=eoser_ass",
    "method=threshold method.threshold=0.7 method.block_length=8",
    "method=factor method.block_length=8",
    "method=eb method.gamma=0.5",
    "method=prophet method.constraints={10:2,11:7} method.block_length=4 method.gap_thresholds=[1,1,0.7]",
]


@pytest.mark.parametrize("setting", SETTINGS)
def test_no_setting_changes_a_token(setting: str):
    """Guards clocks, windows, idle steps, guidance, keyed draws and early stops under drafts."""
    base = replay(*setting.split(), eos_bias=1.0)
    for drafts, reach in ((2, "within"), (8, "across"), (5, "eager")):
        knobs = [f"method.verifier.draft_steps={drafts}", f"method.verifier.reach={reach}"]
        made = replay(*setting.split(), "method/verifier=freedave", *knobs, eos_bias=1.0)
        assert (made.ids, made.steps) == (base.ids, base.steps)
        assert made.calls <= base.calls


TRAINED = {
    "method=llada": "list_sort",
    "method=dream method.alg=entropy": "list_insert_random",
    "method=eoser": "list_shuffle",
    "method=threshold method.threshold=0.99": "list_shuffle",
}


@pytest.mark.parametrize("setting", TRAINED)
def test_a_trained_model_answers_alike_in_fewer_calls(setting: str):
    """Guards the equality where tokens mean something, and that drafts are accepted there."""
    base = decode_task(TRAINED[setting], *setting.split(), samples=3)
    made = decode_task(TRAINED[setting], *setting.split(), *DRAFTED, samples=3)
    assert plain(made.generations) == plain(base.generations)
    assert sum(counts.nfe for counts in made.counts) < sum(counts.nfe for counts in base.counts)


def test_it_equals_llada():
    """Guards the static rule itself: one token per step, block after block."""
    made = decode_task("list_shuffle", "method=freedave", "method.block_length=8", samples=3)
    base = decode_task("list_shuffle", "method=llada", "method.block_length=8", samples=3)
    assert plain(made.generations) == plain(base.generations)


def test_a_verified_draft_spares_the_call_that_opens_a_window():
    """Guards `reach=across`: the same answer in fewer calls, and no row for a finished draft."""
    published = replay("method=freedave", "method.block_length=4")
    ours = replay("method=freedave", "method.block_length=4", "method.reach=across")
    assert (ours.ids, ours.steps) == (published.ids, published.steps)
    assert ours.calls < published.calls
    assert ours.counts.nfe_total < published.counts.nfe_total


def test_an_ended_block_ends_the_response():
    """Guards early exit: a block of end tokens alone fills the rest, which carries the last step."""
    made = replay("method=freedave", "method.block_length=4", "method.early_exit=true", eos_bias=30)
    assert made.ids == " ".join(["0"] * 16)
    assert set(made.steps.split()[4:]) == {"3"}
    assert replay("method=freedave", "method.block_length=4", eos_bias=30).calls > made.calls


def test_observers_see_every_commit_once():
    """Guards traces: steps that a verifier accepts are shown like any other."""
    seen: list[tuple[int, int, int]] = []

    def note(before: Canvas, candidates: Candidates, after: Canvas) -> None:
        for row, position in (before.undecided_BL & ~after.undecided_BL).nonzero().tolist():
            assert candidates.score_BL[row, position] > -torch.inf
            seen.append((int(after.sample_B[row]), position, int(after.tokens_BL[row, position])))

    for setting in (["method=llada", *DRAFTED], ["method=freedave", "method.threshold=0.05"]):
        seen.clear()
        made, _ = on_random_model(setting, [note])
        assert sorted(seen) == [
            (one.sample, (3, 5, 4)[one.sample] + place, token) for one in made for place, token in enumerate(one.tokens)
        ]


def test_a_row_steps_on_a_prediction_made_before_others_grew():
    """Guards batches in which one row grows while another goes on by what it knows already."""
    model, method = random_model("masked_diffusion"), build_method(compose(["method=llada", "gen_length=8"]))
    assert isinstance(method, DiffusionMethod)
    canvas = Canvas.from_prompts(PROMPTS, gen_length=8, mask_id=1, pad_id=0, seeds=range(3))
    method.window.update(canvas)
    prediction = evaluate(model, method, canvas, Ledger())
    narrow, wide = take_step(method, canvas, prediction), canvas.copy()
    wide.resize(canvas.length_B + torch.tensor([0, 8, 0]))
    stepped = take_step(method, wide, prediction)
    assert torch.equal(stepped.tokens_BL[:, :13], narrow.tokens_BL.where(canvas.whole_BL, stepped.tokens_BL[:, :13]))
    assert torch.equal(stepped.decided_at_BL[:, :13], narrow.decided_at_BL)


def test_wrong_knobs_are_refused():
    """Guards the message, which names the knob."""
    with pytest.raises(ValueError, match=r"draft_steps=0[.0]*: must be at least 1"):
        FreeDave(draft_steps=0)
    with pytest.raises(ConfigError, match=r"method\.draft_steps=0: must be at least 1"):
        check(compose(["method=freedave", "method.draft_steps=0"]))
