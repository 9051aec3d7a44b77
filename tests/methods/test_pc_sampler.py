"""PC-Sampler's order: early places and rare tokens first."""

import json
import math
from pathlib import Path

import pytest
import torch

from harness.engine.diffusion.canvas import Canvas
from harness.engine.shared.generation import DecodeError
from harness.engine.shared.model import ModelKind, ModelSpec
from harness.engine.shared.places import Places
from harness.engine.shared.prediction import Prediction
from harness.errors import ConfigError
from methods.diffusion.blocks import Blocks
from methods.diffusion.pc_sampler import Calibrated
from tests.methods.closed_form import MASK_ID, PROFILE, replay
from tests.methods.trained import decode_task

FREQUENCIES = [0.5, 0.01, 0.2, 0.05, 0.2, 0.04]
SPEC = ModelSpec(
    name="none", kind=ModelKind.MASKED_DIFFUSION, vocab_size=6, max_length=16, layers=1, stop_ids=(0,), pad_id=0,
    mask_id=5,
)  # fmt: skip


def scores(scorer: Calibrated, block: int = 12) -> list[float]:
    """Return the scores of the published profile: position i is c_i sure of token i mod 5, behind a prompt of two."""
    canvas = Canvas.from_prompts([[1, 1]], gen_length=12, mask_id=5, pad_id=0, seeds=[0])
    Blocks(length=block).update(canvas)
    if block < 12:
        canvas.commit(canvas.window_BL, canvas.tokens_BL)
        Blocks(length=block).update(canvas)
    c = torch.tensor(PROFILE, dtype=torch.float64)
    p_NV = ((1 - c) / 4)[:, None].repeat(1, 6)
    p_NV[torch.arange(12), torch.arange(12) % 5] = c
    p_NV[:, 5] = 0
    prediction = Prediction(
        logits_NV=p_NV.log(), places=Places.of(torch.zeros(12, dtype=torch.int64), torch.arange(2, 14), (1, 14)),
        spec=SPEC,
    )  # fmt: skip
    return scorer(prediction, canvas).score_BL[0, 2:].tolist()


@pytest.mark.parametrize(("lam", "alpha"), [(0.25, 10), (0.0, 10), (1.0, 2)])
def test_the_score_is_the_published_one(lam: float, alpha: float):
    """Guards each factor: place from 0, frequency of the predicted token, the clamp inside of the place's weight."""
    expected = [
        math.exp(-lam * i) * min(-c * math.log(FREQUENCIES[i % 5] + 1e-9), alpha) for i, c in enumerate(PROFILE)
    ]
    assert scores(Calibrated(lam=lam, alpha=alpha, f_bg=FREQUENCIES)) == pytest.approx(expected, rel=1e-5)


def test_places_are_counted_from_the_block():
    """Guards against places of the response: the last block would have no order by place left."""
    whole, second = scores(Calibrated()), scores(Calibrated(), block=4)
    assert [b / a for a, b in zip(whole[4:8], second[4:8], strict=True)] == pytest.approx([math.exp(0.25 * 4)] * 4)


def test_without_frequencies_it_is_confidence_by_place():
    """Guards the default, with which the method runs on any model, against LLaDA's order at lam = 0."""
    mine, theirs = replay("method=pc_sampler", "method.lam=0"), replay("method=llada")
    assert (mine.ids, mine.calls, mine.steps) == (theirs.ids, theirs.calls, theirs.steps)
    leftmost = replay("method=pc_sampler", "method.lam=50")
    assert leftmost.steps == " ".join(map(str, range(16)))


@pytest.mark.parametrize("steps", [1, 4, 32])
def test_it_takes_its_steps(steps: int):
    """Guards LLaDA's schedule: a fixed quota, and idle calls beyond one token per step."""
    assert replay("method=pc_sampler", f"method.steps={steps}").calls == steps


def test_a_table_of_counts_gives_the_frequencies(tmp_path: Path):
    """Guards the way that a table for a large vocabulary comes in, and tokens that were never seen."""
    file = tmp_path / "counts.json"
    file.write_text(json.dumps([60, 0, 20, 10, 5, 5]))
    from_counts = scores(Calibrated(counts_file=str(file)))
    assert from_counts == scores(Calibrated(f_bg=[0.6, 0.01, 0.2, 0.1, 0.05, 0.05]))


def test_the_trained_model_answers_as_ever():
    """Guards the default on an embedded model: one token per step in any order is exact where the answer is fixed."""
    usual, mine = decode_task("list_reverse", "method=llada"), decode_task("list_reverse", "method=pc_sampler")
    assert [g.tokens for g in mine.generations] == [g.tokens for g in usual.generations]


def test_a_table_of_another_vocabulary_is_refused():
    """Guards against frequencies of the wrong tokens."""
    with pytest.raises(DecodeError, match=f"has 3 entries, the vocabulary {MASK_ID + 1}"):
        replay("method=pc_sampler", "method.f_bg=[0.1,0.2,0.3]")


@pytest.mark.parametrize(
    "wrong", ["f_bg=[3,1]", "counts_file=nowhere.json", "lam=-1", "alpha=0", "temperature=-1", "f_bg=[0.1,-0.1]"]
)
def test_wrong_knobs_are_refused(wrong: str):
    """Guards the message, which names the knob."""
    with pytest.raises(ConfigError, match=f"method.{wrong.split('=')[0]}"):
        replay("method=pc_sampler", f"method.{wrong}")
