"""Speed as the gate sees it: CPU time of a change over CPU time without it, measured in the same job, round by round.

A round runs the base, the change and the base again. Load, clocks and neighbours move all three; what base against
itself shows is what a ratio may show without meaning anything. A single time is never looked at.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from statistics import median

LEAST = 0.05
"""The smallest slowdown that is told, as a share."""

SEEN = 0.15
"""The slowdown that has to be seen: rounds are added until it would be."""

FEWEST_ROUNDS = 5
_SPREADS = 3.0
_SURE = 2.0
# Of a normal law: the standard deviation over the median absolute deviation, and the median's error over the mean's.
_DEVIATION, _OF_MEDIAN = 1.4826, 1.2533


@dataclass(frozen=True, kw_only=True)
class Round:
    """CPU seconds by setting, of the base, of the change, and of the base again."""

    base: Mapping[str, float]
    head: Mapping[str, float]
    again: Mapping[str, float]


class Pace(Enum):
    """How the change compares with its base; `undecided` where a slowdown of 15 % could not be seen."""

    SLOWER = "slower"
    FASTER = "faster"
    ALIKE = "alike"
    UNDECIDED = "undecided"


@dataclass(frozen=True, kw_only=True)
class Speed:
    """A setting over all rounds: the median `ratio` of change to base, and the standard error of base to itself."""

    setting: str
    rounds: int
    ratio: float
    spread: float

    @property
    def allowed(self) -> float:
        """The share by which the ratio may differ from 1."""
        return max(LEAST, _SPREADS * self.spread)

    @property
    def sees(self) -> bool:
        """Whether a slowdown of 15 % would be told from none."""
        return self.allowed + _SURE * self.spread <= SEEN

    @property
    def pace(self) -> Pace:
        """What the ratio means; a slowdown beyond what is allowed is one, however noisy the rest."""
        if self.ratio > 1 + self.allowed:
            return Pace.SLOWER
        if not self.sees:
            return Pace.UNDECIDED
        return Pace.FASTER if self.ratio < 1 / (1 + self.allowed) else Pace.ALIKE


def speeds(rounds: Sequence[Round]) -> list[Speed]:
    """Return the speed of every setting that was timed in all rounds on both sides, in order of appearance."""
    timed = [one for one in rounds[0].head if all(_seconds(each, one) for each in rounds)] if rounds else []
    return [_speed(one, rounds) for one in timed]


def _seconds(one: Round, setting: str) -> bool:
    return all(side.get(setting, 0) > 0 for side in (one.base, one.head, one.again))


def _speed(setting: str, rounds: Sequence[Round]) -> Speed:
    # The base on both sides of the change: what drifts evenly cancels.
    ratios = [2 * one.head[setting] / (one.base[setting] + one.again[setting]) for one in rounds]
    itself = [one.again[setting] / one.base[setting] for one in rounds]
    return Speed(setting=setting, rounds=len(rounds), ratio=median(ratios), spread=_error_of_median(itself))


def _error_of_median(values: Sequence[float]) -> float:
    middle = median(values)
    deviation = _DEVIATION * median(abs(value - middle) for value in values)
    return _OF_MEDIAN * deviation / math.sqrt(len(values))


def enough(rounds: Sequence[Round]) -> bool:
    """Say whether no more rounds are needed: of every setting a slowdown of 15 % would be seen, or one is."""
    found = speeds(rounds)
    return len(rounds) >= FEWEST_ROUNDS and all(one.sees or one.pace is Pace.SLOWER for one in found)
