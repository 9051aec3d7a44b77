"""Accuracy under parallelism: one number for all operating points of a method."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from harness.results.comparison import Comparison
from harness.results.metrics import OperatingPoint, area_under_parallelism

# What is put in place of a method's own part makes another method; a knob makes another operating point.
PARTS = ("cache", "finish", "verifier")


@dataclass(frozen=True, kw_only=True)
class Area:
    """The area of one method on one model: mean over tasks of accuracy (percent) under tokens per forward.

    `points` is the number of settings; the value depends on which they were.
    """

    model: str
    method: str
    tasks: tuple[str, ...]
    points: int
    value: float


def areas(per_task: Sequence[Comparison]) -> list[Area]:
    """Return the area of every method, in order of appearance; takes comparisons made per task.

    The best accuracy that areas are weighed by is that of any method on the same model and task. A setting whose tokens
    per forward are not known has no point.
    """
    methods: dict[tuple[str, str], dict[str, list[OperatingPoint]]] = {}
    best: dict[tuple[str, str], float] = {}
    for one in per_task:
        if one.tpf is None:
            continue
        task, percent = one.tasks[0], 100 * one.accuracy.value
        tasks = methods.setdefault((one.model, method_of(one)), {})
        tasks.setdefault(task, []).append(OperatingPoint(tpf=one.tpf, accuracy=percent))
        best[one.model, task] = max(percent, best.get((one.model, task), 0.0))
    return [
        Area(
            model=model,
            method=method,
            tasks=tuple(tasks),
            points=max(map(len, tasks.values())),
            value=fmean(_area(points, best[model, task]) for task, points in tasks.items()),
        )
        for (model, method), tasks in methods.items()
    ]


def method_of(one: Comparison) -> str:
    """Return the method of a setting with the parts put in place of its own, without its knobs."""
    parts = [word for word in one.setting.split() if word.split("=")[0] in PARTS]
    return " ".join([one.method, *parts])


def _area(points: Sequence[OperatingPoint], best_accuracy: float) -> float:
    return area_under_parallelism(points, best_accuracy) if best_accuracy else 0.0
