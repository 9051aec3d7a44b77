"""How the rows of a canvas stand, as far as the host has to know: one transfer per step, and no other wait.

Shapes: B rows, L positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import compress

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.method import DiffusionMethod


def reads(method: DiffusionMethod, canvas: Canvas) -> Tensor:
    """Return the positions that the policies read of a prediction of this canvas: what is open, and more."""
    read_BL = canvas.open_BL
    for reads_too in method.read_too:
        read_BL = read_BL | reads_too(canvas)
    return read_BL


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What the host knows of each row, from one transfer: all that the loop's own decisions hang on.

    How many positions are open, undecided, and read by the next evaluation (`read_BL`); whether a policy holds the row,
    the loop has given it up, its step was idle, and its last logits were no numbers.
    """

    open: list[int]
    undecided: list[int]
    held: list[int]
    given_up: list[int]
    idle: list[int]
    broken: list[int]
    read: list[int]
    read_BL: Tensor

    @classmethod
    def of(
        cls, method: DiffusionMethod, canvas: Canvas, idle_B: Tensor | None = None, broken: Tensor | None = None
    ) -> "Standing":
        """Wait for the device, once."""
        open_BL = canvas.open_BL
        read_BL = reads(method, canvas)
        columns = {"open": open_BL.sum(1), "undecided": canvas.undecided_BL.sum(1)}
        columns |= {"held": canvas.held_B, "given_up": canvas.given_up_B}
        columns |= {} if read_BL is open_BL else {"read": read_BL.sum(1)}
        columns |= {} if idle_B is None else {"idle": idle_B}
        columns |= {} if broken is None else {"broken": broken.expand_as(canvas.held_B)}
        told = dict(zip(columns, torch.stack([*columns.values()]).tolist(), strict=True))
        never = [0] * canvas.num_rows
        return cls(**{"idle": never, "broken": never, "read": told["open"]} | told, read_BL=read_BL)

    @property
    def live(self) -> list[bool]:
        """Rows that go on."""
        rows = zip(self.undecided, self.held, self.given_up, strict=True)
        return [bool(undecided or held) and not given_up for undecided, held, given_up in rows]

    def completes(self, stepped: Sequence[bool]) -> bool:
        """Return whether one of these rows has completed its window."""
        rows = zip(stepped, self.open, self.held, strict=True)
        return any(made and not opened and not held for made, opened, held in rows)

    def index_of(self, rows: Sequence[bool]) -> Tensor:
        """Return the numbers of the rows that are marked."""
        marked = [row for row, one in enumerate(rows) if one]
        return torch.tensor(marked, dtype=torch.int64, device=self.read_BL.device)

    def rows(self, kept: Sequence[bool], index_B: Tensor) -> "Standing":
        """Return what is known of the rows that are kept."""
        columns = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "read_BL"}
        return Standing(
            **{name: list(compress(column, kept)) for name, column in columns.items()},
            read_BL=self.read_BL.index_select(0, index_B),
        )
