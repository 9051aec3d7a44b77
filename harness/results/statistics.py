"""Intervals and tests: Wilson for one accuracy, McNemar and the paired bootstrap for two settings on the same samples.

Shapes: N samples, C columns (quantities), R replicates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

REPLICATES = 10_000
_SEED = 20_251_124
_CHUNK = 1_000

Floats = NDArray[np.float64]


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
    """Return the share correct with its Wilson 95 % interval; `n` >= 1."""
    from scipy.stats import binomtest

    interval = binomtest(correct, n).proportion_ci(method="wilson")
    return Estimate(value=correct / n, low=float(interval.low), high=float(interval.high))


def mcnemar(lost: int, gained: int) -> McNemar:
    """Compare two settings by their discordant samples: answers that the second lost and gained.

    Agreement on every sample gives 1 for both p-values.
    """
    from scipy.stats import binom

    smaller, discordant = min(lost, gained), lost + gained
    tail = 2 * float(binom.cdf(smaller, discordant, 0.5))
    return McNemar(exact=min(1.0, tail), mid_p=min(1.0, tail - float(binom.pmf(smaller, discordant, 0.5))))


def resampled_means(cells: Sequence[Floats], replicates: int = REPLICATES) -> Floats:
    """Return [R, C]: bootstrap replicates of the column means, samples drawn anew within each cell.

    `cells` holds one [N, C] array per task; cells weigh equally, whatever their N. All columns of a replicate come
    from the same draw of samples, which is what pairs them.
    """
    generator = np.random.default_rng(_SEED)
    return np.mean([_cell_means(values_NC, replicates, generator) for values_NC in cells], axis=0)


def _cell_means(values_NC: Floats, replicates: int, generator: np.random.Generator) -> Floats:
    n = len(values_NC)
    # How often each sample is drawn is multinomial: no index table of R x N x C values is needed.
    chunks = (min(_CHUNK, replicates - start) for start in range(0, replicates, _CHUNK))
    draws = (generator.multinomial(n, np.full(n, 1 / n), size=rows) for rows in chunks)
    return np.concatenate([drawn_RN @ values_NC for drawn_RN in draws]) / n


def paired_ratio(
    numerators: Sequence[Floats], denominators: Sequence[Floats], replicates: int = REPLICATES
) -> Estimate:
    """Return mean(numerator) / mean(denominator) over the same samples, with its percentile interval.

    One array per task in both, equal in length and order of samples. With one task this is the ratio of sums.
    """
    cells = _paired(numerators, denominators)
    top, bottom = np.mean([cell.mean(axis=0) for cell in cells], axis=0)
    if bottom == 0:
        return Estimate(value=float("nan"), low=None, high=None)
    draws = resampled_means(cells, replicates)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _estimate(float(top / bottom), draws[:, 0] / draws[:, 1])


def paired_difference(first: Sequence[Floats], second: Sequence[Floats], replicates: int = REPLICATES) -> Estimate:
    """Return mean(first) - mean(second) over the same samples, with its percentile interval.

    One array per task in both, equal in length and order of samples.
    """
    cells = _paired(first, second)
    one, other = np.mean([cell.mean(axis=0) for cell in cells], axis=0)
    draws = resampled_means(cells, replicates)
    return _estimate(float(one - other), draws[:, 0] - draws[:, 1])


def _paired(first: Sequence[Floats], second: Sequence[Floats]) -> list[Floats]:
    return [np.stack(pair, axis=1).astype(np.float64) for pair in zip(first, second, strict=True)]


def _estimate(value: float, replicates_R: Floats) -> Estimate:
    low, high = np.percentile(replicates_R, [2.5, 97.5])
    return Estimate(value=value, low=float(low), high=float(high))
