"""Closed forms and enumerations of what is said of repeated answers and seeds."""

from itertools import combinations

import numpy as np
import pytest

from harness.results.multiplicity import holm
from harness.results.repeated import hierarchical_means, mann_whitney, mean_pass_at_k, over_seeds, pass_at_k


@pytest.mark.parametrize(("attempts", "correct", "k"), [(5, 2, 1), (5, 2, 3), (6, 1, 4), (4, 0, 2), (4, 4, 4)])
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_attempt(attempts: int, correct: int, k: int):
    """Guards the estimator by enumeration, at its ends as well."""
    subsets = list(combinations(range(attempts), k))
    share = sum(any(one < correct for one in subset) for subset in subsets) / len(subsets)
    assert pass_at_k(attempts, correct, k) == pytest.approx(share)


@pytest.mark.parametrize("k", [0, 6])
def test_more_tries_than_attempts_are_refused(k: int):
    """Guards against an extrapolation that nobody asked for."""
    with pytest.raises(ValueError, match="from 1 to the number of attempts, 5"):
        pass_at_k(5, 2, k)


def test_pass_at_k_has_the_interval_of_a_mean_over_problems():
    """Guards the unit that is resampled: 100 problems, half of them solved always, have standard error 0.05."""
    found = mean_pass_at_k([4] * 100, [4, 0] * 50, 2)
    assert found.value == 0.5
    assert (found.low, found.high) == pytest.approx((0.5 - 1.96 * 0.05, 0.5 + 1.96 * 0.05), abs=0.01)


def test_seeds_spread_by_students_law():
    """Guards the interval by hand: 1, 2, 3 have deviation 1 and t = 4.3027 at 2 degrees of freedom."""
    found = over_seeds([1, 3, 2])
    half = 4.302653 / 3**0.5
    assert (found.mean.value, found.mean.low, found.mean.high) == pytest.approx((2, 2 - half, 2 + half), abs=1e-5)
    assert (found.seeds, found.deviation, found.smallest, found.largest) == (3, 1, 1, 3)


def test_one_seed_has_no_spread():
    """Guards against an interval of width 0, which would claim certainty."""
    found = over_seeds([0.5])
    assert (found.mean.value, found.mean.low, found.deviation) == (0.5, None, None)


@pytest.mark.parametrize(
    ("first", "second", "p", "smaller"),
    [([4, 5, 6], [1, 2, 3], 0.1, 1.0), ([1, 2, 3], [4, 5, 6], 0.1, 0.0), ([1, 4], [2, 3], 1.0, 0.5)],
)
def test_mann_whitney_counts_rankings(first: list[float], second: list[float], p: float, smaller: float):
    """Guards the exact law: of the 20 ways to rank 3 and 3, two are as extreme as apart."""
    found = mann_whitney(first, second)
    assert (found.p_value, found.second_smaller) == pytest.approx((p, smaller))


def test_repetitions_do_not_hide_the_spread_of_samples():
    """Guards the order of resampling: variance between samples 1/4, within 1/16 and 4 repetitions, of 100 samples."""
    generator = np.random.default_rng(5)
    values = generator.choice([-0.5, 0.5], (100, 1)) + generator.choice([-0.25, 0.25], (100, 4))
    found = hierarchical_means(values.tolist(), replicates=2000)
    between, within = values.mean(1).var(), values.var(1).mean()
    assert found.low is not None and found.high is not None
    assert (found.high - found.low) / 3.92 == pytest.approx(((between + within / 4) / 100) ** 0.5, rel=0.08)


@pytest.mark.parametrize(
    ("given", "adjusted"),
    [([], []), ([0.03], [0.03]), ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]), ([0.6, 0.5, 0.9], [1, 1, 1]),
     ([0.01, 0.01, 0.011], [0.03, 0.03, 0.03])],
)  # fmt: skip
def test_holm_by_hand(given: list[float], adjusted: list[float]):
    """Guards the step-down rule: times 3, 2, 1 in order of size, and never below a smaller one."""
    assert holm(given) == pytest.approx(adjusted)


def test_holm_keeps_the_chance_of_any_false_rejection():
    """Guards the family: of 20 true hypotheses one is rejected at 0.05 in at most 5 % of 2,000 families."""
    families = np.random.default_rng(7).random((2000, 20))
    assert np.mean([min(holm(one.tolist())) < 0.05 for one in families]) <= 0.06
