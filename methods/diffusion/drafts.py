"""Chains of drafts: what steps after the next one would lead to, made of one prediction, and whether they did.

Drafts of a row stand together, its real step first, in the order of the rows.
Shapes: B rows, R rows of a level of the chain, D drafts, L positions.
"""

import torch
from torch import Tensor

from harness.engine.canvas import Canvas
from harness.engine.policies import Step
from harness.engine.prediction import Prediction


def chain(
    canvas: Canvas, prediction: Prediction, stepped: Canvas, step: Step, longest_B: Tensor, *, bounded: bool
) -> tuple[Canvas, Tensor, Tensor]:
    """Return up to `longest_B` drafts of every row, `stepped` first, the row of each, and which of them are useful.

    Useful are those that can go on: `at_home` if `bounded`, else unfinished. A chain ends with one that is not, with
    what the prediction has read, where a step commits nothing, and where it moves or cuts positions.
    """
    origin_R = torch.arange(canvas.num_rows, device=canvas.tokens_BL.device)
    before, draft, levels, origins, useful = canvas, stepped, [stepped], [origin_R], []
    while True:
        prediction = prediction.widened(draft.tokens_BL.shape[1])
        useful.append(at_home(draft, canvas, origin_R) if bounded else draft.live_B)
        goes_R = draft.live_B & useful[-1] & (longest_B[origin_R] > len(levels))
        goes_R = goes_R & ~(draft.open_BL & ~prediction.read_BL).any(1)
        goes_R = goes_R & (draft.clock_B > before.clock_B) & (draft.layout_B == before.layout_B)
        kept = goes_R.nonzero().squeeze(1)
        if not len(kept):
            break
        prediction, origin_R, before = prediction.rows(kept), origin_R[kept], draft.rows(kept)
        draft = step(before, prediction)
        levels.append(draft)
        origins.append(origin_R)
    origin_D, order_D = torch.cat(origins).sort(stable=True)
    return Canvas.cat(levels).rows(order_D), origin_D, torch.cat(useful)[order_D]


def at_home(drafts: Canvas, canvas: Canvas, origin_D: Tensor) -> Tensor:
    """Return which drafts have the window of the row that they come from, and changed nothing outside of it."""
    width = min(drafts.tokens_BL.shape[1], canvas.tokens_BL.shape[1])
    window_DL, tokens_DL = canvas.window_BL[origin_D, :width], canvas.tokens_BL[origin_D, :width]
    same_DL = (drafts.window_BL[:, :width] == window_DL) & (window_DL | (drafts.tokens_BL[:, :width] == tokens_DL))
    same_D = (drafts.window_index_B == canvas.window_index_B[origin_D]) & (drafts.layout_B == canvas.layout_B[origin_D])
    return same_DL.all(1) & same_D


def to_evaluate(
    drafts: Canvas, origin_D: Tensor, home_D: Tensor, canvas: Canvas, count_B: Tensor | None
) -> tuple[Canvas, Tensor]:
    """Return the drafts of a window that the published code evaluates, and their rows: also those that complete it.

    These are left in their window, where nothing is read of them: they cost what a draft costs, and tell what others
    lead to. The last one is repeated for `count_B` drafts, where a row has several.
    """
    first_D = starts(origin_D)
    ended_D = ~home_D & ~first_D & (drafts.layout_B == canvas.layout_B[origin_D])
    extra = drafts.tokens_BL.shape[1] - canvas.tokens_BL.shape[1]
    window_DL = torch.nn.functional.pad(canvas.window_BL, (0, extra))[origin_D]
    drafts.window_BL = torch.where(ended_D[:, None], window_DL, drafts.window_BL)
    drafts.window_index_B = torch.where(ended_D, canvas.window_index_B[origin_D], drafts.window_index_B)
    kept_D = (home_D | first_D | ended_D).nonzero().squeeze(1)
    if count_B is not None:
        drafts_B = torch.bincount(origin_D[kept_D], minlength=canvas.num_rows)
        alone_B = ~home_D[first_D]
        missing_B = (count_B - drafts_B).clamp(min=0).masked_fill(alone_B, 0)
        kept_D = kept_D.repeat_interleave(torch.ones_like(kept_D).index_add(0, drafts_B.cumsum(0) - 1, missing_B))
    return drafts.rows(kept_D), origin_D[kept_D]


def starts(origin_D: Tensor) -> Tensor:
    """Return which drafts are the first of their row."""
    return torch.nn.functional.pad(origin_D.diff(), (1, 0), value=1) > 0


def alike(drafts: Canvas, real: Canvas) -> Tensor:
    """Return which drafts a model cannot tell from the real state: same tokens, decided when and where alike."""
    width = min(drafts.tokens_BL.shape[1], real.tokens_BL.shape[1])
    same_D = drafts.length_B == real.length_B
    for name in ("tokens_BL", "undecided_BL", "window_BL", "decided_at_BL"):
        same_D = same_D & (getattr(drafts, name)[:, :width] == getattr(real, name)[:, :width]).all(1)
    return same_D


def contained(drafts: Canvas, real: Canvas) -> Tensor:
    """Return the drafts all of whose decided tokens the real state has, too."""
    return (drafts.undecided_BL | ((drafts.tokens_BL == real.tokens_BL) & ~real.undecided_BL)).all(1)
