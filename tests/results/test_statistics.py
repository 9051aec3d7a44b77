"""Golden vectors of the statistics, and what pairing must and must not do."""

import numpy as np
import pytest

from harness.results.statistics import mcnemar, paired_difference, paired_ratio, wilson


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.277533),
        (10, 10, 0.722467, 1.0),
        (80, 100, 0.711171, 0.866633),
        (128, 164, 0.711120, 0.837016),
        (1035, 1319, 0.761693, 0.806024),
        (1, 3, 0.061492, 0.792340),
    ],
)
def test_wilson_golden_vectors(correct: int, n: int, low: float, high: float) -> None:
    """Guards against a normal interval, which is empty at 0 and 1."""
    interval = wilson(correct, n)
    assert (interval.value, interval.low, interval.high) == pytest.approx((correct / n, low, high), abs=1e-6)


@pytest.mark.parametrize(
    ("lost", "gained", "exact", "mid_p"),
    [
        (10, 2, 0.038574, 0.022461),
        (25, 13, 0.072951, 0.053252),
        (8, 0, 0.007812, 0.003906),
        (40, 22, 0.030016, 0.022575),
        (60, 40, 0.056888, 0.046044),
        (3, 1, 0.625, 0.375),
        (5, 5, 1.0, 1.0),
        (0, 0, 1.0, 1.0),
    ],
)
def test_mcnemar_golden_vectors(lost: int, gained: int, exact: float, mid_p: float) -> None:
    """Guards both p-values, and that the order of the two settings does not matter."""
    for test in (mcnemar(lost, gained), mcnemar(gained, lost)):
        assert (test.exact, test.mid_p) == pytest.approx((exact, mid_p), abs=1e-6)


def test_a_ratio_is_one_of_sums() -> None:
    """Guards against the mean of ratios: here 0.5 * (4 / 1 + 8 / 4) = 3 instead of 12 / 5."""
    assert paired_ratio([np.array([4.0, 8.0])], [np.array([1.0, 4.0])]).value == pytest.approx(2.4)


def test_pairing_removes_what_varies_between_samples() -> None:
    """Guards against two independent resamplings: a constant ratio has an interval without width."""
    seconds = np.geomspace(0.1, 10, 20)
    ratio = paired_ratio([2 * seconds], [seconds])
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((2, 2, 2))


def test_tasks_weigh_equally_whatever_their_size() -> None:
    """Guards against a pooled mean, which would give 0.25 here, and against resampling across tasks."""
    gain = paired_difference([np.ones(1), np.zeros(3)], [np.zeros(1), np.zeros(3)])
    assert (gain.value, gain.low, gain.high) == (0.5, 0.5, 0.5)


def test_the_interval_is_that_of_the_sampling_distribution() -> None:
    """Guards the width: the difference of n = 100 answers, 20 lost and 10 gained, has standard error 0.0539."""
    before = np.repeat([1.0, 0.0, 1.0], [20, 10, 70])
    after = np.repeat([0.0, 1.0, 1.0], [20, 10, 70])
    drop = paired_difference([after], [before])
    assert drop.value == pytest.approx(-0.1)
    assert (drop.low, drop.high) == pytest.approx((-0.1 - 1.96 * 0.0539, -0.1 + 1.96 * 0.0539), abs=0.011)


def test_intervals_are_reproducible() -> None:
    """Guards against a global generator: a report that is built twice is the same."""
    data = [np.arange(7.0)], [np.arange(7.0)[::-1].copy() + 1]
    assert paired_ratio(*data) == paired_ratio(*data)


def test_a_ratio_to_nothing_has_no_interval() -> None:
    """Guards against infinite speedups over a baseline that made no calls."""
    ratio = paired_ratio([np.ones(2)], [np.zeros(2)])
    assert np.isnan(ratio.value) and ratio.low is None and ratio.high is None
