"""Draws of the bootstrap against the law that they are to have, and what may and may not be shared."""

import numpy as np
import pytest

from harness.results import resampling
from harness.results.resampling import draw_counts, resampled_means


@pytest.mark.parametrize("n", [1, 2, 5, 300, 700])
def test_draws_are_multinomial(n: int):
    """Guards the sums, the means 1, the variances 1 - 1/n and the covariances -1/n, of few and of many samples."""
    counts = draw_counts(n, 0, 10_000).astype(float)
    assert (counts.sum(1) == n).all()
    assert counts.mean(0) == pytest.approx(np.ones(n), abs=0.06)
    assert counts.var(0).mean() == pytest.approx(1 - 1 / n, rel=0.02, abs=1e-12)
    if n > 1:
        assert np.cov(counts.T)[~np.eye(n, dtype=bool)].mean() == pytest.approx(-1 / n, rel=0.05)


def test_the_law_of_one_count_is_binomial():
    """Guards the table behind many samples: of 700, shares of 0, 1, 2, 3 draws are those of Bin(700, 1/700)."""
    counts = draw_counts(700, 3, 10_000)
    p = 1 / 700
    expected = [(1 - p) ** 700, (1 - p) ** 699, 699 / 2 * p * (1 - p) ** 698, 699 * 698 / 6 * p**2 * (1 - p) ** 697]
    assert [(counts == k).mean() for k in range(4)] == pytest.approx(expected, abs=5e-4)


def test_means_are_those_of_the_drawn_samples():
    """Guards the centring and single precision against a sum in double precision."""
    values = np.random.default_rng(1).normal(1e4, 1.0, (300, 2))
    direct = draw_counts(300, 0, 1000).astype(float) @ values / 300
    assert resampled_means(values, replicates=1000) == pytest.approx(direct, abs=1e-5)


def test_a_column_without_spread_stays_so():
    """Guards intervals of what is equal in every sample: they have no width at all."""
    assert (resampled_means(np.full((40, 1), 0.1), replicates=100) == 0.1).all()


def test_parts_are_drawn_independently_and_remembered_alike():
    """Guards against tasks of one size that share their draws, and against another answer the second time."""
    assert not np.array_equal(draw_counts(50, 0, 100), draw_counts(50, 1, 100))
    first = draw_counts(50, 0, 100).copy()
    resampling.forget()
    assert np.array_equal(draw_counts(50, 0, 100), first)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch):
    """Guards memory: the oldest draws are forgotten, those that were just asked for never."""
    monkeypatch.setattr(resampling, "_REMEMBERED_BYTES", 25_000)
    for n in (100, 110, 120):
        draw_counts(n, 0, 100)
    assert list(resampling._remembered) == [(110, 0, 100), (120, 0, 100)]
    draw_counts(1000, 0, 100)
    assert list(resampling._remembered) == [(1000, 0, 100)]
