"""Means with the ends of their 95 % intervals, in which a sample counts once."""

from collections.abc import Sequence

from harness.results.figures.frame import Frame
from harness.results.statistics import Estimate, wilson

SAMPLE = ("model", "task", "sample_id")
"""What tells a sample from others: runs that ask it again, with other seeds or settings, make no further one."""


def by_sample(part: Frame, column: str) -> Frame:
    """Return a column without what is not known, one value per sample: the mean over the runs that ask it."""
    return part.dropna(subset=[column]).astype({column: float}).groupby([*SAMPLE])[column].mean()


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


def share_of(values: "Sequence[float] | Frame", weights: "Sequence[float] | Frame | None" = None) -> Estimate:
    """Return the mean of shares in [0, 1] with Wilson's interval; `weights` say how much each counts, else one."""
    counted = [1.0] * len(values) if weights is None else [*map(float, weights)]
    share = sum(float(value) * weight for value, weight in zip(values, counted, strict=True)) / sum(counted)
    n = round(sum(counted))
    ends = wilson(round(share * n), n)
    return Estimate(value=share, low=ends.low, high=ends.high)
