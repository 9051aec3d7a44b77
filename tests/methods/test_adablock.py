"""AdaBlock: where blocks end."""

from dataclasses import replace

import pytest
import torch

from harness.engine.diffusion.canvas import Canvas
from harness.engine.shared.places import Places
from harness.engine.shared.prediction import Candidates
from harness.errors import ConfigError
from harness.models import random as random_models
from methods.diffusion.adablock import Adaptive
from methods.diffusion.blocks import Blocks
from tests.caches.decoding import decode_with, method_of
from tests.methods.closed_form import MASK_ID, replay
from tests.methods.test_saber import NOTHING
from tests.methods.trained import decode_task


def first_block(theta_d: float, *tokens: tuple[int, float]) -> list[int]:
    """Return the block that opens on tokens and probabilities of eight places, default length 3, looking at 6."""
    canvas = Canvas.from_prompts([[3]], gen_length=8, mask_id=MASK_ID, pad_id=0, stop_ids=(0,), seeds=[0])
    window = Adaptive(length=3, gen_length=8, theta_d=theta_d, frac=0.75)
    window.update(canvas)
    p_NV = torch.tensor([[p if v == token else 1 - p for v in (0, 1)] for token, p in tokens])
    position_N = torch.arange(1, 9)
    prediction = replace(
        NOTHING, logits_NV=p_NV.log(), places=Places.of(torch.zeros_like(position_N), position_N, (1, 9))
    )
    tokens_BL = torch.tensor([[3, *[token for token, _ in tokens]]])
    unsure_BL = torch.full((1, 9), -7.0)
    made = Candidates(tokens_BL=tokens_BL, score_BL=unsure_BL, confidence_BL=unsure_BL)
    window.before_commit(canvas, prediction, made)
    return canvas.place_BL[0, canvas.open_BL[0]].tolist()


def test_a_block_ends_with_its_most_probable_delimiter():
    """Guards the choice among several, the bound, the look-ahead, and scores that are no probabilities."""
    text = [(1, 0.9), (0, 0.4), (1, 0.9), (1, 0.9), (0, 0.5), (1, 0.9), (0, 0.9), (1, 0.9)]
    assert first_block(0.3, *text) == [0, 1, 2, 3, 4]
    assert first_block(0.5 - 1e-6, *text) == [0, 1, 2, 3, 4]
    assert first_block(0.6, *text) == [0, 1, 2]


def test_without_delimiters_it_is_the_threshold_decoder():
    """Guards the rest of the method, on a formula and on the trained model."""
    ours = replay("method=adablock", "method.theta_d=2", "method.tau=0.7", "method.block_length=4")
    theirs = replay("method=threshold", "method.threshold=0.7", "method.block_length=4")
    assert (ours.ids, ours.calls, ours.steps) == (theirs.ids, theirs.calls, theirs.steps)
    trained = decode_task("list_shuffle", "method=adablock", "method.theta_d=2", "method.block_length=4")
    reference = decode_task("list_shuffle", "method=threshold", "method.block_length=4")
    assert [made.tokens for made in trained.generations] == [made.tokens for made in reference.generations]


def test_the_surest_of_several_sure_delimiters_ends_the_block():
    """Guards probabilities that float32 would round to 1: the later one is surer here."""
    assert first_block(0.3, (1, 0.9), (0, 1 - 1e-9), (0, 1 - 1e-12), *[(1, 0.9)] * 5) == [0, 1, 2]


def test_answers_end_with_their_block_on_the_trained_model():
    """Guards the loop: the one end token in sight is found, its block closes in one call, and the next one follows."""
    made = decode_task("list_copy", "method=adablock", "task.lengths=[3]", samples=4)
    assert all(one.decided_at[:4] == (0,) * 4 for one in made.generations)
    assert all(one.decided_at[4] == 1 for one in made.generations)


@pytest.mark.parametrize(
    ("cache", "queries"),
    [
        ("dual", [15, 2, 15, 3, 3, 15, 2, 15, 3, 3, 15, 15]),
        ("prefix", [15, 12, 15, 10, 10, 15, 7, 15, 5, 5, 15, 15]),
    ],
)
def test_the_end_of_a_block_is_fixed_in_its_first_call(cache: str, queries: list[int]):
    """Guards caches against the published code's answers: the call that finds the end is the one that opened it."""
    loaded = random_models.load(
        name="r", kind="masked_diffusion", seed=0, kv_heads=4, dtype=torch.float64, logit_deviation=4.0
    )
    tokens = [token for token in range(loaded.model.spec.vocab_size) if token != loaded.model.spec.mask_id]
    knobs = ("block_length=2", "tau=1.0", "theta_d=0", "score_dtype=float64", f"delimiters={tokens}")
    method = method_of("method=adablock", *(f"method.{knob}" for knob in knobs), f"method/cache={cache}")
    window = replace(method.window, gen_length=12)
    made = decode_with(replace(method, window=window), loaded.model, [[5, 7, 9]], 12)
    assert made.tokens == [(50, 105, 50, 100, 7, 51, 51, 51, 20, 20, 9, 9)]
    assert made.queries == queries


def test_a_fixed_end_moves_the_window_that_is_open():
    """Guards quotas, which count the masks of the block, and what counts the calls and steps since it opened."""
    canvas = Canvas.from_prompts([[3]], gen_length=8, mask_id=MASK_ID, pad_id=0, seeds=[0], constraints=[{1: 5}])
    window = Adaptive(length=3, gen_length=8)
    window.update(canvas)
    before = canvas.window_index_B
    canvas.move_window(torch.tensor([True]), canvas.place_BL == 2)
    assert (canvas.window_masks_B.tolist(), canvas.window_clock_B.tolist()) == ([1], [0])
    canvas.tick(torch.tensor([True]))
    canvas.move_window(torch.tensor([True]), canvas.place_BL >= 2)
    assert (canvas.window_masks_B.tolist(), canvas.window_clock_B.tolist()) == ([1], [1])
    assert torch.equal(canvas.window_index_B, before)


@pytest.mark.parametrize("knob", ["theta_d=-1", "frac=2", "block_length=0"])
def test_values_out_of_range_are_refused(knob: str):
    """Guards against a silent clamp."""
    with pytest.raises(ConfigError, match=f"method.{knob.split('=')[0]}"):
        replay("method=adablock", f"method.{knob}")


def test_blocks_count_from_the_first_undecided_position():
    """Guards the equality with `threshold` against given tokens, behind which its blocks begin elsewhere."""
    canvas = Canvas.from_prompts(
        [[3], [3]], gen_length=8, mask_id=MASK_ID, pad_id=0, stop_ids=(0,), seeds=[0, 1], constraints=[{0: 5}, {}]
    )
    of_row = {}
    for window in (Adaptive(length=3, gen_length=8, theta_d=2), Blocks(length=3)):
        opened = canvas.copy()
        window.update(opened)
        of_row[type(window)] = [opened.place_BL[row, opened.open_BL[row]].tolist() for row in (0, 1)]
    assert of_row == {Adaptive: [[1, 2, 3], [0, 1, 2]], Blocks: [[1, 2], [0, 1, 2]]}
