"""What policies keep of each row between steps.

Shapes: B rows, L positions, R places of the response.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self, overload

import torch
from torch import Tensor

from harness.engine.shared.positional import behind, levelled, moved, spread


class Memory(dict[str, Tensor]):
    """Tensors by key, whose first dimension is the row.

    A key ends with its tensor's shape; dimensions L (positions) and R (places of the response) grow with the canvas and
    move with insertions, and what is new there is 0. Tensors are replaced, never changed in place, so that copies share
    them. Rows that have joined the others since a key was written have nothing under it: `get` gives its default for
    them, and the key itself zeros. Keys that begin with "cache." tell of a canvas's stores, and go where these go.
    """

    def __init__(self, kept: Mapping[str, Tensor] | None = None, absent: Mapping[str, Tensor] | None = None) -> None:
        super().__init__({} if kept is None else kept)
        self._absent_B = {} if absent is None else dict(absent)

    def __setitem__(self, key: str, tensor: Tensor) -> None:
        super().__setitem__(key, tensor)
        self._absent_B.pop(key, None)

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        self._absent_B.pop(key, None)

    def __ior__(self, others: Mapping[str, Tensor]) -> Self:  # type: ignore[override]
        self.update(others)
        return self

    def update(self, others: Mapping[str, Tensor], /) -> None:  # type: ignore[override]
        """Keep what `others` does; rows that had nothing under these keys have it now."""
        for key, tensor in others.items():
            self[key] = tensor

    @overload
    def get(self, key: str, default: None = None) -> Tensor | None: ...
    @overload
    def get(self, key: str, default: Tensor) -> Tensor: ...
    @overload
    def get(self, key: str, default: float) -> Tensor | float: ...
    def get(self, key: str, default: Any = None) -> Any:
        """Return what is kept under a key, and the default of rows that have nothing there, or of all."""
        kept = super().get(key)
        if kept is None:
            return default
        absent_B = self._absent_B.get(key) if self._absent_B else None
        if absent_B is None or default is None:
            return kept
        return torch.where(spread(absent_B, kept), default, kept)

    def complete(self, key: str) -> bool:
        """Say whether something is kept of every row under a key."""
        return key in self and key not in self._absent_B

    def is_of(self, other: "Memory") -> bool:
        """Say whether both keep the same tensors under the same keys."""
        return all(
            one.keys() == two.keys() and all(one[key] is two[key] for key in one)
            for one, two in zip(self._both, other._both, strict=True)
        )

    def copy(self) -> "Memory":
        """Return a copy that can be changed without changing this one."""
        return Memory(self, self._absent_B)

    def rows(self, index_D: Tensor) -> "Memory":
        """Return what is kept of the rows of `index_D`, in that order, repeats allowed."""
        kept, absent = ({key: one.index_select(0, index_D) for key, one in each.items()} for each in self._both)
        return Memory(kept, absent)

    @property
    def _both(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return self, self._absent_B

    @classmethod
    def joined(cls, parts: Sequence["Memory"], rows: Sequence[int]) -> "Memory":
        """Return what is kept of the rows of all parts, so many of each, behind each other."""
        kept, absent, counted = {}, {}, list(zip(parts, rows, strict=True))
        for key in dict.fromkeys(key for part in parts for key in part):
            some = next(part[key] for part in parts if key in part)
            each = [part[key] if key in part else some.new_zeros(n, *some.shape[1:]) for part, n in counted]
            kept[key] = torch.cat(levelled(each))
            if any(key not in part or key in part._absent_B for part in parts):
                absent[key] = torch.cat([part._absent(key, n, some) for part, n in counted])
        return cls(kept, absent)

    def _absent(self, key: str, rows: int, like: Tensor) -> Tensor:
        if key in self._absent_B:
            return self._absent_B[key]
        return torch.full((rows,), key not in self, device=like.device)

    def only_cached(self) -> "Memory":
        """Return what tells of stores."""
        kept, absent = ({key: one for key, one in each.items() if key.startswith("cache.")} for each in self._both)
        return Memory(kept, absent)

    def with_(self, other: "Memory") -> "Memory":
        """Return this memory with what `other` keeps in place of its own."""
        absent = {key: one for key, one in self._absent_B.items() if key not in other}
        return Memory({**self, **other}, absent | other._absent_B)

    def where(self, rows_B: Tensor, other: "Memory") -> "Memory":
        """Return this memory in the rows marked in `rows_B`, and `other` in the rest; keys of either alone are in both.

        The shorter of two tensors gets zeros behind it, as when parts are joined.
        """
        kept, absent = {}, {}
        for key in dict.fromkeys([*self, *other]):
            some = self[key] if key in self else other[key]
            each = levelled([one[key] if key in one else torch.zeros_like(some) for one in (self, other)])
            kept[key] = torch.where(spread(rows_B, some), *each)
            if any(key not in one or key in one._absent_B for one in (self, other)):
                absent[key] = torch.where(rows_B, *(one._absent(key, len(rows_B), some) for one in (self, other)))
        return Memory(kept, absent)

    def widen(self, width: int, places: int) -> None:
        """Make room for `width` positions and `places` of the response."""
        for key, dim, letter in self.positional:
            size = width if letter == "L" else places
            super().__setitem__(key, behind(self[key], dim, size))

    def insert(self, position_B: Tensor, prompt_length_B: Tensor, count_B: Tensor) -> None:
        """Move what is kept of the position `position_B` of each row, and of all behind, by `count_B`."""
        for key, dim, letter in self.positional:
            at_B = position_B if letter == "L" else position_B - prompt_length_B
            super().__setitem__(key, moved(self[key], dim, at_B, count_B, 0))

    @property
    def positional(self) -> list[tuple[str, int, str]]:
        """Keys and dimensions that count positions (L) or places (R), by the letters that keys end with."""
        return [(key, dim, one) for key in self for dim, one in enumerate(key.rpartition("_")[2]) if one in "LR"]
