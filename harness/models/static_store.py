"""Keys and values that stay in place: stores take buffers of a few sizes from a pool and give them back.

Shapes: B rows, S slots, as in `harness.models.key_values`.
"""

import weakref
from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor

from harness.models.key_values import KeyValueStore


def bucket(number: int) -> int:
    """Return the next power of two, or three quarters of one: at most half as much again, mostly less."""
    power = 1 << max(number - 1, 0).bit_length()
    return power * 3 // 4 if number <= power * 3 // 4 and power > 2 else power


class Pool:
    """Buffers of keys and values by size, those that no store has any more to be used again."""

    def __init__(self, make: Callable[[int, int], KeyValueStore]) -> None:
        self._make = make
        self._free: dict[tuple[int, int], list[KeyValueStore]] = defaultdict(list)

    def store(self, rows: int, slots: int) -> "StaticStore":
        """Return an empty store, whose buffer has at least one slot more."""
        size = bucket(rows), bucket(slots + 1)
        # What is made in inference mode could be written there only.
        with torch.inference_mode(False):
            held = self._free[size].pop() if self._free[size] else self._make(*size)
        for one in (*held.keys, *held.values):
            one.zero_()
        made = StaticStore(self, held, rows, slots)
        weakref.finalize(made, self._free[size].append, held).atexit = False
        return made


class StaticStore:
    """Keys and values of `num_rows` rows of `slots` slots, within a buffer that does not move and is somewhat larger.

    What is asked for with other rows or slots is a store of its own.
    """

    def __init__(self, pool: Pool, held: KeyValueStore, num_rows: int, slots: int) -> None:
        self.held, self.num_rows, self.slots, self._pool = held, num_rows, slots, pool

    def plain(self) -> KeyValueStore:
        """Return the same keys and values, without what the buffer has besides."""
        rows, slots, held = slice(self.num_rows), slice(self.slots), self.held
        return KeyValueStore([one[rows, slots] for one in held.keys], [one[rows, slots] for one in held.values])

    def rows(self, index_B: Tensor) -> "StaticStore":
        """Return a copy with the rows of `index_B`, in that order, repeats allowed."""
        return self._changed(len(index_B), self.slots, lambda kept: kept.index_select(0, index_B))

    def gathered(self, index_B: Tensor, slots_BS: Tensor) -> "StaticStore":
        """Return a copy with the rows of `index_B`, whose slots hold what their slots `slots_BS` hold here."""
        rows, slots = slots_BS.shape
        return self._changed(rows, slots, lambda kept: kept[index_B[:, None], slots_BS])

    def grown(self, slots: int) -> "StaticStore":
        """Return a copy with more slots, which hold nothing yet."""
        return self._changed(self.num_rows, slots, lambda kept: kept)

    def extended(self, rows: int) -> "StaticStore":
        """Return a copy with so many more rows behind its own, which hold nothing yet."""
        return self._changed(self.num_rows + rows, self.slots, lambda kept: kept)

    def joined(self, other: "StaticStore") -> "StaticStore":
        """Return a copy with the rows of another store, of as many slots, behind its own."""
        made = self.extended(other.num_rows)
        pairs = zip((*made.held.keys, *made.held.values), (*other.held.keys, *other.held.values), strict=True)
        for new, kept in pairs:
            new[self.num_rows : made.num_rows, : other.slots] = kept[: other.num_rows, : other.slots]
        return made

    def move(self, row_N: Tensor, from_N: Tensor, to_N: Tensor) -> None:
        """Have the slots `to_N` of rows hold what their slots `from_N` held before, in place."""
        self.held.move(row_N, from_N, to_N)

    def _changed(self, rows: int, slots: int, change: Callable[[Tensor], Tensor]) -> "StaticStore":
        made = self._pool.store(rows, slots)
        pairs = zip((*made.held.keys, *made.held.values), (*self.held.keys, *self.held.values), strict=True)
        for new, old in pairs:
            kept = change(old[: self.num_rows, : self.slots])
            new[: kept.shape[0], : kept.shape[1]] = kept
        return made
