"""What parallel decoding can reach on list operations, in closed form.

All numbers are those of the ideal sampler: it knows the exact conditional law of every position given the prompt
and the items revealed before, and samples the positions of one step independently. Answers are uniform over the
valid ones. Exact results are fractions; entropies are in nats.

Over the steps of any such decoder, KL(answers || decoder) is at least the sum of the expected total correlations of
its steps, with equality for the ideal sampler. The success probability is the mass it puts on valid answers.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from tasks.lists.operations import OPERATIONS, Argument

# Operations whose irreducible dependence makes a schedule of counts matter, whatever the order of positions.
SCHEDULED = ("shuffle", "replace_random")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How many positions each step commits, and the success probability that it has."""

    counts: tuple[int, ...]
    success: Fraction


def is_deterministic(op: str) -> bool:
    """Tell whether an operation has one answer, so that parallel decoding costs nothing."""
    return OPERATIONS[op].argument is not Argument.FREE


def answer_length(op: str, n: int) -> int:
    """Return the items of an answer to `n` items; not defined for the repeat operations."""
    assert not op.startswith("repeat"), "the answer to a repeat depends on its count"
    return n + {"insert": 1, "remove": -1}.get(op.partition("_")[0], 0)


def one_step_success(op: str, n: int, *, allow_identity: bool = False) -> Fraction:
    """Return the success probability when all positions are sampled at once.

    `allow_identity` counts the given order among the answers of a shuffle.
    """
    if is_deterministic(op):
        return Fraction(1)
    if op == "shuffle":
        return schedule_success(op, [n]) if allow_identity else _one_step_derangement_mix(n)
    if op == "replace_random":
        return schedule_success(op, [n])
    if op == "insert_random":
        return Fraction(math.factorial(n) * 2**n, (n + 1) ** (n + 1))
    return Fraction(math.factorial(n - 1) * 2 ** (n - 1), n ** (n - 1))


def total_correlation(op: str, n: int, *, allow_identity: bool = False) -> float:
    """Return the total correlation of the whole answer: the least KL of sampling it in one step."""
    if is_deterministic(op):
        return 0.0
    num_answers = {"shuffle": math.factorial(n) - (not allow_identity), "insert_random": n + 1}.get(op, n)
    return sum(_entropy(law) for law in _marginals(op, n, allow_identity)) - math.log(num_answers)


def schedule_success(op: str, counts: Sequence[int]) -> Fraction:
    """Return the success probability of committing `counts[t]` positions in step t, for `SCHEDULED` operations.

    A shuffle includes the given order among its answers here, as the product form requires.
    """
    left, chance, alive = sum(counts), Fraction(0), Fraction(1)
    for count in counts:
        if op == "shuffle":
            alive *= Fraction(math.perm(left, count), left**count)
        else:
            chance += alive * _word_once(left, count)
            alive *= _word_never(left, count)
        left -= count
    return alive if op == "shuffle" else chance


def schedule_divergence(op: str, counts: Sequence[int]) -> float:
    """Return the KL from the uniform law over the answers to the decoder with this schedule."""
    n, total, left = sum(counts), 0.0, sum(counts)
    for count in counts:
        if op == "shuffle":
            total += count * math.log(left)
        else:
            total += count * _times_log_ratio(left - 1, left) - _times_log_ratio(left - count, left)
        left -= count
    return total - math.lgamma(n + 1) if op == "shuffle" else total / n


@cache
def best_schedule(op: str, n: int, steps: int) -> Schedule:
    """Return the schedule of `steps` steps that succeeds most often, for `SCHEDULED` operations.

    Dynamic programming over the positions left: what follows a step depends on how many it leaves, not on which.
    Of equally good schedules the one with the largest first step is returned.
    """
    assert 1 <= steps <= n, f"{n} positions cannot be committed in {steps} non-empty steps"
    if steps == 1:
        return Schedule(counts=(n,), success=schedule_success(op, [n]))
    candidates = (_continued(op, n, first, best_schedule(op, n - first, steps - 1)) for first in _first(n, steps))
    return max(candidates, key=lambda schedule: schedule.success)


def equal_schedule(n: int, steps: int) -> tuple[int, ...]:
    """Return the counts of committing `n` positions in `steps` equal steps, the remainder in the first ones."""
    return tuple(n // steps + (step < n % steps) for step in range(steps))


def dyadic_order(length: int) -> list[list[int]]:
    """Return the positions of each step when the middle of every undecided run is committed.

    Exact for insertion and removal at random: given one position, its left and right side are independent.
    """
    runs, order = [range(length)] if length else [], []
    while runs:
        middles = [run[len(run) // 2] for run in runs]
        halves = (half for run, m in zip(runs, middles, strict=True) for half in _split(run, m))
        runs, order = [half for half in halves if half], [*order, middles]
    return order


def fewest_calls(op: str, n: int) -> Fraction:
    """Return the expected forward calls of the fastest decoding that is exact.

    Replacement at random goes one by one until the word appears, then takes the rest at once.
    """
    if is_deterministic(op):
        return Fraction(1)
    if op == "shuffle":
        return Fraction(n)
    if op == "replace_random":
        return 1 + Fraction((n - 1) * (n + 2), 2 * n)
    return Fraction(len(dyadic_order(answer_length(op, n))))


def mean_over_lengths(values: Iterable[Fraction]) -> Fraction:
    """Return the expected accuracy on a set that spreads its problems evenly over lengths."""
    values = list(values)
    return sum(values, Fraction(0)) / len(values)


def _one_step_derangement_mix(n: int) -> Fraction:
    """Sum over the number of items that stay: each stays with `stay`, goes to any other place with `move`."""
    num_answers = math.factorial(n) - 1
    stay = Fraction(math.factorial(n - 1) - 1, num_answers)
    move = Fraction(math.factorial(n - 1), num_answers)
    return sum((math.comb(n, f) * _derangements(n - f) * stay**f * move ** (n - f) for f in range(n)), Fraction(0))


def _derangements(n: int) -> int:
    return sum((-1) ** k * math.perm(n, n - k) for k in range(n + 1))


def _word_once(left: int, count: int) -> Fraction:
    return Fraction(count, left) * Fraction(left - 1, left) ** (count - 1)


def _word_never(left: int, count: int) -> Fraction:
    return Fraction(left - 1, left) ** count


def _times_log_ratio(part: int, whole: int) -> float:
    """Return part * ln(whole / part), with its limit 0 at part 0."""
    return part * math.log(whole / part) if part else 0.0


def _first(n: int, steps: int) -> range:
    return range(n - steps + 1, 0, -1)


def _continued(op: str, n: int, first: int, rest: Schedule) -> Schedule:
    if op == "shuffle":
        success = Fraction(math.perm(n, first), n**first) * rest.success
    else:
        success = _word_once(n, first) + _word_never(n, first) * rest.success
    return Schedule(counts=(first, *rest.counts), success=success)


def _split(run: range, middle: int) -> tuple[range, range]:
    return range(run.start, middle), range(middle + 1, run.stop)


def _entropy(law: Iterable[float]) -> float:
    return -math.fsum(p * math.log(p) for p in law if p)


def _marginals(op: str, n: int, allow_identity: bool) -> list[list[float]]:
    """Return the law of every answer position; insertion at j sees the word, the item before and the item at j."""
    if op == "shuffle":
        num_answers = math.factorial(n) - (not allow_identity)
        stay = (math.factorial(n - 1) - (not allow_identity)) / num_answers
        return [[stay] + [math.factorial(n - 1) / num_answers] * (n - 1)] * n
    if op == "replace_random":
        return [[1 / n, 1 - 1 / n]] * n
    if op == "insert_random":
        return [[1 / (n + 1), (j - 1) / (n + 1), (n + 1 - j) / (n + 1)] for j in range(1, n + 2)]
    return [[j / n, 1 - j / n] for j in range(1, n)]
