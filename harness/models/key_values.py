"""Keys and values of the in-tree transformer, by slot.

Shapes: B rows, T new positions, S slots, K key/value heads, D head width.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


class KeyValueStore:
    """Keys (rotated) and values of every layer, [B, S, K, D] each; slots are absolute positions.

    A slot holds what the last forward that computed this position wrote. Rows can be chosen, repeated and
    dropped; how far the store is valid is the caller's knowledge.
    """

    def __init__(self, keys: list[Tensor], values: list[Tensor]) -> None:
        self.keys, self.values = keys, values

    @property
    def slots(self) -> int:
        """Number of positions that fit."""
        return self.keys[0].shape[1]

    def rows(self, index_B: Tensor) -> "KeyValueStore":
        """Return a copy with the rows of `index_B`, in that order, repeats allowed."""
        return self._changed(lambda kept: kept.index_select(0, index_B))

    def keep(self, index_B: Tensor) -> "KeyValueStore":
        """Drop all rows but those of `index_B`, layer by layer, and return this store."""
        # Lists of its own, so that a shallow copy of the store stays what it was.
        self.keys, self.values = [*self.keys], [*self.values]
        for kept in (self.keys, self.values):
            for layer, held in enumerate(kept):
                kept[layer] = held.index_select(0, index_B)
        return self

    def gathered(self, index_B: Tensor, slots_BS: Tensor) -> "KeyValueStore":
        """Return a copy with the rows of `index_B`, whose slots hold what their slots `slots_BS` hold here."""
        return self._changed(lambda kept: kept[index_B[:, None], slots_BS])

    def move(self, row_N: Tensor, from_N: Tensor, to_N: Tensor) -> None:
        """Have the slots `to_N` of rows hold what their slots `from_N` held before, in place."""
        for kept in (*self.keys, *self.values):
            kept[row_N, to_N] = kept[row_N, from_N]

    def grown(self, slots: int) -> "KeyValueStore":
        """Return a copy with more slots, which hold nothing yet."""
        return self._changed(lambda kept: F.pad(kept, (0, 0, 0, 0, 0, slots - self.slots)))

    def extended(self, rows: int) -> "KeyValueStore":
        """Return a copy with so many more rows behind its own, which hold nothing yet."""
        return self._changed(lambda kept: F.pad(kept, (0, 0, 0, 0, 0, 0, 0, rows)))

    def joined(self, other: "KeyValueStore") -> "KeyValueStore":
        """Return a copy with the rows of another store, of as many slots, behind its own."""
        pairs = zip((*self.keys, *self.values), (*other.keys, *other.values), strict=True)
        kept = [torch.cat(pair) for pair in pairs]
        return KeyValueStore(kept[: len(self.keys)], kept[len(self.keys) :])

    def _changed(self, change: Callable[[Tensor], Tensor]) -> "KeyValueStore":
        return KeyValueStore([change(kept) for kept in self.keys], [change(kept) for kept in self.values])

    def write(self, layer: int, slots_BT: Tensor, keys_BTKD: Tensor, values_BTKD: Tensor) -> None:
        """Replace the slots of one layer in place."""
        rows_B1 = torch.arange(slots_BT.shape[0], device=slots_BT.device)[:, None]
        self.keys[layer][rows_B1, slots_BT] = keys_BTKD
        self.values[layer][rows_B1, slots_BT] = values_BTKD
