"""Chains of drafts: what steps after the next one would lead to, made of one prediction, and whether they did.

Drafts of a row stand together, its real step first, in the order of the rows.
Shapes: B rows, D drafts, L positions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.policies import Step
from harness.engine.diffusion.positional import sources_of
from harness.engine.diffusion.reuse import RENEWS
from harness.engine.shared.positional import behind
from harness.engine.shared.prediction import Prediction


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A draft of a row, from 0, the `level`-th of it; `at` is its row among those of all levels.

    `useful` says that it can go on: within its window if the chain is bounded, else unfinished. `in_place`: its
    positions are where those of its row are. `closed`: its window is the next one, or leaves nothing open. `sample`,
    `opened` and `held` are what the host is told of it.
    """

    row: int
    level: int
    at: int
    useful: bool
    live: bool
    in_place: bool
    closed: bool
    sample: int
    opened: int
    held: int

    @property
    def ended(self) -> bool:
        """Whether it is a draft that has completed its window, and not one whose window has only moved."""
        return bool(self.level) and not self.useful and self.in_place and self.closed


def chain(
    canvas: Canvas,
    prediction: Prediction,
    stepped: Canvas,
    step: Step,
    longest: Sequence[int],
    *,
    bounded: bool,
    exact: bool = False,
) -> tuple[list[Canvas], list[Draft]]:
    """Return up to `longest` drafts of every row, `stepped` first, and the canvases of all levels.

    A chain ends with a draft that is not useful, with what the prediction has read, where a step commits nothing, where
    it moves or cuts positions, and before a draft whose prediction needs what a call for the one before it keeps. All
    rows of a level step together: those that have ended are not among the drafts. `exact` says that nothing will be
    decided by drafts: they keep the margins of `stepped`.
    """
    rows = range(canvas.num_rows)
    before, draft, levels, there = canvas, stepped, [stepped], [True] * len(rows)
    drafts: list[list[Draft]] = [[] for _ in rows]
    while True:
        prediction, level = prediction.widened(draft.tokens_BL.shape[1]), len(levels) - 1
        told = _told(canvas, prediction, before, draft, bounded=bounded)
        for row, (state, goes_on) in enumerate(told):
            if there[row]:
                drafts[row].append(Draft(row=row, level=level, at=level * len(rows) + row, **state))
                there[row] = goes_on and longest[row] > len(levels)
        if not any(there):
            return levels, [each for of_row in drafts for each in of_row]
        before, draft = draft, step(draft, prediction, there)
        levels.append(replace(draft, margins=stepped.margins) if exact else draft)


def _told(
    canvas: Canvas, prediction: Prediction, before: Canvas, draft: Canvas, *, bounded: bool
) -> Iterator[tuple[dict[str, Any], bool]]:
    """Yield what a `Draft` says of each row of a level, and whether it may be stepped on; the host waits once."""
    columns = [draft.sample_B, draft.num_open_B, draft.undecided_BL.sum(1), draft.held_B, draft.given_up_B]
    columns += [(draft.open_BL > prediction.read_BL).any(1)]
    columns += [_inside(draft, before, canvas, prediction.spec.shift) if bounded else draft.held_B]
    columns += [draft.window_index_B, canvas.window_index_B, draft.clock_B, before.clock_B]
    columns += [draft.layout_B, canvas.layout_B, before.layout_B]
    for sample, opened, undecided, held, given_up, unread, inside, *since in torch.stack(columns, 1).tolist():
        window, own_window, clock, last_clock, layout, own_layout, last_layout = since
        live, in_place = bool(undecided or held) and not given_up, layout == own_layout
        useful = bool(inside) and window == own_window and in_place if bounded else live
        goes_on = live and useful and not unread and clock > last_clock and layout == last_layout
        closed = window != own_window or not opened
        state = {"live": live, "useful": useful, "in_place": in_place, "closed": closed}
        yield state | {"sample": sample, "opened": opened, "held": held}, goes_on


def _inside(draft: Canvas, before: Canvas, canvas: Canvas, shift: int) -> Tensor:
    """Return the rows whose draft one call can predict with those before it, from what is kept outside of the window.

    It has changed nothing there, and needs nothing that the call for the one before would keep: so does a draft that
    decides the position which is predicted from before the window, behind one that does not.
    """
    stays_B = _stays(draft, canvas)
    if RENEWS not in draft.memory or before is canvas:
        return stays_B
    return stays_B & (_reads_before(draft, shift) | ~_reads_before(before, shift) | ~draft.memory[RENEWS])


def _stays(draft: Canvas, canvas: Canvas) -> Tensor:
    """Return which rows have the positions of the window that `canvas` has, and changed nothing outside of it."""
    if draft.window_BL is canvas.window_BL:  # it is replaced where it moves, never changed
        return (canvas.window_BL | (draft.tokens_BL == canvas.tokens_BL)).all(1)
    width = min(draft.tokens_BL.shape[1], canvas.tokens_BL.shape[1])
    window_BL, tokens_BL = canvas.window_BL[:, :width], canvas.tokens_BL[:, :width]
    same_BL = window_BL | (draft.tokens_BL[:, :width] == tokens_BL)
    return (same_BL & (draft.window_BL[:, :width] == window_BL)).all(1)


def _reads_before(canvas: Canvas, shift: int) -> Tensor:
    """Return the rows in which an open position is predicted from outside of the window."""
    return (sources_of(canvas.open_BL, shift) & ~canvas.window_BL).any(1)


def to_evaluate(drafts: Sequence[Draft], counts: Sequence[int] | None) -> list[Draft]:
    """Return the drafts of a window that the published code evaluates: also those that complete it.

    The last one of a row is repeated so that there are as many as `counts` says, where the row has several.
    """
    kept = [one for one in drafts if one.useful or not one.level or one.ended]
    if counts is None:
        return kept
    made: list[Draft] = []
    for row, count in enumerate(counts):
        own = [one for one in kept if one.row == row]
        missing = max(0, count - len(own)) if own[0].useful else 0
        made += [*own, *[own[-1]] * missing]
    return made


def left_in_window(drafts: Canvas, chosen: Sequence[Draft], origin_D: Tensor, canvas: Canvas) -> Canvas:
    """Return `drafts` of the rows `origin_D`, those that have completed their window left in it: nothing is read there.

    They cost what a draft costs, and tell what others lead to.
    """
    ended = [one.ended for one in chosen]
    if not any(ended):
        return drafts
    ended_D = torch.tensor(ended, device=origin_D.device)
    window_DL = behind(canvas.window_BL, 1, drafts.tokens_BL.shape[1])[origin_D]
    return replace(
        drafts,
        window_BL=torch.where(ended_D[:, None], window_DL, drafts.window_BL),
        window_index_B=torch.where(ended_D, canvas.window_index_B[origin_D], drafts.window_index_B),
    )


def alike(drafts: Canvas, real: Canvas, row_D: Tensor) -> Tensor:
    """Return which drafts a model cannot tell from their row of `real`: same tokens, decided when and where alike."""
    width = min(drafts.tokens_BL.shape[1], real.tokens_BL.shape[1])
    return (_told_by(drafts, width) == _told_by(real, width).index_select(0, row_D)).all(1)


def _told_by(canvas: Canvas, width: int) -> Tensor:
    """Return all that a model and the next steps are told of each row, one number behind the other."""
    parts_BL = canvas.tokens_BL, canvas.undecided_BL, canvas.window_BL, canvas.decided_at_BL
    return torch.cat([canvas.length_B[:, None], *(part_BL[:, :width] for part_BL in parts_BL)], 1)


def contained(drafts: Canvas, real: Canvas, row_D: Tensor) -> Tensor:
    """Return the drafts all of whose decided tokens their row of `real` has, too, with no position moved between."""
    width = min(drafts.tokens_BL.shape[1], real.tokens_BL.shape[1])
    tokens_DL, undecided_DL = real.tokens_BL[row_D, :width], real.undecided_BL[row_D, :width]
    has_DL = (drafts.tokens_BL[:, :width] == tokens_DL) & ~undecided_DL
    return (drafts.undecided_BL[:, :width] | has_DL).all(1) & (drafts.layout_B == real.layout_B[row_D])
