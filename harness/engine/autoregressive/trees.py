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

MOST_NODES = 4096
"""Tokens of one tree; each has keys and values of its own, and sees a mask over all of them."""

ANCHOR = -1
"""The parent of what follows the last committed token."""


Node = tuple[int, int]
"""Parent and token."""


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

    def within(self, depth_BK: Tensor) -> Tensor:
        """Return which nodes [B, K] are no deeper than that, and hang on no node that is."""
        return ((self.depth_BK <= depth_BK)[:, None] | ~self.sees_BKK).all(2)

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


def deepest(tree: Tree, agrees_BK: Tensor) -> tuple[Tensor, Tensor]:
    """Return the path [B, D] of nodes to the deepest one that agrees with all before it, and its length per row.

    Of several the first is taken; siblings may be equal. Behind its end a path holds node 0.
    """
    stands_BK = ~(tree.sees_BKK & ~agrees_BK[:, None]).any(2) & (tree.depth_BK > 0)
    depth_BK = tree.depth_BK * stands_BK
    length_B = depth_BK.amax(1)
    end_B = (stands_BK & (depth_BK == length_B[:, None])).byte().argmax(1)
    row_B, depth_D = torch.arange(len(end_B), device=end_B.device), torch.arange(1, int(tree.depth_BK.max()) + 1)
    on_BK = tree.sees_BKK[row_B, end_B] & (length_B > 0)[:, None]
    on_BDK = on_BK[:, None] & (tree.depth_BK[:, None] == depth_D.to(end_B.device)[:, None])
    return on_BDK.byte().argmax(2), length_B


def compacted(keep_BK: Tensor, parent_BK: Tensor) -> tuple[Tensor, Tensor]:
    """Return the order in which kept nodes stand first, and their parents in it; what is kept keeps its parent."""
    order_BK = (~keep_BK).byte().argsort(dim=1, stable=True)
    place_BK = keep_BK.long().cumsum(1) - 1
    moved_BK = torch.where(parent_BK > ANCHOR, place_BK.gather(1, parent_BK.clamp(min=0)), ANCHOR)
    return order_BK, moved_BK.gather(1, order_BK)
