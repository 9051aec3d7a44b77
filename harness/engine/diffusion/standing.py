"""How the rows of a canvas stand, as far as the host has to know: one transfer per step, and no other wait.

Shapes: B rows, L positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce
from itertools import compress
from operator import is_
from typing import Any, NamedTuple

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.diffusion.policies import Counts
from harness.engine.shared.policy import acts_as


def reads(method: DiffusionMethod, canvas: Canvas) -> Tensor:
    """Return the positions that the policies read of a prediction of this canvas: what is open, and more."""
    read_BL = canvas.open_BL
    for reads_too in method.read_too:
        more_BL = reads_too(canvas)
        read_BL = read_BL if more_BL is None else read_BL | more_BL
    return read_BL


class Told(NamedTuple):
    """What verifiers know of each row: its sample, how many positions are open, and whether a policy holds it."""

    sample: Sequence[int]
    opened: Sequence[int]
    held: Sequence[int]


def told(canvas: Canvas) -> Told:
    """Return what the host knows of the rows; it waits for the device if nobody did, or told it."""
    return canvas.once(told, _sources(canvas), lambda *_: Told(*_columns(canvas)))


def tell(canvas: Canvas, known: Told) -> None:
    """Have `told` return what is known of the rows already."""
    canvas.known[told] = _sources(canvas), known


def counted(canvas: Canvas) -> Sequence[int] | None:
    """Return what the verifier counts of the rows (`Counts`), None where the host has not read it."""
    sources, numbers = canvas.known.get(counted, ((), None))
    return numbers if all(map(is_, sources, _sources(canvas))) else None


def read_counts(canvas: Canvas, read_B: Tensor) -> Sequence[int]:
    """Return `read_B` as the host knows it; the same transfer tells what `told` returns."""
    if read_B is canvas.num_open_B:
        return told(canvas).opened
    counts, *known = _columns(canvas, read_B)
    tell(canvas, Told(*known))
    return counts


def number_of(canvas: Canvas, some_BL: Tensor) -> Tensor:
    """Return how many of these positions each row has; of open ones it is known."""
    return canvas.num_open_B if some_BL is canvas.open_BL else some_BL.sum(1)


def all_open(canvas: Canvas) -> bool:
    """Say whether the host knows that every row has an open position; it does not wait."""
    sources, known = canvas.known.get(told, ((), None))
    return known is not None and all(map(is_, sources, _sources(canvas))) and all(known.opened)


def outside(canvas: Canvas) -> Tensor:
    """Return the tokens of this canvas or of an earlier one, from which these differ in the present window at most."""
    return canvas.once(outside, (canvas.tokens_BL, canvas.window_BL), lambda tokens_BL, _: tokens_BL)


def tell_inside(before: Canvas, after: Canvas) -> None:
    """Have `outside` know that all rows have made a step that changed tokens of the window only, the same one."""
    after.known[outside] = (after.tokens_BL, after.window_BL), outside(before)


def _sources(canvas: Canvas) -> tuple[Tensor, Tensor, Tensor]:
    return canvas.sample_B, canvas.open_BL, canvas.held_B


def _columns(canvas: Canvas, *others_B: Tensor) -> list[list[int]]:
    return torch.stack([*others_B, canvas.sample_B, canvas.num_open_B, canvas.held_B]).tolist()


def asked(method: DiffusionMethod, canvas: Canvas) -> Tensor:
    """Return what the next evaluation is asked for: what is read, as a cache narrows it, unless drafts come first."""
    read_BL = reads(method, canvas)
    if method.narrowing is None or method.drafts:
        return read_BL
    return method.narrowing.narrow(canvas, read_BL, method.schedule.quota(canvas))


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What the host knows of each row, from one transfer: all that the loop's own decisions hang on.

    How many positions are open, and which the next evaluation is `asked` for (`read_BL`, `read_B`); whether a policy
    holds the row, the loop has given it up, its step was idle, its last logits were no numbers, its window or its end
    is due to change; and what the verifier counts. How many are undecided is not asked (None) while a step is made:
    rows with an open position go on.
    """

    sample: list[int]
    open: list[int]
    undecided: list[int] | None
    held: list[int]
    counted: list[int] | None
    given_up: list[int]
    idle: list[bool]
    broken: list[int]
    due: list[int]
    read: list[int]
    read_BL: Tensor
    read_B: Tensor

    @classmethod
    def of(cls, method: DiffusionMethod, canvas: Canvas) -> "Standing":
        """Wait for the device, once."""
        columns = {"undecided": canvas.undecided_BL.sum(1), **_counted(method, canvas)}
        return cls._told(canvas, asked(method, canvas), columns)

    @classmethod
    def within(
        cls,
        method: DiffusionMethod,
        canvas: Canvas,
        steps: Sequence[bool],
        work_B: Tensor | None,
        broken: Tensor | None,
    ) -> "Standing":
        """Wait for the device, once, before windows are closed; of the rows in `steps`, those without work are idle.

        What is asked for next is told only where windows wait: others are still to move.
        """
        columns = _counted(method, canvas) | ({} if work_B is None else {"idle": work_B})
        columns |= {} if broken is None else {"broken": broken.expand_as(canvas.held_B)}
        due = [part.due(canvas) for part in method.watchful]
        columns |= {"due": reduce(torch.logical_or, due)} if due else {}
        made = cls._told(canvas, asked(method, canvas) if method.waits else canvas.open_BL, columns)
        if work_B is None:
            return made
        return replace(made, idle=[step and not work for step, work in zip(steps, made.idle, strict=True)])

    @classmethod
    def _told(cls, canvas: Canvas, read_BL: Tensor, others: dict[str, Tensor]) -> "Standing":
        open_B, read_B = canvas.num_open_B, number_of(canvas, read_BL)
        columns = {"sample": canvas.sample_B, "open": open_B, "held": canvas.held_B, "given_up": canvas.given_up_B}
        columns |= others if read_B is open_B else {**others, "read": read_B}
        told = dict(zip(columns, torch.stack([*columns.values()]).tolist(), strict=True))
        defaults = {
            "undecided": None,
            "counted": None,
            "idle": [False] * canvas.num_rows,
            "broken": [],
            "due": [],
            "read": told["open"],
        }
        made = cls(**defaults | told, read_BL=read_BL, read_B=read_B)
        made.tell(canvas)
        return made

    def tell(self, canvas: Canvas) -> None:
        """Have `told` know of the rows of `canvas`, which stand like this."""
        tell(canvas, Told(self.sample, self.open, self.held))
        canvas.known[counted] = _sources(canvas), self.counted

    @property
    def live(self) -> list[bool]:
        """Rows that go on."""
        undecided = self.open if self.undecided is None else self.undecided
        rows = zip(undecided, self.held, self.given_up, strict=True)
        return [bool(undecided or held) and not given_up for undecided, held, given_up in rows]

    @property
    def open_everywhere(self) -> bool:
        """Whether every row has an open position or is held."""
        return all(opened or held for opened, held in zip(self.open, self.held, strict=True))

    def complete(self, stepped: Sequence[bool]) -> list[bool]:
        """Return which of these rows have completed their window."""
        rows = zip(stepped, self.open, self.held, strict=True)
        return [made and not opened and not held for made, opened, held in rows]

    def index_of(self, rows: Sequence[bool]) -> Tensor:
        """Return the numbers of the rows that are marked."""
        marked = [row for row, one in enumerate(rows) if one]
        return torch.tensor(marked, dtype=torch.int64, device=self.read_BL.device)

    def rows(self, kept: Sequence[bool], index_B: Tensor) -> "Standing":
        """Return what is known of the rows that are kept."""
        return Standing(**{f.name: _of_rows(getattr(self, f.name), kept, index_B) for f in fields(self)})


def _counted(method: DiffusionMethod, canvas: Canvas) -> dict[str, Tensor]:
    return {"counted": method.verifier.count(canvas)} if acts_as(method.verifier, Counts) else {}


def _of_rows(column: list[int] | Tensor | None, kept: Sequence[bool], index_B: Tensor) -> Any:
    if isinstance(column, Tensor):
        return column.index_select(0, index_B)
    return None if column is None else list(compress(column, kept))
