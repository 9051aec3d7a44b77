"""Keys and values of drafts that share those of their row: each draft sees what is stored and itself, no other draft.

What a draft computes is kept in slots behind those of the row, until one draft goes on and the others are dropped: the
tree of FreeDave's released code (arXiv:2510.00294; cychomatica/FreeDave: tree_attention).
Shapes: D drafts, R rows of the model, L positions, E queries of all drafts, T queries of the widest row, S slots.
"""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

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
    """The stores of drafts whose rows `row_D` share one: a `Store` with a row per draft.

    Drafts of a row stand together, rows in ascending order, none without a draft. `slot_DL` is where the positions of
    a draft are. `slots` is what a draft sees as its own; the shared store has more, which hold what drafts of rows with
    several have computed. A row's only draft writes in place.
    """

    def __init__(self, shared: Store, row_D: Tensor) -> None:
        assert isinstance(shared, MovableStore), "keys and values that are not kept in slots cannot be shared by drafts"
        self.shared, self.row_D, self.slots = shared, row_D, shared.slots
        self.slot_DL = torch.arange(self.slots - 1, device=row_D.device).repeat(len(row_D), 1)
        self.drafts_R = torch.bincount(row_D)
        self._taken_R = torch.zeros_like(self.drafts_R)

    def rows(self, index_B: Tensor) -> Store:
        """Return plain stores of the drafts `index_B`, in that order, repeats allowed."""
        padding_B1 = torch.full_like(index_B[:, None], self.slots - 1)
        return self.shared.gathered(self.row_D[index_B], torch.cat([self.slot_DL[index_B], padding_B1], 1))

    def grown(self, slots: int) -> "DraftsStore":
        """Return a store with more slots, which hold nothing yet; for drafts that have computed nothing so far."""
        assert not bool(self._taken_R.any()), "the slots behind are taken"
        return DraftsStore(self.shared.grown(slots), self.row_D)

    def extended(self, rows: int) -> "DraftsStore":
        """Return a store with so many more rows, each of which is its own only draft; like `grown`, before any call."""
        assert not bool(self._taken_R.any()), "drafts have computed something"
        first = len(self.drafts_R)
        more_D = torch.arange(first, first + rows, device=self.row_D.device)
        return DraftsStore(self.shared.extended(rows), torch.cat([self.row_D, more_D]))

    def write(self, draft_E: Tensor, position_E: Tensor) -> Tensor:
        """Return the slots [E] that these positions are to be written to, taking new ones; rows in ascending order."""
        row_E, slot_E = self.row_D[draft_E], self.slot_DL[draft_E, position_E]
        moves_E = (slot_E < self.slots) & (self.drafts_R[row_E] > 1)
        # Positions that move get slots of their own, behind those that are taken.
        moved_R = torch.zeros_like(self._taken_R).index_add_(0, row_E, moves_E.long())
        first_R = self._taken_R - (moved_R.cumsum(0) - moved_R)
        slot_E = torch.where(moves_E, self.slots + first_R[row_E] + moves_E.cumsum(0) - 1, slot_E)
        self.slot_DL[draft_E, position_E] = slot_E
        self._taken_R = self._taken_R + moved_R
        needed = self.slots + int(self._taken_R.max())
        if self.shared.slots < needed:
            grown = self.shared.grown(needed)
            assert isinstance(grown, MovableStore)
            self.shared = grown
        return slot_E

    def visible(self, key_DL: Tensor, draft_RT: Tensor, position_RT: Tensor, block: int | None) -> Tensor:
        """Return the slots [R, T, S] that queries see: where their draft has the positions `key_DL`.

        With `block`, the length of a model's blocks, no later block is seen.
        """
        nowhere_DS = torch.zeros(len(key_DL), self.shared.slots, dtype=torch.int64, device=key_DL.device)
        visible_RTS = nowhere_DS.bool().scatter(1, self.slot_DL, key_DL)[draft_RT]
        if block is None:
            return visible_RTS
        position_L = torch.arange(key_DL.shape[1], device=key_DL.device)
        block_DS = nowhere_DS.scatter(1, self.slot_DL, (position_L // block).expand_as(key_DL))
        return visible_RTS & (block_DS[draft_RT] <= (position_RT // block)[:, :, None])
