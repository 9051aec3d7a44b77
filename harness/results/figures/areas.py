"""Accuracy under parallelism (AUP): the points and the weighed area under them."""

from typing import Any

from harness.results.figures.columns import text_of
from harness.results.figures.frame import Frame
from harness.results.figures.selected import Selected
from harness.results.metrics import OperatingPoint, area_under_parallelism
from harness.results.repeated import num_samples

INTERVAL = "no interval; the area depends on the points that were run"


def areas_of(selected: Selected) -> Frame:
    """Return, per model and task, the area of every group and the number of its points, best accuracy first.

    Areas are weighed by the best accuracy of any group on the model and task, as `harness.results.parallelism` does.
    """
    import pandas as pd

    points: dict[tuple[str, str, str], list[OperatingPoint]] = {}
    best: dict[tuple[str, str], float] = {}
    runs: dict[tuple[str, str, str], list[Any]] = {}
    for run in selected.runs:
        if run["tpf"] is None or run["accuracy"] is None:
            continue
        key = (text_of(run, "model"), text_of(run, "task"), selected.group(run))
        points.setdefault(key, []).append(OperatingPoint(tpf=run["tpf"], accuracy=100 * run["accuracy"]))
        best[key[:2]] = max(best.get(key[:2], 0.0), 100 * run["accuracy"])
        runs.setdefault(key, []).append(run)
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
