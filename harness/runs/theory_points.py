"""What theory says of the list tasks of a sweep, as points for its figure."""

import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from statistics import fmean
from typing import Any

from harness.results.figures.scatter import TheoryPoint
from tasks.lists import theory as closed


def theory(runs: Sequence[Mapping[str, Any]]) -> list[TheoryPoint]:
    """Return the ideal sampler's points of every list task among `runs` (rows of the runs table)."""
    tasks = {row["task"]: json.loads(row["config"]).get("task", {}) for row in runs}
    points = [p for name, task in tasks.items() if "operation" in task for p in _points(name, task)]
    return points


def _points(name: str, task: Mapping[str, Any]) -> list[TheoryPoint]:
    operation, lengths = task["operation"], task["lengths"]
    fewest = float(closed.mean_over_lengths(closed.fewest_calls(operation, n) for n in lengths))
    star = TheoryPoint(task=name, kind="fewest", nfe=fewest, accuracy=1.0)
    if closed.is_deterministic(operation) or operation not in closed.SCHEDULED:
        one_step = closed.mean_over_lengths(closed.one_step_success(operation, n) for n in lengths)
        return [TheoryPoint(task=name, kind="ideal", nfe=1, accuracy=float(one_step)), star]
    return [*(_ideal(name, operation, lengths, steps) for steps in range(1, max(lengths) + 1)), star]


def _ideal(name: str, operation: str, lengths: Sequence[int], steps: int) -> TheoryPoint:
    """Return the mean over lengths of equal steps; a list shorter than `steps` takes one step per item."""
    taken = [min(steps, n) for n in lengths]
    successes: list[Fraction] = [
        closed.schedule_success(operation, closed.equal_schedule(n, t)) for n, t in zip(lengths, taken, strict=True)
    ]
    return TheoryPoint(task=name, kind="ideal", nfe=fmean(taken), accuracy=float(closed.mean_over_lengths(successes)))
