"""Means with the ends of their 95 % intervals."""

from collections.abc import Sequence

from harness.results.figures.frame import Frame
from harness.results.statistics import Estimate, wilson


def mean_of(values: "Sequence[float] | Frame") -> Estimate:
    """Return a mean with Student's interval, without one for fewer than two values."""
    import numpy as np
    from scipy.stats import t

    array = np.asarray(values, dtype=float)
    mean = float(array.mean())
    if len(array) < 2:
        return Estimate(value=mean, low=None, high=None)
    half = float(t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / np.sqrt(len(array)))
    return Estimate(value=mean, low=mean - half, high=mean + half)


def share_of(values: "Sequence[float] | Frame") -> Estimate:
    """Return the mean of shares in [0, 1], one per sample, with Wilson's interval."""
    share, n = sum(map(float, values)) / len(values), len(values)
    ends = wilson(round(share * n), n)
    return Estimate(value=share, low=ends.low, high=ends.high)
