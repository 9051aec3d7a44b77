"""Accuracy under parallelism (AUP): the points and the weighed area under them."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from harness.results.figures.columns import text_of
from harness.results.figures.frame import Frame
from harness.results.figures.selected import Selected
from harness.results.metrics import OperatingPoint, area_under_parallelism
from harness.results.repeated import num_samples

INTERVAL = "no interval; the area depends on the points that were run"


def settings_of(selected: Selected) -> dict[tuple[str, str, str, str, str], list[Mapping[str, Any]]]:
    """Return the runs behind every operating point, by panel, model, task, group and setting: one per seed."""
    found: dict[tuple[str, str, str, str, str], list[Mapping[str, Any]]] = {}
    for run in selected.runs:
        if run["tpf"] is not None and run["accuracy"] is not None:
            key = (selected.panel(run), text_of(run, "model"), text_of(run, "task"), selected.group(run),
                   selected.setting(run))  # fmt: skip
            found.setdefault(key, []).append(run)
    return found


def point_of(runs: Sequence[Mapping[str, Any]]) -> OperatingPoint:
    """Return the point of a setting, the mean over its runs."""
    return OperatingPoint(tpf=fmean(run["tpf"] for run in runs), accuracy=100 * fmean(run["accuracy"] for run in runs))


def areas_of(selected: Selected) -> Frame:
    """Return, per model and task, the area of every group and the number of its points, best accuracy first.

    Areas are weighed by the best accuracy of any group on the model and task, as `harness.results.parallelism` does.
    """
    import pandas as pd

    points: dict[tuple[str, str, str], list[OperatingPoint]] = {}
    best: dict[tuple[str, str], float] = {}
    runs: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for (_, model, task, group, _), of in settings_of(selected).items():
        point = point_of(of)
        points.setdefault((model, task, group), []).append(point)
        best[model, task] = max(best.get((model, task), 0.0), point.accuracy)
        runs.setdefault((model, task, group), []).extend(of)
    rows: list[dict[str, Any]] = [
        {
            "model": model, "task": task, "group": group, "points": len(of), "n": num_samples(runs[model, task, group]),
            "area": area_under_parallelism(of, best[model, task]) if best[model, task] else 0.0,
        }
        for (model, task, group), of in points.items()
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["model", "task", "group", "points", "n", "area"])


def over_tasks(frame: Frame) -> Frame:
    """Return the mean area over tasks of every group, largest first."""
    found = frame.groupby("group", sort=False).agg(
        area=("area", "mean"), tasks=("task", "nunique"), points=("points", "max"), n=("n", "sum")
    )
    return found.reset_index().sort_values("area", ascending=False, kind="stable", ignore_index=True)
