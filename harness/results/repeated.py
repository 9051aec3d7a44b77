"""Several answers per problem and several seeds per setting, and how far numbers spread over them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np

from harness.results.resampling import REPLICATES, resampled_means
from harness.results.statistics import Estimate


def num_samples(runs: Iterable[Mapping[str, Any]]) -> int:
    """Return how many samples runs have answered, each counted once: those of a task ask the same ones again."""
    most: dict[object, int] = {}
    for run in runs:
        key = run["model"], run["task"]
        most[key] = max(most.get(key, 0), run["n"] or 0)
    return sum(most.values())


def pass_at_k(attempts: int, correct: int, k: int) -> float:
    """Return the chance that of `k` of a problem's attempts at least one is correct: 1 - C(n - c, k) / C(n, k).

    Unbiased for the chance of solving it in `k` tries (Chen et al., arXiv:2107.03374, section 2.1).
    """
    if not 1 <= k <= attempts:
        raise ValueError(f"k={k}: must be from 1 to the number of attempts, {attempts}")
    from scipy.special import comb

    return 1.0 - float(comb(attempts - correct, k, exact=True) / comb(attempts, k, exact=True))


def mean_pass_at_k(attempts: Sequence[int], correct: Sequence[int], k: int) -> Estimate:
    """Return the mean over problems with its 95 % interval, which resamples problems with all of their attempts."""
    each_N = [pass_at_k(n, c, k) for n, c in zip(attempts, correct, strict=True)]
    means_R = resampled_means(np.array(each_N)[:, None], replicates=REPLICATES)[:, 0]
    low, high = np.percentile(means_R, [2.5, 97.5])
    return Estimate(value=fmean(each_N), low=float(low), high=float(high))


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A number over seeds: `mean` with Student's 95 % interval, standard `deviation`, smallest and largest.

    One seed has neither interval nor deviation.
    """

    seeds: int
    mean: Estimate
    deviation: float | None
    smallest: float
    largest: float


def over_seeds(values: Sequence[float]) -> Spread:
    """Return how one number spreads over the seeds of a setting: one value each, at least one."""
    mean, few = fmean(values), len(values) < 2
    deviation = None if few else stdev(values)
    half = None if deviation is None else _student(len(values)) * deviation / len(values) ** 0.5
    return Spread(
        seeds=len(values),
        mean=Estimate(
            value=mean, low=None if half is None else mean - half, high=None if half is None else mean + half
        ),
        deviation=deviation,
        smallest=min(values),
        largest=max(values),
    )


def _student(n: int) -> float:
    from scipy.stats import t

    return float(t.ppf(0.975, n - 1))


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """Two samples of times: the two-sided p-value of equal laws, and the chance that the second is smaller.

    The chance counts ties as half (the U statistic over the number of pairs).
    """

    p_value: float
    second_smaller: float


def mann_whitney(first: Sequence[float], second: Sequence[float]) -> Ranked:
    """Compare two samples of times by rank; exact for small ones without ties. Both hold at least one."""
    from scipy.stats import mannwhitneyu

    found = mannwhitneyu(first, second, alternative="two-sided", method="auto")
    return Ranked(p_value=float(found.pvalue), second_smaller=float(found.statistic) / (len(first) * len(second)))


def hierarchical_means(values: Sequence[Sequence[float]], replicates: int = REPLICATES) -> Estimate:
    """Return the mean over samples of their repetitions' means, and an interval that knows both sources of spread.

    Samples are drawn first, then repetitions within each: repeated seeds make neither source smaller than it is. Every
    sample has the same number of repetitions.
    """
    values_NK = np.asarray(values, dtype=np.float64)
    n, repetitions = values_NK.shape
    generator = np.random.default_rng(n)
    means_R = np.empty(replicates)
    for at in range(replicates):
        rows = generator.integers(n, size=n)
        means_R[at] = values_NK[rows[:, None], generator.integers(repetitions, size=(n, repetitions))].mean()
    low, high = np.percentile(means_R, [2.5, 97.5])
    return Estimate(value=float(values_NK.mean()), low=float(low), high=float(high))
