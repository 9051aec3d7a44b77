"""Trees of drafted tokens: what a node of one sees, where it stands, and which path of it holds.

A tree hangs on the last committed token of its row, the anchor. Its nodes stand in an order in which parents come
before their children; node k is kept in the slot k behind the row, whatever its depth, until a path is moved into
place. Shapes: B rows, K nodes, D depths of a path, T queries, S slots.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from harness.engine.autoregressive.sequences import first

ANCHOR = -1
"""The parent of what follows the last committed token."""


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Nodes by depth, 1 for those that follow the anchor, 0 for padding; `sees_BKK`: itself and what it hangs on."""

    depth_BK: Tensor
    sees_BKK: Tensor

    @classmethod
    def of(cls, parent_BK: Tensor, count_B: Tensor) -> Self:
        """Return the tree of the first `count_B` nodes of each row, given by their parents (`ANCHOR`: none)."""
        rows, width = parent_BK.shape
        place_K = torch.arange(width, device=parent_BK.device)
        real_BK = first(count_B, width)
        below_BK = (parent_BK < place_K) & (parent_BK >= ANCHOR)
        assert bool((below_BK | ~real_BK).all()), "a node of a tree hangs on the anchor or on a node before it"
        parent_BK = parent_BK.masked_fill(~real_BK, ANCHOR)
        depth_BK, at_BK = real_BK.long(), parent_BK
        sees_BKK = torch.eye(width, dtype=torch.bool, device=parent_BK.device).repeat(rows, 1, 1)
        while bool((at_BK > ANCHOR).any()):
            up_BK, index_BK = at_BK > ANCHOR, at_BK.clamp(min=0)
            # A node without more parents marks itself again.
            sees_BKK.scatter_(2, torch.where(up_BK, index_BK, place_K)[..., None], True)
            depth_BK = depth_BK + up_BK
            at_BK = torch.where(up_BK, parent_BK.gather(1, index_BK), ANCHOR)
        return cls(depth_BK=depth_BK, sees_BKK=sees_BKK)

    def places(self, slot_BT: Tensor, length_B: Tensor) -> Tensor:
        """Return the positions of queries at `slot_BT` of rows that have `length_B` committed tokens."""
        node_BT = slot_BT - length_B[:, None]
        depth_BT = self.depth_BK.gather(1, node_BT.clamp(min=0))
        return torch.where(node_BT >= 0, length_B[:, None] - 1 + depth_BT, slot_BT)

    def visible(self, slot_BT: Tensor, length_B: Tensor, end: int) -> Tensor:
        """Return which slots [B, T, `end`] the queries see: committed tokens before them, and their own path."""
        slot_S = torch.arange(end, device=slot_BT.device)
        node_BT, node_BS = slot_BT - length_B[:, None], slot_S - length_B[:, None]
        row_B11, last = torch.arange(len(length_B), device=slot_BT.device)[:, None, None], self.depth_BK.shape[1] - 1
        path_BTS = self.sees_BKK[row_B11, node_BT.clamp(min=0)[:, :, None], node_BS.clamp(0, last)[:, None]]
        path_BTS = path_BTS & (node_BS >= 0)[:, None] & (node_BS <= last)[:, None] & (node_BT >= 0)[:, :, None]
        return path_BTS | (slot_S < length_B[:, None, None]) & (slot_S <= slot_BT[:, :, None])


def walk(parent_BK: Tensor, count_B: Tensor, tokens_BK: Tensor, wanted_BT: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """Follow the wanted tokens from the anchor, and return the path [B, D] of nodes and its length per row.

    `wanted_BT` is what follows the anchor (T = 0) and each node k (T = k + 1). Of equal siblings the first is taken.
    Behind its end a path repeats its last node (node 0 where it is empty).
    """
    real_BK = first(count_B, tokens_BK.shape[1])
    agrees_BK = real_BK & (wanted_BT.gather(1, parent_BK + 1) == tokens_BK)
    at_B, on_B, path = torch.full_like(count_B, ANCHOR), torch.ones_like(count_B, dtype=torch.bool), []
    length_B = torch.zeros_like(count_B)
    for _ in range(depth):
        next_BK = agrees_BK & (parent_BK == at_B[:, None]) & on_B[:, None]
        on_B = next_BK.any(1)
        at_B = torch.where(on_B, next_BK.byte().argmax(1), at_B)
        length_B = length_B + on_B
        path.append(at_B.clamp(min=0))
    return torch.stack(path, 1), length_B


def compacted(keep_BK: Tensor, parent_BK: Tensor) -> tuple[Tensor, Tensor]:
    """Return the order in which kept nodes stand first, and their parents in it; what is kept keeps its parent."""
    order_BK = (~keep_BK).byte().argsort(dim=1, stable=True)
    place_BK = keep_BK.long().cumsum(1) - 1
    moved_BK = torch.where(parent_BK > ANCHOR, place_BK.gather(1, parent_BK.clamp(min=0)), ANCHOR)
    return order_BK, moved_BK.gather(1, order_BK)
