"""What no step of any method may do, seen by an observer, on random and on trained weights in float64."""

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cache

import pytest
import torch

from harness.config.build import build_method
from harness.config.catalogue import names, read
from harness.config.composition import compose
from harness.config.matrix import Combination, caches, combinations
from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.fit import refuse_kind
from harness.engine.diffusion.loop import decode
from harness.engine.diffusion.method import DecodeFully, DiffusionMethod, NeverRevise
from harness.engine.shared.generation import Generation
from harness.engine.shared.model import ModelKind
from harness.engine.shared.prediction import Candidates
from harness.engine.shared.records import Counts, Ledger
from methods.diffusion.daedal import CanvasGrowth
from methods.diffusion.freedave_step import Confirm
from methods.diffusion.prophet import RunOut
from tests.caches.decoding import LENGTH, PROMPTS, random_model, trained_model

METHODS = [name for name in names("method") if read("method", name)["family"] == "diffusion"]
CASES = [
    pytest.param(method, kind, trained, marks=[pytest.mark.slow] if kind != read("method", method)["models"][0] else [])
    for method in METHODS
    for kind in read("method", method)["models"]
    for trained in (False, True)
]
TRAINED = {"masked_diffusion": "tiny_mdm", "block_diffusion": "tiny_block"}
# Tokens that stand in the response from the start, by place.
GIVEN = {0: 40, 9: 41}


@dataclass
class Watch:
    """Holds every step to the promises, and writes down by sample and place what was committed."""

    revises: bool
    mask_id: int
    written: dict[int, dict[int, int]] = field(default_factory=dict)
    commits: Counter = field(default_factory=Counter)

    def __call__(self, before: Canvas, candidates: Candidates, after: Canvas) -> None:
        """Compare a step's two canvases; rows into which masks were inserted are another matter."""
        same_B1 = (before.length_B == after.length_B)[:, None]
        width = before.tokens_BL.shape[1]
        after_BL, open_after_BL = after.tokens_BL[:, :width], after.undecided_BL[:, :width]
        new_BL, again_BL = before.undecided_BL & ~open_after_BL, ~before.undecided_BL & open_after_BL
        stopped_B1 = (after.stopped_at_B >= 0)[:, None]
        assert not bool((same_B1 & new_BL & ~before.open_BL & ~stopped_B1).any()), "a commit outside of the window"
        given_BL = ~before.undecided_BL & ~before.committed_BL
        changed_BL = (after_BL != before.tokens_BL) & ~new_BL & same_B1
        assert not bool((changed_BL & given_BL).any()), "prompt or constraint changed"
        assert self.revises or not bool((changed_BL | (again_BL & same_B1)).any()), "a decided token changed"
        stepped_B = (after.clock_B > before.clock_B) & (after.idle_B == before.idle_B) & before.open_BL.any(1)
        assert bool(new_BL.any(1)[stepped_B & same_B1[:, 0]].all()), "a step without progress"
        for row, sample in enumerate(after.sample_B.tolist()):
            tokens = self.written.setdefault(sample, {})
            start = int(before.prompt_length_B[row])
            for place in (new_BL[row].nonzero().squeeze(1) - start).tolist():
                tokens[place] = int(candidates.tokens_BL[row, start + place])
                self.commits[sample] += 1
            for place in (changed_BL[row].nonzero().squeeze(1) - start).tolist():
                tokens[place] = int(after.tokens_BL[row, start + place])
            self.commits[sample] -= int(again_BL[row].sum())


@cache
def method_for(name: str, kind: str) -> DiffusionMethod:
    """Build a method that decodes to the end, in blocks where it has them."""
    model = "tiny_block" if kind == "block_diffusion" else "random_mdm"
    block = ["method.block_length=8"] if "block_length" in read("method", name) else []
    overrides = [f"model={model}", f"method={name}", *block, f"gen_length={LENGTH}", "method.score_dtype=float64"]
    method = build_method(compose(overrides))
    assert isinstance(method, DiffusionMethod)
    return method if isinstance(method.finish, CanvasGrowth) else replace(method, finish=DecodeFully())


def watched(method: DiffusionMethod, model, prompts, seed: int = 0) -> tuple[list[Generation], list[Counts], Watch]:
    """Decode prompts together, under an observer."""
    watch = Watch(not isinstance(method.reviser, (NeverRevise, Confirm, RunOut)), model.spec.mask_id)
    ledger, rows = Ledger(), range(len(prompts))
    canvas = Canvas.from_prompts(
        prompts, gen_length=LENGTH, mask_id=model.spec.mask_id, pad_id=model.spec.pad_id, stop_ids=model.spec.stop_ids,
        seeds=range(seed, seed + len(prompts)), constraints=[GIVEN] * len(prompts),
    )  # fmt: skip
    with torch.inference_mode():
        made = decode(model, method, canvas, ledger, [watch])
    return made, ledger.counts(rows), watch


def check(method: DiffusionMethod, made: list[Generation], counts: list[Counts], watch: Watch) -> None:
    """Compare generations with what the observer has written down."""
    for row, one in enumerate(made):
        assert one.tokens[0] == GIVEN[0] and one.decided_at[0] == -1
        assert watch.mask_id not in one.tokens
        if len(one.tokens) == LENGTH and not isinstance(method.finish, CanvasGrowth):
            assert watch.commits[row] == LENGTH - len(GIVEN)
            # Whoever edits looks at every complete block once more.
            looks = LENGTH // 8 if watch.revises else 0
            assert counts[row].nfe - counts[row].nfe_cache <= one.tokens_generated + looks
            assert tuple((watch.written[row] | GIVEN)[place] for place in range(LENGTH)) == one.tokens


@pytest.mark.parametrize(("name", "kind", "trained"), CASES)
def test_a_step_keeps_the_promises(name: str, kind: str, trained: bool):
    """Guards commits within windows, once each; what is given; progress; that commits alone make the answer; and rows
    that are decoded together.
    """
    method = method_for(name, kind)
    refuse_kind(method, ModelKind(kind))
    model, prompts = trained_model(TRAINED[kind]) if trained else (random_model(kind), PROMPTS[1:3])
    made, counts, watch = watched(method, model, prompts)
    check(method, made, counts, watch)
    if trained:
        (alone,), (work,), _ = watched(method, model, prompts[1:], seed=1)
        assert (replace(alone, sample=1), work) == (made[1], counts[1])


@cache
def allowed() -> list[Combination]:
    """Find the combinations of decoders, caches and kinds of models that are not refused."""
    return [one for one in combinations("cache") if one.reason is None]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_no_cache_breaks_a_promise(name: str, trained: bool):
    """Guards the same with every cache, on the trained models in batches of 1, 3 and 8 (others do that for random)."""
    for one in (one for one in allowed() if one.row == name):
        kind = one.kind.value
        method = replace(method_for(name, kind), cache=caches()[one.column])
        model, prompts = trained_model(TRAINED[kind], 8) if trained else (random_model(kind), PROMPTS)
        answers = []
        for size in (8, 3, 1) if trained else (8,):
            answers.append([])
            for first in range(0, 8, size):
                made, counts, watch = watched(method, model, prompts[first : first + size], seed=first)
                check(method, made, counts, watch)
                answers[-1] += [(replace(g, sample=0), c) for g, c in zip(made, counts, strict=True)]
        assert all(answer == answers[0] for answer in answers), one
