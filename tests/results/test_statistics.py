"""Golden vectors of the statistics, and what pairing must and must not do."""

import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest

from harness.results.statistics import Estimate, PairedMeans, mcnemar, paired_means, wilson


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


def _pair(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> PairedMeans:
    one, other = ([np.array(task, dtype=float)[:, None] for task in setting] for setting in (first, second))
    return paired_means(one, other)


def test_a_ratio_is_one_of_sums() -> None:
    """Guards against the mean of ratios: here (4 / 1 + 8 / 4) / 2 = 3 instead of 12 / 5."""
    assert _pair([[4, 8]], [[1, 4]]).ratio(0).value == pytest.approx(2.4)


def test_pairing_removes_what_varies_between_samples() -> None:
    """Guards against two independent resamplings: a constant ratio has an interval without width."""
    seconds = np.geomspace(0.1, 10, 20)
    ratio = _pair([2 * seconds], [seconds]).ratio(0)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((2, 2, 2))


def test_columns_are_kept_apart() -> None:
    """Guards the layout of the replicates: an unknown column must not reach its neighbour."""
    first, second = np.array([[2.0, np.nan], [4.0, 1.0]]), np.array([[1.0, 1.0], [2.0, 1.0]])
    pair = paired_means([first], [second])
    assert pair.ratio(0) == Estimate(value=2, low=2, high=2)
    assert np.isnan(pair.ratio(1).value)


def test_tasks_weigh_equally_whatever_their_size() -> None:
    """Guards against a pooled mean, which would give 0.25 here, and against resampling across tasks."""
    assert _pair([[0], [0, 0, 0]], [[1], [0, 0, 0]]).gain(0) == Estimate(value=0.5, low=0.5, high=0.5)


def test_the_interval_is_that_of_the_sampling_distribution() -> None:
    """Guards the width: the difference of n = 100 answers, 20 lost and 10 gained, has standard error 0.0539."""
    before, after = np.repeat([1, 0, 1], [20, 10, 70]), np.repeat([0, 1, 1], [20, 10, 70])
    drop = _pair([before], [after]).gain(0)
    assert drop.value == pytest.approx(-0.1)
    assert (drop.low, drop.high) == pytest.approx((-0.1 - 1.96 * 0.0539, -0.1 + 1.96 * 0.0539), abs=0.011)


def test_intervals_are_reproducible() -> None:
    """Guards against a global generator: a report that is built twice is the same."""
    data = [[0, 1, 2, 3]], [[4, 3, 2, 1]]
    assert _pair(*data).ratio(0) == _pair(*data).ratio(0)


def test_a_ratio_to_nothing_has_no_interval() -> None:
    """Guards against infinite speedups over a setting that made no calls."""
    ratio = _pair([[1, 1]], [[0, 0]]).ratio(0)
    assert np.isnan(ratio.value)
    assert ratio.low is ratio.high is None


@pytest.mark.parametrize(("first", "n"), [(0, 1), (1, 1), (3, 7), (499, 500), (0, 40), (661, 1319)])
def test_formulas_that_are_written_out_are_those_of_the_library(first: int, n: int) -> None:
    """Guards what is spared the import of a library of statistics against differing from it."""
    from scipy.stats import binom, binomtest

    interval = binomtest(first, n).proportion_ci(method="wilson")
    assert (wilson(first, n).low, wilson(first, n).high) == (interval.low, interval.high)
    lost, gained = first, n - first
    tail = 2 * binom.cdf(min(lost, gained), n, 0.5)
    assert mcnemar(lost, gained).exact == pytest.approx(min(1.0, tail), rel=1e-12)
    assert mcnemar(lost, gained).mid_p == pytest.approx(min(1.0, tail - binom.pmf(min(lost, gained), n, 0.5)))


def test_mcnemar_needs_no_library_of_statistics() -> None:
    """Guards the start of commands: two settings are compared without importing scipy."""
    code = "import sys; from harness.results.statistics import mcnemar; mcnemar(0, 0); mcnemar(3, 9)"
    code += "; print('scipy' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert told.stdout == "False\n"


@pytest.mark.parametrize(("gains", "p"), [([0.0] * 9, 1.0), ([1.0] * 9, 2 / 10_001), ([1.0, -1.0] * 20, 1.0)])
def test_a_bootstrap_has_a_p_value(gains: list[float], p: float) -> None:
    """Guards its ends, by hand: no gain at all, the same gain everywhere, and as much as is lost."""
    zeros = np.zeros((len(gains), 1))
    found = paired_means([zeros], [np.array(gains)[:, None]]).gain_p(0)
    assert found == pytest.approx(p, abs=1e-9 if p < 0.5 else 0.15)
