"""Chains of drafts: what steps after the next one would lead to, made of one prediction, and whether they did.

Drafts of a row stand together, its real step first, in the order of the rows.
Shapes: B rows, D drafts, L positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.policies import Step
from harness.engine.shared.prediction import Prediction


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A draft of a row, from 0, the `level`-th of it; `at` is its row among those of all levels.

    `useful` says that it can go on: `within_window` if the chain is bounded, else unfinished. `in_place`: its positions
    are where those of its row are.
    """

    row: int
    level: int
    at: int
    useful: bool
    live: bool
    in_place: bool


def chain(
    canvas: Canvas, prediction: Prediction, stepped: Canvas, step: Step, longest: Sequence[int], *, bounded: bool
) -> tuple[Canvas, list[Draft]]:
    """Return up to `longest` drafts of every row, `stepped` first, and the canvas with the rows of all levels.

    A chain ends with a draft that is not useful, with what the prediction has read, where a step commits nothing, and
    where it moves or cuts positions. All rows of a level step together: those that have ended are not among the drafts.
    """
    rows = range(canvas.num_rows)
    before, draft, levels, there = canvas, stepped, [stepped], [True] * len(rows)
    drafts: list[list[Draft]] = [[] for _ in rows]
    while True:
        prediction = prediction.widened(draft.tokens_BL.shape[1])
        live_B, unread_B = draft.live_B, (draft.open_BL & ~prediction.read_BL).any(1)
        facts = [live_B, within_window(draft, canvas) if bounded else live_B, unread_B, draft.clock_B > before.clock_B]
        facts += [draft.layout_B == canvas.layout_B, draft.layout_B == before.layout_B]
        level = len(levels) - 1
        for row, (live, within, unread, moved, in_place, steady) in zip(
            rows, torch.stack(facts, 1).tolist(), strict=True
        ):
            if there[row]:
                useful, at = within and (in_place or not bounded), level * len(rows) + row
                told = Draft(row=row, level=level, at=at, useful=useful, live=live, in_place=in_place)
                drafts[row].append(told)
                there[row] = live and useful and longest[row] > len(levels) and not unread and moved and steady
        if not any(there):
            return Canvas.cat(levels), [each for of_row in drafts for each in of_row]
        before, draft = draft, step(draft, prediction, there)
        levels.append(draft)


def within_window(drafts: Canvas, canvas: Canvas) -> Tensor:
    """Return which rows are in the same window as those of `canvas`, and changed nothing outside of it."""
    width = min(drafts.tokens_BL.shape[1], canvas.tokens_BL.shape[1])
    window_BL, tokens_BL = canvas.window_BL[:, :width], canvas.tokens_BL[:, :width]
    same_BL = (drafts.window_BL[:, :width] == window_BL) & (window_BL | (drafts.tokens_BL[:, :width] == tokens_BL))
    return same_BL.all(1) & (drafts.window_index_B == canvas.window_index_B)


def to_evaluate(drafts: Sequence[Draft], counts: Sequence[int] | None) -> list[Draft]:
    """Return the drafts of a window that the published code evaluates: also those that complete it.

    The last one of a row is repeated so that there are as many as `counts` says, where the row has several.
    """
    kept = [one for one in drafts if one.useful or not one.level or one.in_place]
    if counts is None:
        return kept
    made: list[Draft] = []
    for row, count in enumerate(counts):
        own = [one for one in kept if one.row == row]
        missing = max(0, count - len(own)) if own[0].useful else 0
        made += [*own, *[own[-1]] * missing]
    return made


def left_in_window(drafts: Canvas, chosen: Sequence[Draft], canvas: Canvas) -> Canvas:
    """Return `drafts`, those that have completed their window left in it, where nothing is read of them.

    They cost what a draft costs, and tell what others lead to.
    """
    ended = [bool(one.level) and not one.useful and one.in_place for one in chosen]
    if not any(ended):
        return drafts
    device = drafts.held_B.device
    ended_D, origin_D = torch.tensor(ended, device=device), torch.tensor([one.row for one in chosen], device=device)
    extra = drafts.tokens_BL.shape[1] - canvas.tokens_BL.shape[1]
    window_DL = torch.nn.functional.pad(canvas.window_BL, (0, extra))[origin_D]
    return replace(
        drafts,
        window_BL=torch.where(ended_D[:, None], window_DL, drafts.window_BL),
        window_index_B=torch.where(ended_D, canvas.window_index_B[origin_D], drafts.window_index_B),
    )


def starts(origin_D: Tensor) -> Tensor:
    """Return which drafts are the first of their row."""
    return torch.nn.functional.pad(origin_D.diff(), (1, 0), value=1) > 0


def alike(drafts: Canvas, real: Canvas, row_D: Tensor) -> Tensor:
    """Return which drafts a model cannot tell from their row of `real`: same tokens, decided when and where alike."""
    width = min(drafts.tokens_BL.shape[1], real.tokens_BL.shape[1])
    same_D = drafts.length_B == real.length_B[row_D]
    for name in ("tokens_BL", "undecided_BL", "window_BL", "decided_at_BL"):
        same_D = same_D & (getattr(drafts, name)[:, :width] == getattr(real, name)[row_D, :width]).all(1)
    return same_D


def contained(drafts: Canvas, real: Canvas, row_D: Tensor) -> Tensor:
    """Return the drafts all of whose decided tokens their row of `real` has, too, with no position moved between."""
    width = min(drafts.tokens_BL.shape[1], real.tokens_BL.shape[1])
    tokens_DL, undecided_DL = real.tokens_BL[row_D, :width], real.undecided_BL[row_D, :width]
    has_DL = (drafts.tokens_BL[:, :width] == tokens_DL) & ~undecided_DL
    return (drafts.undecided_BL[:, :width] | has_DL).all(1) & (drafts.layout_B == real.layout_B[row_D])
