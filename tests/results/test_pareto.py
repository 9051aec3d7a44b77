"""Fronts by hand and by a plain reading of the definition."""

import numpy as np

from harness.results.pareto import chance_on_front, front, reached, surely_beaten


def test_a_front_by_hand():
    """Guards ends, a point that is beaten in one only, equal points, and points that are not known."""
    cost = np.array([1, 2, 2, 3, 4, 1, np.nan, 0.5])
    accuracy = np.array([0.5, 0.7, 0.6, 0.7, 0.9, 0.5, 0.99, np.nan])
    assert front(cost, accuracy).tolist() == [True, True, False, False, True, True, False, False]


def test_fronts_agree_with_the_definition():
    """Guards the loop against all pairs, with many ties, for a stack of replicates at once."""
    generator = np.random.default_rng(3)
    cost, accuracy = generator.integers(5, size=(2, 40, 9)).astype(float)

    def plain(costs: np.ndarray, accuracies: np.ndarray) -> list[bool]:
        points = list(zip(costs, accuracies, strict=True))
        return [not any(c <= a and d >= b and (c, d) != (a, b) for c, d in points) for a, b in points]

    assert front(cost, accuracy).tolist() == [plain(*pair) for pair in zip(cost, accuracy, strict=True)]


def test_the_chance_of_being_on_the_front():
    """Guards the share: the second setting is beaten in one of four replicates, the third in all."""
    cost = np.tile([1.0, 2.0, 3.0], (4, 1))
    accuracy = np.array([[0.5, 0.6, 0.4], [0.5, 0.7, 0.4], [0.5, 0.5, 0.4], [0.5, 0.8, 0.4]])
    assert chance_on_front(cost, accuracy).tolist() == [1.0, 0.75, 0.0]


def test_intervals_that_overlap_beat_nobody():
    """Guards what may be drawn off the front: only a setting that is worse in both, beyond both intervals."""
    cost = np.array([[1, 2], [3, 4], [3, 4], [1.5, 3.5]])
    accuracy = np.array([[0.7, 0.8], [0.5, 0.6], [0.6, 0.75], [0.5, 0.6]])
    assert surely_beaten(cost, accuracy).tolist() == [False, True, False, False]


def test_what_a_front_reaches_lies_between_its_quantiles():
    """Guards the band over 100 replicates: one setting costs 1 and reaches r / 100, one costs 2 and reaches 0.5."""
    cost = np.tile([1.0, 2.0], (100, 1))
    accuracy = np.stack([np.arange(100) / 100, np.full(100, 0.5)], axis=1)
    low, high = reached(cost, accuracy, np.array([0.5, 1.0, 2.0]))
    assert low[1:].tolist() == [0.02, 0.5] and high[1:].tolist() == [0.97, 0.97]
    assert np.isnan([low[0], high[0]]).all()


def test_where_too_few_replicates_are_as_cheap_an_end_is_missing():
    """Guards against a front that reaches minus infinity: at cost 1 half of the replicates have nothing."""
    low, high = reached(np.array([[1.0], [2.0]]), np.array([[0.25], [0.75]]), np.array([1.0]))
    assert np.isnan(low[0]) and high[0] == 0.25
