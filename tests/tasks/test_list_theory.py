"""Closed forms against exact enumeration, and against the printed tables."""

import math
from fractions import Fraction

import pytest

from tasks.lists import theory
from tests.tasks.exact import answers_of, divergence, left_to_right, success

RANDOM = ("shuffle", "replace_random", "insert_random", "remove_random")


def compositions(n: int) -> list[tuple[int, ...]]:
    return [()] if n == 0 else [(first, *rest) for first in range(1, n + 1) for rest in compositions(n - first)]


@pytest.mark.parametrize("allow_identity", [False, True])
@pytest.mark.parametrize("n", [2, 3, 4, 5])
@pytest.mark.parametrize("op", RANDOM)
def test_one_step_equals_enumeration(op: str, n: int, allow_identity: bool) -> None:
    """A closed form that is off by one item, or forgets that the given order is no shuffle."""
    answers = answers_of(op, n, allow_identity=allow_identity and op == "shuffle")
    at_once = [range(len(answers[0]))]
    assert theory.one_step_success(op, n, allow_identity=allow_identity) == success(answers, at_once)
    dependence = theory.total_correlation(op, n, allow_identity=allow_identity)
    assert dependence == pytest.approx(divergence(answers, at_once), abs=1e-9)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
@pytest.mark.parametrize("op", theory.SCHEDULED)
def test_every_schedule_equals_enumeration(op: str, n: int) -> None:
    """A recursion that conditions on the wrong number of positions left."""
    answers = answers_of(op, n, allow_identity=op == "shuffle")
    for counts in compositions(n):
        steps = left_to_right(counts)
        assert theory.schedule_success(op, counts) == success(answers, steps)
        assert theory.schedule_divergence(op, counts) == pytest.approx(divergence(answers, steps), abs=1e-9)


@pytest.mark.parametrize("op", theory.SCHEDULED)
def test_best_schedule_beats_every_other(op: str) -> None:
    """Dynamic programming that is greedy in disguise, or reports a success that its counts do not have."""
    for n in range(1, 8):
        for steps in range(1, n + 1):
            best = theory.best_schedule(op, n, steps)
            rivals = [theory.schedule_success(op, counts) for counts in compositions(n) if len(counts) == steps]
            assert theory.schedule_success(op, best.counts) == best.success == max(rivals)


@pytest.mark.parametrize("n", range(2, 12))
@pytest.mark.parametrize("op", ["insert_random", "remove_random"])
def test_dyadic_order_is_exact(op: str, n: int) -> None:
    """Halving that commits neighbours together, skips a position, or takes a step too many."""
    answers = answers_of(op, n) if n <= 10 else None
    order = theory.dyadic_order(theory.answer_length(op, n))
    assert sorted(p for step in order for p in step) == list(range(theory.answer_length(op, n)))
    assert theory.fewest_calls(op, n) == math.ceil(math.log2(n + 2 if op == "insert_random" else n))
    assert answers is None or success(answers, order) == 1


def test_fewest_calls_of_replacement() -> None:
    """Counting the call for the rest also where nothing is left."""
    for n in range(2, 16):
        calls = [place + 1 for place in range(1, n)] + [n]
        assert theory.fewest_calls("replace_random", n) == Fraction(sum(calls), n)


PRINTED = [
    ("replace_random", [0.4444, 0.4019, 0.3874, 0.3806], [0.811, 0.912, 0.948, 0.966]),
    ("shuffle", [0.2222, 0.01543, 3.63e-4, 2.99e-6], [1.504, 4.171, 7.921, 12.722]),
    ("insert_random", [0.1875, 0.0560, 0.0130, 0.00232], [1.818, 3.383, 5.418, 7.940]),
    ("remove_random", [0.8889, 0.4938, 0.1858, 0.0489], [0.174, 1.076, 2.609, 4.729]),
]


@pytest.mark.parametrize(("op", "chances", "correlations"), PRINTED)
def test_printed_one_step_table(op: str, chances: list[float], correlations: list[float]) -> None:
    """Lengths beyond enumeration: overflow, or a form that is right for small lists only."""
    for n, chance, correlation in zip([3, 6, 10, 15], chances, correlations, strict=True):
        assert float(theory.one_step_success(op, n, allow_identity=True)) == pytest.approx(chance, rel=2e-3)
        assert theory.total_correlation(op, n, allow_identity=True) == pytest.approx(correlation, abs=6e-4)


@pytest.mark.parametrize(
    ("op", "n", "counts", "best", "equal"),
    [
        ("shuffle", 6, (4, 2), 0.1389, 0.1235),
        ("shuffle", 10, (5, 3, 2), 0.0726, 0.0622),
        ("shuffle", 10, (3, 3, 2, 1, 1), 0.3306, 0.2461),
        ("shuffle", 15, (7, 5, 3), 0.0087, 0.0055),
        ("shuffle", 15, (3, 3, 2, 2, 2, 1, 1, 1), 0.3766, 0.3183),
        ("replace_random", 6, (4, 1, 1), 0.8681, 0.7335),
        ("replace_random", 10, (3, 6, 1), 0.8212, None),
        ("replace_random", 15, (4, 10, 1), 0.8019, None),
    ],
)
def test_printed_schedules(op: str, n: int, counts: tuple[int, ...], best: float, equal: float | None) -> None:
    """The schedules that figures draw, and the remainder of an equal split in the last steps."""
    found = theory.best_schedule(op, n, len(counts))
    assert found.counts == counts
    assert float(found.success) == pytest.approx(best, abs=6e-5)
    split = theory.equal_schedule(n, len(counts))
    assert equal is None or float(theory.schedule_success(op, split)) == pytest.approx(equal, abs=6e-5)


def test_printed_means_and_orders() -> None:
    """Means over the waiting-line lengths, and that left to right is a bad order for insertion and removal."""
    means = {"replace_random": 0.4194, "shuffle": 0.0924, "insert_random": 0.1122, "remove_random": 0.6868}
    for op, mean in means.items():
        by_length = [theory.one_step_success(op, n, allow_identity=True) for n in range(3, 7)]
        assert float(theory.mean_over_lengths(by_length)) == pytest.approx(mean, abs=6e-5)
    assert float(success(answers_of("insert_random", 6), left_to_right([3, 2, 2]))) == pytest.approx(0.281, abs=6e-4)
    assert float(success(answers_of("remove_random", 6), left_to_right([3, 2]))) == pytest.approx(0.691, abs=6e-4)


@pytest.mark.parametrize("op", ["copy", "reverse", "sort", "replace_index", "insert_index", "repeat_each"])
def test_one_answer_costs_one_call(op: str) -> None:
    """Deterministic operations that are taken for random ones."""
    assert theory.one_step_success(op, 6) == theory.fewest_calls(op, 6) == 1
    assert theory.total_correlation(op, 6) == 0
