"""Accuracy under parallelism: one number for all operating points of a method."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from harness.results.comparison import Comparison
from harness.results.figures.style import drawing, new_figure, tidy
from harness.results.metrics import OperatingPoint, area_under_parallelism

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# What is put in place of a method's own part makes another method; a knob makes another operating point.
_PARTS = ("cache", "finish", "verifier")


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
    parts = [word for word in one.setting.split() if word.split("=")[0] in _PARTS]
    return " ".join([one.method, *parts])


def _area(points: Sequence[OperatingPoint], best_accuracy: float) -> float:
    return area_under_parallelism(points, best_accuracy) if best_accuracy else 0.0


@drawing()
def draw(found: Sequence[Area]) -> "tuple[Figure, pd.DataFrame]":
    """Draw the areas of all methods, largest first; return figure and data.

    Raises MissingDependency without matplotlib.
    """
    import pandas as pd

    ordered = sorted(found, key=lambda one: one.value)
    figure = new_figure(5.2, 0.19 * len(ordered) + 0.8)
    panel = figure.subplots()
    labels = [f"{one.method} ({one.model})" for one in ordered]
    panel.barh(labels, [one.value for one in ordered], color="#0072B2", height=0.7)
    panel.set_xlabel("area under accuracy (%) over tokens per call, mean over tasks", fontsize=8)
    panel.tick_params(labelsize=7)
    panel.margins(y=0.01)
    tidy(panel, "x")
    columns = ("model", "method", "points", "value")
    return figure, pd.DataFrame([{name: getattr(one, name) for name in columns} for one in reversed(ordered)])
