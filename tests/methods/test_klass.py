"""KLASS: what is sure and has stopped changing closes together."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from harness.commands.check.methods import model
from harness.commands.check.subject import LENGTH, Subject
from harness.config.build import build_method
from harness.config.composition import compose
from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.shared.model import ModelKind, ModelSpec
from harness.engine.shared.places import Places
from harness.engine.shared.prediction import Candidates, Prediction, top
from harness.errors import ConfigError
from methods.diffusion.dream import DreamQuota
from methods.diffusion.klass import Stability, StableAndSure
from tests.caches.decoding import decode_with, models
from tests.methods.closed_form import replay
from tests.methods.trained import decode_task

SPEC = ModelSpec(
    name="none", kind=ModelKind.MASKED_DIFFUSION, vocab_size=3, max_length=8, layers=1, stop_ids=(0,), pad_id=0,
    mask_id=2,
)  # fmt: skip


def step(canvas: Canvas, *probabilities: float, tau: float = 0.6, eps: float = 0.01, H: int = 2) -> list[int]:
    """Show a canvas the probability of token 0 at each position; return the positions that close."""
    p_N = torch.tensor(probabilities, dtype=torch.float64)
    prediction = Prediction(
        logits_NV=torch.stack([p_N, 1 - p_N, torch.zeros_like(p_N)], 1).log(),
        places=Places.of(torch.zeros(len(p_N), dtype=torch.int64), torch.arange(len(p_N)), (1, len(p_N))),
        spec=SPEC,
    )
    candidates = Stability(eps=eps)(prediction, canvas)
    chosen_BL = StableAndSure(tau=tau, H=H)(candidates, canvas.open_BL, torch.tensor([1]), canvas)
    canvas.tick(torch.tensor([True]))
    return chosen_BL[0].nonzero().squeeze(1).tolist()


def row(length: int) -> Canvas:
    """Return a canvas of masks, all of them in the window."""
    canvas = Canvas.from_prompts([[]], gen_length=length, mask_id=2, pad_id=0, seeds=[0])
    canvas.open_window(torch.tensor([True]), canvas.response_BL)
    return canvas


def test_a_position_closes_after_two_calm_comparisons():
    """Guards the first step, which compares with nothing, and the count of comparisons."""
    canvas = row(3)
    found = [step(canvas, 0.9, 0.8, 0.7), step(canvas, 0.9, 0.8, 0.7), step(canvas, 0.9, 0.8, 0.7)]
    assert found == [[0], [0], [0, 1, 2]]


def test_a_change_starts_the_count_anew():
    """Guards the ring of divergences: one above eps keeps a position waiting H more steps."""
    canvas = row(2)
    second = [0.8, 0.8, 0.7, 0.7, 0.7]
    assert [step(canvas, 0.9, p) for p in second] == [[0], [0], [0], [0], [0, 1]]
    assert [step(row(2), 0.9, p, eps=0.1) for p in second] == [[0]] * 5


def test_a_stable_but_unsure_position_waits():
    """Guards `more than tau`."""
    canvas = row(2)
    assert [step(canvas, 0.9, 0.75, tau=0.75) for _ in range(3)] == [[0], [0], [0]]


def test_the_first_step_that_may_close_positions_tells_how_surely():
    """Guards the margin at step H - 1 of a block: by confidence, since the calm of before lies far from its bound."""
    canvas = row(2)
    for _ in range(4):
        step(canvas, 0.9, 0.8)
    canvas.open_window(torch.tensor([True]), canvas.response_BL)
    step(canvas, 0.9, 0.8)
    canvas.begin_step()
    assert step(canvas, 0.9, 0.8, tau=0.799) == [0, 1]
    assert canvas.margins.settled.step_choice_B.tolist() == pytest.approx([0.001], rel=1e-4)


def test_what_was_calm_before_its_block_opened_still_waits_for_the_step():
    """Guards the gate at step H - 1 of a block, and memory that outlives a block."""
    canvas = row(2)
    for _ in range(4):
        step(canvas, 0.9, 0.8)
    canvas.open_window(torch.tensor([True]), canvas.response_BL)
    assert [step(canvas, 0.9, 0.8), step(canvas, 0.9, 0.8)] == [[0], [0, 1]]


def test_nothing_is_surer_than_certain():
    """Guards tau = 1, which is LLaDA step by step: blocks, quotas and remainders."""
    for knobs in (["block_length=16"], ["block_length=8", "steps=6"], ["block_length=4", "steps=16"]):
        mine = replay("method=klass", "method.tau=1", *(f"method.{knob}" for knob in knobs))
        theirs = replay("method=llada", *(f"method.{knob}" for knob in knobs))
        assert (mine.ids, mine.calls, mine.steps) == (theirs.ids, theirs.calls, theirs.steps)


@pytest.mark.parametrize("tau", [0.5, 0.8, 0.95])
def test_boundless_stability_is_a_threshold_from_the_second_comparison_on(tau: float):
    """Guards eps = infinity: after H - 1 quota steps a block is decoded by `more than tau, else the quota`."""
    mine = replay("method=klass", "method.eps=inf", f"method.tau={tau}", "method.H=1")
    theirs = replay("method=threshold", f"method.threshold={tau}", "method.selector.strict=true",
                    "method.block_length=16")  # fmt: skip
    assert (mine.ids, mine.calls, mine.steps) == (theirs.ids, theirs.calls, theirs.steps)


@dataclass(frozen=True)
class SureAfter:
    """Close everything surer than `tau`, else the best; in the first `steps` of a window the best alone."""

    tau: float
    steps: int

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        sure_BL = open_BL & (candidates.confidence_BL > self.tau) & (canvas.window_clock_B >= self.steps)[:, None]
        best_BL = top(candidates.score_BL, open_BL, torch.ones_like(canvas.clock_B))
        return torch.where(sure_BL.any(1, keepdim=True), sure_BL, best_BL)


@pytest.mark.parametrize("H", [2, 3])
def test_boundless_stability_begins_with_the_step_that_completes_the_history(H: int):
    """Guards the gate of every block, on random and trained weights: H - 1 steps of one position, then `tau`."""
    knobs = ["method.block_length=8", "method.tau=0.2", "method.eps=inf", f"method.H={H}"]
    mine = build_method(compose(["method=klass", "gen_length=16", "method.score_dtype=float64", *knobs]))
    assert isinstance(mine, DiffusionMethod)
    theirs = replace(mine, selector=SureAfter(0.2, H - 1))
    for loaded, prompts in models():
        made, expected = (decode_with(method, loaded, prompts[:2]) for method in (mine, theirs))
        assert (made.decided, made.counts) == (expected.decided, expected.counts)
        assert any(2 * H <= counts.nfe < 16 for counts in made.counts)


def test_it_needs_fewer_calls_than_the_schedule():
    """Guards the schedule as a bound, and the answers of a model that knows them."""
    usual, quick = decode_task("list_sort", "method=llada"), decode_task("list_sort", "method=klass")
    assert [g.tokens for g in quick.generations] == [g.tokens for g in usual.generations]
    calls = [(fast.nfe, slow.nfe) for fast, slow in zip(quick.counts, usual.counts, strict=True)]
    assert all(fast <= slow for fast, slow in calls) and any(fast < slow for fast, slow in calls)


def test_rows_idle_alone():
    """Guards memory against the steps of other rows: under Dream's schedule, sure rows close where others idle."""
    made = build_method(compose(["method=klass", "gen_length=16", "method.tau=0.2", "method.eps=0.1"]))
    assert isinstance(made, DiffusionMethod)
    method = replace(made, schedule=DreamQuota(steps=64, gen_length=LENGTH))

    klass = Subject(words="klass", method=method, model=model("masked_diffusion"))
    together = klass.together.answers
    assert [klass.decode([row]).answers[0] for row in range(8)] == together
    assert len({one[2] for one in together}) > 1


@pytest.mark.parametrize("wrong", ["eps=0", "tau=-1", "H=0", "temperature=-1", "steps=5", "block_length=0"])
def test_wrong_knobs_are_refused(wrong: str):
    """Guards the message, which names the knob."""
    with pytest.raises(ConfigError, match=f"method.{wrong.split('=')[0]}"):
        replay("method=klass", "method.block_length=8", f"method.{wrong}")
