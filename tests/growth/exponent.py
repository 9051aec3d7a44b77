"""With which power of a size something grows."""

from collections.abc import Sequence
from math import log


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return the slope of a line through logarithms of values over those of sizes, by least squares.

    Raises ValueError for fewer than two sizes, or for what has no logarithm.
    """
    xs, ys = [log(size) for size in sizes], [log(value) for value in values]
    middle = sum(xs) / len(xs) if xs else 0.0
    spread = sum((x - middle) ** 2 for x in xs)
    if len(xs) != len(ys) or not spread:
        raise ValueError("an exponent is told from two different sizes or more, with a value for each")
    return sum((x - middle) * y for x, y in zip(xs, ys, strict=True)) / spread


def upper_half(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return the exponent of the larger half of sizes, at least three, where what is constant weighs least."""
    most = max(3, (len(sizes) + 1) // 2)
    return exponent(sizes[-most:], values[-most:])
