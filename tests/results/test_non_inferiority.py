"""The rule by hand: intervals on either side of the margin, halves of samples, and what few samples cannot show."""

from pathlib import Path

import pytest

from harness.results.comparison import Measured, load
from harness.results.non_inferiority import Compared, Outcome, best_of, compared, halves, least_margin
from harness.results.statistics import Estimate
from harness.results.store import Store
from tests.results.factory import add_run


def told(low: float, high: float, *, n: int = 4000, cost: float = 1.0, changed: float = 0.0) -> Compared:
    """Return a setting whose difference to the baseline lies between two shares."""
    middle = Estimate(value=(low + high) / 2, low=low, high=high)
    ratio = Estimate(value=2.0, low=1.9, high=2.1)
    return Compared(n=n, accuracy=0.9, difference=middle, changed=changed, cost=cost, base_cost=2.0, ratio=ratio)


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (-0.009, 0.002, "yes"),
        (0.01, 0.02, "yes"),
        (-0.01, 0.0, "undecided"),
        (-0.02, 0.01, "undecided"),
        (-0.03, -0.01, "undecided"),
        (-0.03, -0.0101, "no"),
    ],
)
def test_the_interval_decides_on_which_side_of_the_margin_a_setting_is(low: float, high: float, outcome: str):
    """Guards the rule at one point, ends included: strictly above is yes, strictly below is no."""
    assert told(low, high).outcome(0.01).value == outcome


def test_few_samples_decide_nothing():
    """Guards the interval of no width: of 380 samples none is lost, and a loss of 3.84 of 383.84, 1.0008 points, is not
    excluded; of 381 one of a point is.
    """
    assert least_margin(380) == pytest.approx(3.841459 / 383.841459)
    assert told(0, 0, n=380).outcome(0.01) is Outcome.UNDECIDED
    assert told(0, 0, n=381).outcome(0.01) is Outcome.YES


def test_the_margin_that_samples_can_show():
    """Guards 2.8016 sqrt(psi / n): of 4,000 samples 5 % change, which shows 0.990 points; none change, 0.096."""
    assert told(0, 0, changed=0.05).shown_margin == pytest.approx(2.80158 * (0.05 / 4000) ** 0.5, rel=1e-5)
    assert told(0, 0).shown_margin == least_margin(4000) == pytest.approx(0.00096, abs=1e-5)


def test_the_cheapest_that_loses_at_most_the_margin_is_taken():
    """Guards the choice: a cheaper one that loses more, a dearer one, and an equal one that came later."""
    trials = [told(-0.02, 0, cost=1), told(-0.005, 0, cost=3), told(0, 0, cost=2), told(0, 0, cost=2)]
    assert best_of(trials, 0.01) == 2
    assert best_of([told(-0.5, -0.4, cost=1), told(-0.2, -0.1, cost=9)], 0.01) == 1


@pytest.fixture
def measured(tmp_path: Path) -> dict[str, Measured]:
    """Store `base`, right on all 40, and `fast`, wrong on every second, in half the calls."""
    store = Store(root=tmp_path)
    add_run(store, "base", correct=[True] * 40, nfe=[4] * 40, latency_s=[0.4] * 40)
    add_run(store, "fast", correct=[at % 2 == 0 for at in range(40)], nfe=[2] * 40, latency_s=[0.1] * 40)
    add_run(store, "odd", task="sort", correct=[True] * 3, nfe=[1] * 3, latency_s=[0.1] * 3)
    return {one.run["run_id"]: one for one in load(store, ["base", "fast", "odd"])}


def test_halves_are_halves_of_every_task_and_do_not_overlap(measured: dict[str, Measured]):
    """Guards the split: seeded, by sample, the same for all runs, an odd sample on the side that is reported."""
    found = halves([measured["base"], measured["odd"]], 0)
    assert (len(found.search), len(found.report), found.search & found.report) == (21, 22, frozenset())
    assert sum(task == "sort" for task, _ in found.search) == 1
    assert found == halves([measured["odd"], measured["fast"]], 0) != halves([measured["base"], measured["odd"]], 1)


@pytest.mark.parametrize(
    ("objective", "cost", "times"), [("nfe", 2, 2), ("query_tokens", 16, 2), ("latency_s", 0.1, 4)]
)
def test_only_the_samples_that_are_asked_for_are_compared(
    measured: dict[str, Measured], objective: str, cost: float, times: float
):
    """Guards both halves: of s0, s1, s2 one is lost, a third; costs and ratios by each objective."""
    some = frozenset(("copy", f"s{at}") for at in range(3))
    found = compared([measured["fast"]], [measured["base"]], some, objective)
    assert (found.n, found.changed, found.difference.value) == (3, 1 / 3, pytest.approx(-1 / 3))
    assert (found.cost, found.ratio.value) == (pytest.approx(cost), pytest.approx(times))
