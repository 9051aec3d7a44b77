"""Chains of drafts: what steps after the next one would lead to, made of one prediction, and whether they did.

Shapes: B rows, R rows of a level of the chain, D drafts, L positions.
"""

import torch
from torch import Tensor

from harness.engine.canvas import Canvas
from harness.engine.policies import Step
from harness.engine.prediction import Prediction


def chain(
    canvas: Canvas, prediction: Prediction, stepped: Canvas, step: Step, length_B: Tensor, *, bounded: bool
) -> tuple[Canvas, Tensor]:
    """Return up to `length_B` drafts of every row, `stepped` first, and the row that each comes from.

    A chain ends with what the prediction has read, where a step commits nothing or moves positions, and, if `bounded`,
    with the first draft that leaves the row's window.
    """
    origin_R = torch.arange(canvas.num_rows, device=canvas.tokens_BL.device)
    before, draft, levels, origins = canvas, stepped, [stepped], [origin_R]
    while True:
        read_RL = prediction.widened(draft.tokens_BL.shape[1]).read_BL
        goes_R = draft.live_B & (length_B[origin_R] > len(levels)) & ~(draft.open_BL & ~read_RL).any(1)
        goes_R = goes_R & (draft.clock_B > before.clock_B) & (draft.length_B <= before.length_B)
        if bounded:
            goes_R = goes_R & (draft.window_index_B == canvas.window_index_B[origin_R])
        kept = goes_R.nonzero().squeeze(1)
        if not len(kept):
            break
        prediction, origin_R, before = prediction.rows(kept), origin_R[kept], draft.rows(kept)
        draft = step(before, prediction)
        levels.append(draft)
        origins.append(origin_R)
    origin_D, order_D = torch.cat(origins).sort(stable=True)
    return Canvas.cat(levels).rows(order_D), origin_D


def as_published(kept_D: Tensor, origin_D: Tensor, left_D: Tensor, wanted_B: Tensor) -> Tensor:
    """Return as many drafts as the published code evaluates, one per open position: the last is repeated for those
    that leave the window, whose prediction is never used; a row whose step does has no other.
    """
    origin_K = origin_D[kept_D]
    drafts_B = torch.bincount(origin_K, minlength=len(wanted_B))
    last_B = drafts_B.cumsum(0) - 1
    missing_B = (wanted_B - drafts_B).clamp(min=0).masked_fill(left_D[kept_D[last_B]], 0)
    return kept_D.repeat_interleave(torch.ones_like(kept_D).index_add(0, last_B, missing_B))


def alike(drafts: Canvas, real: Canvas) -> Tensor:
    """Return which drafts a model cannot tell from the real state: same tokens, decided when and where alike."""
    width = min(drafts.tokens_BL.shape[1], real.tokens_BL.shape[1])
    same_D = drafts.length_B == real.length_B
    for name in ("tokens_BL", "undecided_BL", "window_BL", "decided_at_BL"):
        same_D = same_D & (getattr(drafts, name)[:, :width] == getattr(real, name)[:, :width]).all(1)
    return same_D


def within(drafts: Canvas, real: Canvas) -> Tensor:
    """Return the drafts all of whose decided tokens the real state has, too."""
    return (drafts.undecided_BL | ((drafts.tokens_BL == real.tokens_BL) & ~real.undecided_BL)).all(1)
