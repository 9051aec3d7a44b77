"""Intervals and tests: Wilson for one accuracy, McNemar and the paired bootstrap for two settings.

Shapes: N samples, C columns (quantities), R replicates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.results.resampling import REPLICATES, Floats, resampled_means

_Z_95 = 1.959963984540054
"""The 97.5 % quantile of the normal law."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value with the ends of its 95 % interval, which are None where there is no interval."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """Two-sided p-values of equal accuracy: `exact` for gates, `mid_p` for reports."""

    exact: float
    mid_p: float


def wilson(correct: int, n: int) -> Estimate:
    """Return the share correct with its Wilson 95 % interval; `n` >= 1.

    Written out, since importing a library of statistics takes longer than decoding a small run.
    """
    share, squared = correct / n, _Z_95**2
    middle = (2 * correct + squared) / (2 * (n + squared))
    reach = _Z_95 / (2 * (n + squared)) * math.sqrt(4 * n * share * (1 - share) + squared)
    low = 0.0 if correct == 0 else middle - reach
    high = 1.0 if correct == n else middle + reach
    return Estimate(value=share, low=low, high=high)


def mcnemar(lost: int, gained: int) -> McNemar:
    """Compare two settings by their discordant samples: answers that the second lost and gained.

    Agreement on every sample gives 1 for both p-values.
    """
    smaller, discordant = min(lost, gained), lost + gained
    ways = [1]
    for k in range(smaller):
        # The next binomial coefficient from the last one, at a hundredth of what working out each anew costs.
        ways.append(ways[-1] * (discordant - k) // (k + 1))
    tail, equal = 2 * sum(ways) / 2**discordant, ways[-1] / 2**discordant
    return McNemar(exact=min(1.0, tail), mid_p=min(1.0, tail - equal))


@dataclass(frozen=True, kw_only=True)
class PairedMeans:
    """Column means of two settings over the same samples, and their bootstrap replicates."""

    first_C: Floats
    second_C: Floats
    first_RC: Floats
    second_RC: Floats

    def ratio(self, column: int) -> Estimate:
        """Return first over second: with one task the ratio of sums. NaN without interval over nothing."""
        top, bottom = self.first_C[column], self.second_C[column]
        if bottom == 0 or np.isnan(top / bottom):
            return Estimate(value=float("nan"), low=None, high=None)
        with np.errstate(divide="ignore", invalid="ignore"):
            return _estimate(float(top / bottom), self.first_RC[:, column] / self.second_RC[:, column])

    def gain(self, column: int) -> Estimate:
        """Return second minus first."""
        value = float(self.second_C[column] - self.first_C[column])
        return _estimate(value, self.second_RC[:, column] - self.first_RC[:, column])

    def gain_p(self, column: int) -> float:
        """Return the two-sided p-value of no gain: twice the smaller share of replicates on either side of it."""
        gains_R = self.second_RC[:, column] - self.first_RC[:, column]
        smaller = min(int((gains_R <= 0).sum()), int((gains_R >= 0).sum()))
        return min(1.0, 2 * (smaller + 1) / (len(gains_R) + 1))


def paired_means(first: Sequence[Floats], second: Sequence[Floats], replicates: int = REPLICATES) -> PairedMeans:
    """Resample two settings together, 10 000 times from a fixed seed.

    Both hold one [N, C] array per task, equal in samples and their order. Samples are drawn within a task, once
    for all columns of both settings, which is what pairs them; tasks weigh equally, whatever their N.
    """
    cells = [np.concatenate(pair, axis=1) for pair in zip(first, second, strict=True)]
    means = np.mean([cell.mean(axis=0) for cell in cells], axis=0)
    draws = np.mean([resampled_means(cell, part, replicates) for part, cell in enumerate(cells)], axis=0)
    columns = first[0].shape[1]
    return PairedMeans(
        first_C=means[:columns],
        second_C=means[columns:],
        first_RC=draws[:, :columns],
        second_RC=draws[:, columns:],
    )


def _estimate(value: float, replicates_R: Floats) -> Estimate:
    low, high = np.percentile(replicates_R, [2.5, 97.5])
    return Estimate(value=value, low=float(low), high=float(high))
