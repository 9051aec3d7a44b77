"""Multi-block decoding: when blocks open, and which of them must make progress."""

import pytest
import torch

from harness.engine.diffusion.canvas import Canvas
from harness.errors import ConfigError
from methods.diffusion.multi_block import Pipeline, UncertainLast, progress
from tests.methods.closed_form import MASK_ID, candidates, replay
from tests.methods.trained import decode_task


def test_a_block_opens_when_enough_of_the_last_one_is_decided():
    """Guards the share, and that one step opens one block even if its successors could follow."""
    canvas = Canvas.from_prompts([[3]], gen_length=8, mask_id=MASK_ID, pad_id=0, seeds=[0])
    window, ends = Pipeline(length=2, add=0.5), []
    for places in ([], [0], [1, 2, 4], []):
        window.update(canvas)
        commit_BL = torch.isin(canvas.place_BL, torch.tensor(places, dtype=torch.int64))
        canvas.commit(commit_BL, torch.zeros_like(canvas.tokens_BL))
        canvas.tick(torch.tensor([True]))
        ends.append(int(canvas.window_BL.sum()))
    assert ends == [2, 2, 4, 6]


def test_blocks_of_one_position_open_one_after_the_other():
    """Guards the share of a block that a single position decides."""
    canvas = Canvas.from_prompts([[3]], gen_length=3, mask_id=MASK_ID, pad_id=0, seeds=[0])
    window, ends = Pipeline(length=1, add=0.5), []
    for places in ([], [], [0], [1]):
        commit_BL = torch.isin(canvas.place_BL, torch.tensor(places, dtype=torch.int64))
        canvas.commit(commit_BL, torch.zeros_like(canvas.tokens_BL))
        canvas.tick(torch.tensor([True]))
        window.update(canvas)
        ends.append(int(canvas.window_BL.sum()))
    assert ends == [1, 1, 2, 3]


def test_no_share_opens_one_block_per_step_from_the_start():
    """Guards the first step, in which the second block opens already."""
    canvas = Canvas.from_prompts([[3]], gen_length=8, mask_id=MASK_ID, pad_id=0, seeds=[0])
    window, ends = Pipeline(length=2, add=0), []
    for _ in range(4):
        window.update(canvas)
        ends.append(int(canvas.window_BL.sum()))
    assert ends == [4, 6, 8, 8]


def chosen(full: float, best_compat: bool, *entropies: float) -> list[int]:
    """Return what closes of open blocks of two."""
    made, open_BL, canvas = candidates([-entropy for entropy in entropies])
    selector = UncertainLast(length=2, theta=0.3, full=full, best_compat=best_compat)
    return selector(made, open_BL, None, canvas)[0].nonzero().squeeze(1).tolist()


def test_the_first_block_that_must_makes_progress():
    """Guards the forced position, which is not the least uncertain of all, and that equality is not below."""
    assert chosen(0.5, False, 0.9, 0.8, 0.1, 0.7) == [1, 2]
    assert chosen(0.5, False, 0.3, 0.2, 0.5, 0.7) == [1]
    assert chosen(0.5, True, 0.9, 0.3, 0.5, 0.1) == [1, 3]
    assert chosen(0.5, True, 0.9, 0.8, 0.5, 0.4) == [1, 3]


def test_every_block_must_make_progress_without_a_share():
    """Guards `full=0`: then the first block with masks is the first of all that must."""
    assert chosen(0.0, False, 0.9, 0.8, 0.5, 0.4) == [1]


def test_full_shares_are_block_after_block():
    """Guards the limit against the same rule on ordinary blocks, on a formula and on the trained model."""
    knobs = ("method.theta=1.0", "method.block_length=4")
    ours = replay("method=multi_block", "method.add=1", "method.full=1", *knobs)
    theirs = replay("method=entropy_threshold", *knobs)
    assert (ours.ids, ours.calls, ours.steps) == (theirs.ids, theirs.calls, theirs.steps)
    knobs = ("method.theta=0.2", "method.block_length=4")
    trained = decode_task("list_shuffle", "method=multi_block", "method.add=1", "method.full=1", *knobs)
    reference = decode_task("list_shuffle", "method=entropy_threshold", *knobs)
    assert [made.tokens for made in trained.generations] == [made.tokens for made in reference.generations]


def test_blocks_at_once_need_fewer_calls():
    """Guards the gain on the trained model where blocks do not depend on each other."""
    several = decode_task("list_copy", "method=multi_block", "method.block_length=4", "method.add=0")
    alone = decode_task("list_copy", "method=multi_block", "method.block_length=4", "method.add=1", "method.full=1")
    for fast, slow in zip(several.counts, alone.counts, strict=True):
        assert fast.nfe <= slow.nfe


@pytest.mark.parametrize("knob", ["theta=-1", "add=1.5", "full=-0.1", "block_length=0"])
def test_values_out_of_range_are_refused(knob: str):
    """Guards against a silent clamp."""
    with pytest.raises(ConfigError, match=f"method.{knob.split('=')[0]}"):
        replay("method=multi_block", f"method.{knob}")


def test_a_block_of_one_position_is_all_open_or_all_decided():
    """Guards the share of the shortest block, the last of a row included."""
    canvas = Canvas.from_prompts([[3]], gen_length=3, mask_id=MASK_ID, pad_id=0, seeds=[0])
    assert progress(canvas, 1).tolist() == [[0, 0, 0, 1]] and progress(canvas, 2).tolist() == [[0, 0]]
    canvas.commit(canvas.place_BL == 2, torch.zeros_like(canvas.tokens_BL))
    assert progress(canvas, 1).tolist() == [[0, 0, 1, 1]] and progress(canvas, 2).tolist() == [[0, 1]]
