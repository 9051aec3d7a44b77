"""Keys and values of a transformers model by slot, written in place as the in-tree store does.

The library's own caches append; drafts that are rejected and windows in the middle need slots that can be written
again. Shapes: B rows, K key/value heads, T new positions, S slots, D head width.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import pad

from harness.engine.shared.indexing import positions

_FEW = 4
"""So many tokens of all rows are written number by number, in half of the time."""


class SlotStore:
    """Keys and values [B, K, S, D] of every layer; memory is taken when a layer first writes."""

    def __init__(self, layers: int, rows: int, slots: int) -> None:
        self.num_rows, self.slots = rows, slots
        self.keys: list[Tensor | None] = [None] * layers
        self.values: list[Tensor | None] = [None] * layers

    def rows(self, index_B: Tensor) -> "SlotStore":
        """Return a copy with the rows of `index_B`, in that order, repeats allowed."""
        return self._changed(len(index_B), self.slots, lambda kept: kept.index_select(0, index_B))

    def keep(self, index_B: Tensor) -> "SlotStore":
        """Drop all rows but those of `index_B`, layer by layer, and return this store."""
        # Lists of its own, so that a shallow copy of the store stays what it was.
        self.num_rows, self.keys, self.values = len(index_B), [*self.keys], [*self.values]
        for kept in (self.keys, self.values):
            for layer, held in enumerate(kept):
                kept[layer] = None if held is None else held.index_select(0, index_B)
        return self

    def move(self, row_N: Tensor, from_N: Tensor, to_N: Tensor) -> None:
        """Have the slots `to_N` of rows hold what their slots `from_N` held before, in place."""
        for kept in (*self.keys, *self.values):
            if kept is not None:
                kept[row_N, :, to_N] = kept[row_N, :, from_N]

    def grown(self, slots: int) -> "SlotStore":
        """Return a copy with more slots, which hold nothing yet."""
        return self._changed(self.num_rows, slots, lambda kept: pad(kept, (0, 0, 0, slots - self.slots)))

    def extended(self, rows: int) -> "SlotStore":
        """Return a copy with so many more rows behind its own, which hold nothing yet."""
        return self._changed(self.num_rows + rows, self.slots, lambda kept: pad(kept, (0, 0, 0, 0, 0, 0, 0, rows)))

    def joined(self, other: "SlotStore") -> "SlotStore":
        """Return a copy with the rows of another store, of as many slots, behind its own."""
        made = self.extended(other.num_rows)
        for mine, theirs in ((made.keys, other.keys), (made.values, other.values)):
            for layer, kept in enumerate(theirs):
                if kept is None:
                    continue
                if (held := mine[layer]) is None:
                    held = mine[layer] = kept.new_zeros(made.num_rows, *kept.shape[1:])
                held[self.num_rows :] = kept
        return made

    def _changed(self, rows: int, slots: int, change: Callable[[Tensor], Tensor]) -> "SlotStore":
        """Return a store of that size with what `change` makes of the tensors of this one."""
        copy = SlotStore(len(self.keys), rows, slots)
        copy.keys = [None if kept is None else change(kept) for kept in self.keys]
        copy.values = [None if kept is None else change(kept) for kept in self.values]
        return copy

    def write(self, layer: int, slots_BT: Tensor, keys_BKTD: Tensor, values_BKTD: Tensor) -> tuple[Tensor, Tensor]:
        """Replace slots of one layer in place; return all its keys and values."""
        stored, rows_B1 = [], positions(self.num_rows, slots_BT.device)[:, None]
        for held, new in ((self.keys, keys_BKTD), (self.values, values_BKTD)):
            buffer = held[layer]
            if buffer is None:
                buffer = new.new_zeros(self.num_rows, new.shape[1], self.slots, new.shape[3])
                held[layer] = buffer
            if slots_BT.numel() <= _FEW:
                buffer.scatter_(2, slots_BT[:, None, :, None].expand_as(new), new)
            else:
                buffer[rows_B1, :, slots_BT] = new.transpose(1, 2)
            stored.append(buffer)
        return stored[0], stored[1]


class SlotCache:
    """What a transformers model takes as its cache during one call: writes to `slots_BT`, reads slots [0, end)."""

    is_compileable = False

    def __init__(self, store: SlotStore, slots_BT: Tensor, end: int) -> None:
        self.store, self.slots_BT, self.end = store, slots_BT, end

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Write the new keys and values of a layer and return those it may attend to."""
        stored_keys, stored_values = self.store.write(layer_idx, self.slots_BT, keys, values)
        return stored_keys[:, :, : self.end], stored_values[:, :, : self.end]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the slots before this call's window; models read it where they are given no positions."""
        return self.end - self.slots_BT.shape[1]

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """Return `get_seq_length`."""
        return self.get_seq_length(layer_idx)

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Return number and first of the keys that a mask covers."""
        return self.end, 0

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """Return the number of slots."""
        return self.store.slots

    get_max_cache_shape = get_max_length
