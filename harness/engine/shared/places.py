"""Which positions of a canvas a prediction is about, and how many of each row.

Shapes: B rows, L positions, N of them in all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.engine.shared.indexing import filled, per_row


@dataclass(frozen=True, kw_only=True)
class Places:
    """Positions of a canvas of `shape` [B, L].

    What is at hand need not be worked out again: `known_N` is their place in it, rows one behind the other, `known_BL`
    marks them, `counts` is how many of each row, in whose order they then stand, and `counted_B` is that on the device.
    """

    shape: tuple[int, int]
    known_N: Tensor | None = None
    known_BL: Tensor | None = None
    counts: Sequence[int] | None = None
    counted_B: Tensor | None = None

    @classmethod
    def of(cls, row_N: Tensor, position_N: Tensor, shape: tuple[int, int]) -> "Places":
        """Return the positions `position_N` of the rows `row_N`."""
        made = cls(shape=shape)
        vars(made).update(row_N=row_N, position_N=position_N)
        return made

    @classmethod
    def marked(cls, marked_BL: Tensor, counts: Sequence[int], counted_B: Tensor | None = None) -> "Places":
        """Return the positions that are marked, so many of each row, in ascending order; waits for nothing."""
        rows, width = marked_BL.shape
        flat_N = torch.nonzero_static(marked_BL.view(-1), size=sum(counts)).view(-1)
        return cls(known_N=flat_N, shape=(rows, width), known_BL=marked_BL, counts=counts, counted_B=counted_B)

    @cached_property
    def flat_N(self) -> Tensor:
        """The place of each position in the canvas, rows one behind the other."""
        return self.row_N * self.shape[1] + self.position_N if self.known_N is None else self.known_N

    @cached_property
    def row_N(self) -> Tensor:
        """The row of each position."""
        return self.flat_N // self.shape[1]

    @cached_property
    def position_N(self) -> Tensor:
        """Each position in its row."""
        return self.flat_N % self.shape[1]

    @cached_property
    def marked_BL(self) -> Tensor:
        """The same positions, marked."""
        if self.known_BL is not None:
            return self.known_BL
        return self.put(torch.ones_like(self.flat_N, dtype=torch.bool), False)

    @cached_property
    def count_B(self) -> Tensor:
        """How many positions each row has."""
        return per_row(self.row_N, self.shape[0]) if self.counted_B is None else self.counted_B

    def put(self, values_NX: Tensor, fill: float | int) -> Tensor:
        """Return [B, L, ...] with the values at these positions and `fill` everywhere else."""
        (rows, width), inner = self.shape, values_NX.shape[1:]
        nothing = filled((rows * width, *inner), fill, values_NX.dtype, values_NX.device)
        return nothing.index_copy(0, self.flat_N, values_NX).view(rows, width, *inner)

    def take(self, values_BL: Tensor) -> Tensor:
        """Return the entries [N] of these positions."""
        return values_BL.reshape(-1).index_select(0, self.flat_N)

    def repeated(self, copies: int) -> "Places":
        """Return the same positions of so many copies of all rows, behind each other; their `counts` are known."""
        if copies == 1:
            return self
        assert self.counts is not None
        return Places.marked(self.marked_BL.repeat(copies, 1), [*self.counts] * copies)

    def rows(self, rows: Sequence[int]) -> tuple["Places", Tensor, Tensor]:
        """Return the positions of these rows, in that order, repeats allowed; which of N each of them is; the rows."""
        counts, width = self.marked_BL.sum(1).tolist() if self.counts is None else self.counts, self.shape[1]
        ends = [*accumulate(counts)]
        entries = [range(ends[row] - counts[row], ends[row]) for row in rows]
        moves = [(to - row) * width for to, row in enumerate(rows) for _ in range(counts[row])]
        numbers = torch.tensor([*chain(*entries), *moves, *rows], dtype=torch.int64, device=self.flat_N.device)
        entry_N, moved_N, index_B = numbers.split([len(moves), len(moves), len(rows)])
        made = Places(
            known_N=self.flat_N.index_select(0, entry_N) + moved_N,
            shape=(len(rows), width),
            known_BL=self.marked_BL.index_select(0, index_B),
            counts=[counts[row] for row in rows],
        )
        return made, entry_N, index_B

    def within(self, rows: Sequence[int]) -> tuple["Places", Tensor]:
        """Return those of these rows, ascending, in the same canvas, and which of N each of them is."""
        counts = self.marked_BL.sum(1).tolist() if self.counts is None else self.counts
        ends = [*accumulate(counts)]
        entries = [*chain(*(range(ends[row] - counts[row], ends[row]) for row in rows))]
        entry_M = torch.tensor(entries, dtype=torch.int64, device=self.flat_N.device)
        some = frozenset(rows)
        kept = [count if row in some else 0 for row, count in enumerate(counts)]
        return Places(known_N=self.flat_N.index_select(0, entry_M), shape=self.shape, counts=kept), entry_M

    def only(self, some_BL: Tensor) -> tuple["Places", Tensor]:
        """Return those that are marked in `some_BL` too, and which of N each of them is."""
        entry_M = self.take(some_BL).nonzero().squeeze(1)
        flat_M = self.flat_N.index_select(0, entry_M)
        return Places(known_N=flat_M, shape=self.shape, known_BL=self.marked_BL & some_BL), entry_M

    def widened(self, width: int) -> "Places":
        """Return the same positions of a canvas that has grown to `width`."""
        extra = width - self.shape[1]
        if not extra:
            return self
        return Places(
            known_N=self.flat_N + self.row_N * extra,
            shape=(self.shape[0], width),
            known_BL=F.pad(self.marked_BL, (0, extra)),
            counts=self.counts,
            counted_B=self.counted_B,
        )
