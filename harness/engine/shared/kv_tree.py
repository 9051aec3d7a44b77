"""Keys and values of drafts that share those of their row: each draft sees what is stored and itself, no other draft.

What a draft computes is kept in slots behind those of the row, until one draft goes on and the others are dropped: the
tree of FreeDave's released code (arXiv:2510.00294; cychomatica/FreeDave: tree_attention).
Shapes: D drafts, R rows of the model, L positions, T queries, S slots.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from harness.engine.shared.indexing import filled, flags, positions
from harness.engine.shared.model import Store


@runtime_checkable
class MovableStore(Store, Protocol):
    """Keys and values whose slots can be moved."""

    def gathered(self, index_B: Tensor, slots_BS: Tensor) -> Store:
        """Return a copy with the rows of `index_B`, whose slots hold what their slots `slots_BS` hold here."""
        ...


@runtime_checkable
class TreeStore(Store, Protocol):
    """Keys and values whose slots can take over what others hold, in place."""

    def move(self, row_N: Tensor, from_N: Tensor, to_N: Tensor) -> None:
        """Have the slots `to_N` of rows hold what their slots `from_N` held before."""
        ...


class DraftsStore:
    """The stores of drafts that share those of their rows: a `Store` with a row per draft.

    Drafts of a row stand together, rows in ascending order: `drafts` are how many each has, one at least, and `row_D`
    is the row of each draft. `slot_DL` is where the positions of a draft are. `slots` is what a draft sees as its own;
    the shared store has more, which hold what drafts of rows with several have computed. A row's only draft writes in
    place.
    """

    def __init__(self, shared: Store, row_D: Tensor, drafts: Sequence[int]) -> None:
        assert isinstance(shared, MovableStore), "keys and values that are not kept in slots cannot be shared by drafts"
        self.shared, self.row_D, self.drafts, self.slots = shared, row_D, [*drafts], shared.slots
        self.slot_DL = positions(self.slots - 1, row_D.device).expand(len(row_D), -1)
        self._taken = [0] * len(self.drafts)

    def rows(self, index_B: Tensor) -> Store:
        """Return plain stores of the drafts `index_B`, in that order, repeats allowed."""
        padding_B1 = filled((len(index_B), 1), self.slots - 1, torch.int64, index_B.device)
        return self.shared.gathered(self.row_D[index_B], torch.cat([self.slot_DL[index_B], padding_B1], 1))

    def grown(self, slots: int) -> "DraftsStore":
        """Return a store with more slots, which hold nothing yet; for drafts that have computed nothing so far."""
        assert not any(self._taken), "the slots behind are taken"
        return DraftsStore(self.shared.grown(slots), self.row_D, self.drafts)

    def extended(self, rows: int) -> "DraftsStore":
        """Return a store with so many more rows, each of which is its own only draft; like `grown`, before any call."""
        assert not any(self._taken), "drafts have computed something"
        first = len(self.drafts)
        more_D = torch.arange(first, first + rows, device=self.row_D.device)
        return DraftsStore(self.shared.extended(rows), torch.cat([self.row_D, more_D]), [*self.drafts, *[1] * rows])

    def of_rows(self, counts: Sequence[int]) -> list[tuple[int, ...]]:
        """Return, for each row, what is counted of its drafts."""
        ends = [*accumulate(self.drafts)]
        return [tuple(counts[end - drafts : end]) for drafts, end in zip(self.drafts, ends, strict=True)]

    def moving(self, query_DL: Tensor, query_D: Tensor) -> tuple[Tensor, list[int], list[int]]:
        """Return which of these positions need a slot of their own, as other drafts see the present one.

        And how many of each draft there are, `query_D`, and how many of these; waits for the device, once.
        """
        several = tuple(drafts > 1 for drafts in self.drafts for _ in range(drafts))
        moves_DL = query_DL & flags(several, self.row_D.device)[:, None]
        if not any(self._taken):
            counts = query_D.tolist()
            return moves_DL, counts, [count * one for count, one in zip(counts, several, strict=True)]
        moves_DL = moves_DL & (self.slot_DL < self.slots)
        counts, moved = torch.stack([query_D, moves_DL.sum(1)]).tolist()
        return moves_DL, counts, moved

    def take(self, counts: Sequence[int]) -> list[int]:
        """Return the first new slot of each draft, so many of which are taken behind those that are."""
        firsts = []
        for row, moved in enumerate(self.of_rows(counts)):
            firsts += accumulate(moved[:-1], initial=self.slots + self._taken[row])
            self._taken[row] += sum(moved)
        needed = self.slots + max(self._taken)
        if self.shared.slots < needed:
            grown = self.shared.grown(needed)
            assert isinstance(grown, MovableStore)
            self.shared = grown
        return firsts

    def visible(self, key_DL: Tensor, draft_T: Tensor, position_T: Tensor, block: int | None) -> Tensor:
        """Return the slots [T, S] that queries see: where their draft has the positions `key_DL`.

        With `block`, the length of a model's blocks, no later block is seen.
        """
        shape, device = (len(key_DL), self.shared.slots), key_DL.device
        nowhere_DS = filled(shape, False, torch.bool, device)
        visible_TS = nowhere_DS.scatter(1, self.slot_DL, key_DL).index_select(0, draft_T)
        if block is None:
            return visible_TS
        block_DL = (positions(key_DL.shape[1], device) // block).expand_as(key_DL)
        block_DS = filled(shape, 0, torch.int64, device).scatter(1, self.slot_DL, block_DL)
        return visible_TS & (block_DS.index_select(0, draft_T) <= (position_T // block)[:, None])
