"""Saber: the bar rises and falls with what was committed, and what gained least is taken back."""

import pytest
import torch

from harness.engine.diffusion.canvas import Canvas
from harness.engine.shared.model import ModelKind, ModelSpec
from harness.engine.shared.places import Places
from harness.engine.shared.prediction import Candidates, Prediction
from harness.errors import ConfigError
from methods.diffusion.saber import AboveMean, GrowingBlocks, LeastGain
from tests.methods.closed_form import MASK_ID, replay
from tests.methods.trained import decode_task

NOTHING = Prediction(
    logits_NV=torch.zeros(0, 2),
    places=Places.of(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), (1, 0)),
    spec=ModelSpec(
        name="none", kind=ModelKind.MASKED_DIFFUSION, vocab_size=2, max_length=8, layers=1, stop_ids=(0,), pad_id=0,
    ),
)  # fmt: skip


def row(length: int, constraints: dict[int, int] | None = None) -> Canvas:
    """Return a canvas of masks, all of them in the window."""
    canvas = Canvas.from_prompts(
        [[]], gen_length=length, mask_id=MASK_ID, pad_id=0, seeds=[0], constraints=[constraints or {}]
    )
    canvas.open_window(torch.tensor([True]), canvas.response_BL)
    return canvas


def step(canvas: Canvas, n: int, *confidences: float) -> list[int]:
    """Take one step as the loop does; return the positions that are decided after it."""
    confidence_BL = torch.tensor([confidences], dtype=torch.float64)
    candidates = Candidates(
        tokens_BL=torch.zeros_like(canvas.tokens_BL), score_BL=confidence_BL, confidence_BL=confidence_BL
    )
    commit_BL = AboveMean(n=n)(candidates, canvas.open_BL, None, canvas)
    canvas.commit(commit_BL, candidates.tokens_BL)
    LeastGain(n=n)(canvas, NOTHING, candidates, commit_BL)
    canvas.tick(torch.tensor([True]))
    return (~canvas.undecided_BL)[0].nonzero().squeeze(1).tolist()


def test_the_bar_is_the_mean_of_all_commits():
    """Guards the first step (the best n), the mean over several steps, and `more than`."""
    canvas = row(8)
    assert step(canvas, 1, 0.9, 0.8, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5) == [0]
    assert step(canvas, 1, 0.9, 0.8, 0.9, 0.5, 0.5, 0.5, 0.5, 0.5) == [0, 2]
    assert step(canvas, 1, 0.9, 0.8, 0.9, 0.5, 0.5, 0.5, 0.5, 0.5) == [0, 1, 2]
    # the mean is 2.6 / 3; two are above it, and one decided position goes: the one that gained least
    assert step(canvas, 1, 0.9, 0.7, 0.9, 0.87, 0.88, 0.5, 0.5, 0.5) == [0, 2, 3, 4]


def test_the_least_gain_is_taken_back():
    """Guards the difference to the last step, also of tokens just committed, and ties, which go to the first."""
    canvas = row(6)
    assert step(canvas, 2, 0.9, 0.8, 0.1, 0.1, 0.1, 0.1) == [0]
    assert step(canvas, 2, 0.9, 0.8, 0.7, 0.6, 0.1, 0.1) == [1, 2]
    assert canvas.remasked_B.tolist() == [1]


def test_a_commit_that_was_taken_back_stays_in_the_mean():
    """Guards the memory of commits: in the first step 0.8 was committed and opened again at once."""
    canvas = row(6)
    step(canvas, 2, 0.9, 0.8, 0.1, 0.1, 0.1, 0.1)
    assert canvas.memory["saber.confidence_at_commit_BL"].tolist() == [[0.9, 0.8, 0.0, 0.0, 0.0, 0.0]]


def test_the_last_step_takes_nothing_back():
    """Guards the end: fewer positions than n are open, all of them close, and none opens again."""
    canvas = row(3)
    assert step(canvas, 2, 0.9, 0.8, 0.1) == [0]
    assert step(canvas, 4, 0.9, 0.8, 0.1) == [0, 1, 2]


def test_given_tokens_are_never_taken_back():
    """Guards constraints: they gain nothing and would be the first to go."""
    canvas = row(4, {0: 7, 1: 7})
    assert step(canvas, 2, 0.0, 0.0, 0.9, 0.8) == [0, 1, 2, 3]
    canvas = row(6, {0: 7})
    assert step(canvas, 2, 0.0, 0.9, 0.8, 0.1, 0.1, 0.1) == [0, 1]


def test_windows_keep_earlier_blocks_open():
    """Guards tokens of earlier blocks that are taken back while the present block is open."""
    canvas = row(6)
    canvas.window_BL = torch.zeros_like(canvas.window_BL)
    window = GrowingBlocks(length=4)
    window.update(canvas)
    assert canvas.window_BL[0].long().tolist() == [1, 1, 1, 1, 0, 0]
    canvas.commit(canvas.window_BL, torch.zeros_like(canvas.tokens_BL))
    window.update(canvas)
    canvas.remask(canvas.place_BL == 1)
    window.update(canvas)
    assert canvas.open_BL[0].long().tolist() == [0, 1, 0, 0, 1, 1]


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize("block", [4, 16])
def test_every_step_is_progress(n: int, block: int):
    """Guards f - 1 against taking back all that a step has found, within blocks too."""
    assert replay("method=saber", f"method.n={n}", f"method.block_length={block}").calls <= 16


def test_a_selector_that_closes_one_takes_nothing_back():
    """Guards rows against going on without end beside a selector that does not close `n`."""
    made = replay("method=saber", "method/selector=threshold", "method.selector={threshold: 1.1}")
    assert made.calls == 16 and len(set(made.steps.split())) == 16


def test_n_as_long_as_the_response_is_one_call():
    """Guards the other end."""
    assert replay("method=saber", "method.n=16").calls == 1


def test_the_trained_model_answers_in_fewer_calls():
    """Guards the point of it, on a task whose answer is fixed: right, quicker, and commits were taken back."""
    usual, mine = decode_task("list_sort", "method=llada"), decode_task("list_sort", "method=saber")
    assert [g.tokens for g in mine.generations] == [g.tokens for g in usual.generations]
    assert sum(c.nfe for c in mine.counts) < sum(c.nfe for c in usual.counts)


@pytest.mark.parametrize("wrong", ["n=0", "block_length=0", "temperature=-1"])
def test_wrong_knobs_are_refused(wrong: str):
    """Guards the message, which names the knob."""
    with pytest.raises(ConfigError, match=f"method.{wrong.split('=')[0]}"):
        replay("method=saber", f"method.{wrong}")
