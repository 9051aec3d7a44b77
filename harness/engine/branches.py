"""Drafts of a row as one row of the model: each sees what is stored and itself, none sees another.

The tree of FreeDave's released code (arXiv:2510.00294; cychomatica/FreeDave: tree_attention). What a draft computes is
kept in slots behind those of the row, until one draft goes on and the others are dropped.
Shapes: D drafts, R rows of the model, L positions, E queries of all drafts, T queries of the widest row, S slots.
"""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from harness.engine.canvas import Canvas
from harness.engine.model import AttentionObserver, LanguageModel, Store
from harness.engine.positional import Busy, per_row
from harness.engine.records import Ledger, Role


@runtime_checkable
class MovableStore(Store, Protocol):
    """Keys and values whose slots can be moved."""

    def gathered(self, index_B: Tensor, slots_BS: Tensor) -> Store:
        """Return a copy with the rows of `index_B`, whose slots hold what their slots `slots_BS` hold here."""
        ...


class Branches:
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

    def grown(self, slots: int) -> "Branches":
        """Return branches with more slots, which hold nothing yet; for drafts that have computed nothing so far."""
        assert not bool(self._taken_R.any()), "the slots behind are taken"
        return Branches(self.shared.grown(slots), self.row_D)

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


def _place_in_row(row_E: Tensor, rows: int) -> Tensor:
    """Return the place of every entry among those of its row; rows in ascending order."""
    count_R = per_row(row_E, rows)
    return torch.arange(len(row_E), device=row_E.device) - (count_R.cumsum(0) - count_R)[row_E]


def forward_branches(
    ledger: Ledger,
    model: LanguageModel,
    drafts: Canvas,
    branches: Branches,
    query_DL: Tensor,
    draft_N: Tensor,
    source_N: Tensor,
    *,
    key_DL: Tensor,
    role: Role,
    observe: AttentionObserver | None,
) -> Tensor:
    """Compute the positions `query_DL` of all drafts, a row of the model for those of each row.

    Return raw logits [N, V] of the positions `source_N` of the drafts `draft_N`, which must be among the queries.
    Arguments are those of `harness.engine.reuse.forward_queries`.
    """
    rows, width = len(branches.drafts_R), drafts.tokens_BL.shape[1]
    draft_E, position_E = query_DL.nonzero(as_tuple=True)
    row_E = branches.row_D[draft_E]
    place_E = _place_in_row(row_E, rows)
    query_R = per_row(row_E, rows)
    counts = query_R.tolist()
    longest, busy = max(counts), Busy(counts)

    def laid_out(values_E: Tensor, padding_R: Tensor) -> Tensor:
        out_RT = padding_R[:, None].repeat(1, longest)
        out_RT[row_E, place_E] = values_E
        return out_RT

    first_R = branches.drafts_R.cumsum(0) - branches.drafts_R
    position_RT = laid_out(position_E, torch.zeros_like(first_R))
    draft_RT = laid_out(draft_E, first_R)
    slot_RT = laid_out(branches.write(draft_E, position_E), torch.full_like(first_R, width))
    place_DL = torch.zeros_like(drafts.tokens_BL)
    place_DL[draft_E, position_E] = place_E
    keys_R = torch.zeros_like(query_R).index_add(0, row_E, key_DL.sum(1)[draft_E])
    head_R = per_row(branches.row_D[draft_N], rows)
    return ledger.call(
        model,
        drafts.tokens_BL[draft_RT, position_RT],
        role=role,
        sample_B=busy(drafts.sample_B[first_R]),
        query_B=busy(query_R),
        keys_B=busy(keys_R / query_R),
        reused=lambda: busy(query_R.new_zeros(rows, width).index_add(0, branches.row_D, (key_DL & ~query_DL).long())),
        head_B=busy(head_R),
        positions_BT=position_RT,
        slots_BT=slot_RT,
        kv=branches.shared,
        end=branches.shared.slots,
        visible_BTS=branches.visible(key_DL, draft_RT, position_RT, model.spec.block_length),
        structured=False,
        select_N=branches.row_D[draft_N] * longest + place_DL[draft_N, source_N],
        decided_at_BT=drafts.decided_at_BL[draft_RT, position_RT],
        observe=observe,
    )
