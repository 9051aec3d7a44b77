"""How many rows are decoded at once."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Room:
    """At most `rows`, and if `tokens` is given at most so many positions, padding included; one row fits always."""

    rows: int
    tokens: int | None = None

    def beside(self, going_on: int, width: int, lengths: Sequence[int]) -> int:
        """Return how many of the next rows, of these lengths, begin beside rows that go on, of that width."""
        count, widest = 0, width if going_on else 0
        for length in lengths[: max(0, self.rows - going_on)]:
            widest = max(widest, length)
            if self.tokens is not None and going_on + count and (going_on + count + 1) * widest > self.tokens:
                break
            count += 1
        return count

    def halved(self) -> "Room":
        """Return half of it."""
        return Room(rows=max(1, self.rows // 2), tokens=None if self.tokens is None else self.tokens // 2)
