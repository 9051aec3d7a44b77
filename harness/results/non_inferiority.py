"""Whether a setting loses at most so much: the rule, the halves that it is applied to, and what they can show.

Differences of accuracy are shares here; margins are, too.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from harness.results.comparison import Measured, by_sample, discordant
from harness.results.statistics import Estimate, paired_means

_Z_95, _Z_80 = 1.959963984540054, 0.8416212335729143
"""Quantiles of the normal law: two-sided 95 %, and a power of 80 %."""

Keys = frozenset[tuple[str, str]]


class Outcome(Enum):
    """`yes`: at most the margin is lost; `no`: more is lost; `undecided`: the samples show neither."""

    YES = "yes"
    NO = "no"
    UNDECIDED = "undecided"


@dataclass(frozen=True, kw_only=True)
class Halves:
    """Samples to search on and samples to report on, by task and name."""

    search: Keys
    report: Keys


def halves(measured: Iterable[Measured], seed: int) -> Halves:
    """Split the samples of runs by a seeded digest of their names, within each task; an odd one is reported on."""
    tasks: dict[str, set[str]] = {}
    for one in measured:
        tasks.setdefault(one.run["task"], set()).update(one.samples["sample_id"].to_pylist())
    search: set[tuple[str, str]] = set()
    for task, names in tasks.items():
        ordered = sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{task}/{name}".encode()).digest())
        search |= {(task, name) for name in ordered[: len(ordered) // 2]}
    every = {(task, name) for task, names in tasks.items() for name in names}
    return Halves(search=frozenset(search), report=frozenset(every - search))


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A setting against its baseline on `n` samples: what it costs, and the paired difference of accuracies.

    `cost` and `base_cost` are means of the objective, `ratio` is how many times less the setting costs; `changed` is
    the share of samples whose answers are right more or less often.
    """

    n: int
    accuracy: float
    difference: Estimate
    changed: float
    cost: float
    base_cost: float
    ratio: Estimate

    def outcome(self, margin: float) -> Outcome:
        """Apply the rule: the interval of the difference lies above minus the margin, below it, or on both sides.

        So few samples that none of them could show a loss of the margin decide nothing.
        """
        assert self.difference.low is not None and self.difference.high is not None
        if self.difference.high < -margin:
            return Outcome.NO
        return Outcome.YES if self.difference.low > -margin and margin >= least_margin(self.n) else Outcome.UNDECIDED

    @property
    def shown_margin(self) -> float:
        """The margin within which as many samples show a setting that loses nothing to be, with a power of 80 %."""
        return max(least_margin(self.n), (_Z_95 + _Z_80) * math.sqrt(self.changed / self.n))


def least_margin(n: int) -> float:
    """Return the loss that `n` samples cannot exclude although none of them is lost: z^2 / (n + z^2), Tango's score."""
    return _Z_95**2 / (n + _Z_95**2)


def compared(runs: Sequence[Measured], base: Sequence[Measured], samples: Keys, objective: str) -> Compared:
    """Compare runs of a setting with as many of its baseline on some of the samples that both answered.

    Seeds of a sample are one mean, tasks weigh equally.
    """
    first, second = (_among(by_sample(side), samples) for side in (base, runs))
    pair = paired_means([_stack(one, objective) for one in first], [_stack(one, objective) for one in second])
    n = sum(len(one.samples) for one in second)
    return Compared(
        n=n,
        accuracy=float(pair.second_C[0]),
        difference=pair.gain(0),
        changed=sum(discordant(first, second)) / n,
        cost=float(pair.second_C[1]),
        base_cost=float(pair.first_C[1]),
        ratio=pair.ratio(1),
    )


def _among(cells: Iterable[Measured], samples: Keys) -> list[Measured]:
    kept = [
        replace(one, samples=one.samples.filter([(one.run["task"], name) in samples for name, _ in one.keys]))
        for one in sorted(cells, key=lambda one: one.run["task"])
    ]
    return [one for one in kept if len(one.samples)]


def _stack(one: Measured, objective: str) -> "np.ndarray":
    return np.stack([one.column("correct"), one.column(objective)], axis=1)


def best_of(trials: Sequence[Compared], margin: float) -> int:
    """Return which trial is the cheapest among those whose interval lies above minus the margin, the first of equals.

    Where none does, it is the one whose loss is bounded most closely. Whether the samples are enough is asked of the
    other half.
    """
    good = [at for at, one in enumerate(trials) if (one.difference.low or 0.0) > -margin]
    if good:
        return min(good, key=lambda at: trials[at].cost)
    return max(range(len(trials)), key=lambda at: trials[at].difference.low or 0.0)
