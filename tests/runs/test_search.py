"""The search on a method in closed form, whose cheapest setting within the margin is known."""

import pytest

from harness.config.ranges import Choices, Range
from harness.results.non_inferiority import Compared
from harness.results.statistics import Estimate

pytest.importorskip("optuna")

from harness.runs.search import search

MARGIN = 0.01
THRESHOLD = Range(key="method.threshold", low=0.3, high=0.99, step=0.01)


def scripted(cost: float, loss: float) -> Compared:
    """Return a setting of so many calls, whose loss is known to a tenth of a point."""
    difference = Estimate(value=-loss, low=-loss - 0.0005, high=-loss + 0.0005)
    ratio = Estimate(value=16 / cost, low=16 / cost, high=16 / cost)
    return Compared(
        n=4000, accuracy=1 - loss, difference=difference, changed=loss, cost=cost, base_cost=16, ratio=ratio
    )


def by_threshold(knobs: tuple[str, ...]) -> Compared:
    """Return calls that rise with the threshold, 16 t, and a loss that falls with it, 0.1 (0.9 - t)."""
    (threshold,) = (float(one.partition("=")[2]) for one in knobs)
    return scripted(16 * threshold, max(0.0, 0.1 * (0.9 - threshold)))


def best(tried: list[tuple[str, ...]], evaluate) -> tuple[str, ...]:
    """Return the cheapest of what was tried that loses at most the margin."""
    good = [one for one in tried if (evaluate(one).difference.low or 0) > -MARGIN]
    return min(good, key=lambda one: evaluate(one).cost)


def test_the_known_optimum_is_found():
    """Guards constraint and direction: of 70 thresholds 0.81 is the least allowed one; 24 tries come within 0.02."""
    tried = search([THRESHOLD], by_threshold, margin=MARGIN, trials=24, seed=0)
    assert len(tried) <= 24 and len({*tried}) == len(tried)
    assert 0.81 <= float(best(tried, by_threshold)[0].partition("=")[2]) <= 0.83


def test_the_same_seed_asks_for_the_same_settings():
    """Guards going on from the store: what is asked for a second time is what is stored."""
    first, second = (search([THRESHOLD], by_threshold, margin=MARGIN, trials=8, seed=3) for _ in range(2))
    assert first == second != search([THRESHOLD], by_threshold, margin=MARGIN, trials=8, seed=4)


def test_a_small_space_is_tried_whole():
    """Guards lists and whole numbers: every pair once, as overrides write them, whatever the number of trials."""
    knobs = [Choices(key="method.steps", values=("1", "2", "null")), Range(key="method.k", low=1, high=2, step=1)]
    tried = search(knobs, lambda _: scripted(1, 0), margin=MARGIN, trials=50, seed=0)
    pairs = {(f"method.steps={steps}", f"method.k={k}") for steps in ("1", "2", "null") for k in (1, 2)}
    assert {*tried} == pairs and len(tried) == 6


def test_settings_that_cannot_be_do_not_end_a_search():
    """Guards against a knob that is refused beside another: the rest is tried."""
    knobs = [Choices(key="method.steps", values=("1", "3", "4"))]

    def evaluate(told: tuple[str, ...]) -> Compared | None:
        return None if told == ("method.steps=3",) else scripted(1, 0)

    assert len(search(knobs, evaluate, margin=MARGIN, trials=9, seed=0)) == 3


def test_numbers_are_written_as_people_write_them():
    """Guards against method.threshold=0.8300000000000001 in names and tables."""
    tried = search([THRESHOLD], by_threshold, margin=MARGIN, trials=30, seed=1)
    assert all(len(one[0]) <= len("method.threshold=0.99") for one in tried)
