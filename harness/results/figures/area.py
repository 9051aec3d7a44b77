"""The area under parallelism itself: accuracy over tokens per call, and what of it counts."""

from typing import TYPE_CHECKING, Any

from harness.results.figures import scatter
from harness.results.figures.areas import point_of, settings_of
from harness.results.figures.definition import Definition
from harness.results.figures.frame import Frame
from harness.results.figures.selected import Selected
from harness.results.figures.style import (
    add_legend,
    draw_points,
    label_axes,
    new_panels,
    percent_axis,
    separate,
    styles,
)
from harness.results.metrics import OperatingPoint, kept_points, weighed_accuracy
from harness.results.repeated import num_samples
from harness.results.statistics import wilson

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INTERVAL = f"{scatter.INTERVAL}; shaded: what counts, accuracy weighed by its distance to the best"


def data(selected: Selected) -> Frame:
    """Return every operating point: tokens per call, accuracy and weighed accuracy in percent, and whether it counts.

    A point counts unless it is more than five points below the slowest of its group.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for (panel, model, task, group, setting), runs in settings_of(selected).items():
        point, n = point_of(runs), num_samples(runs)
        ends = wilson(round(point.accuracy / 100 * n), n)
        rows.append(
            {"panel": panel, "model": model, "task": task, "group": group, "setting": setting, "x": point.tpf,
             "y": point.accuracy, "low": 100 * (ends.low or 0), "high": 100 * (ends.high or 0), "n": n}
        )  # fmt: skip
    columns = ["panel", "model", "task", "group", "setting", "x", "y", "low", "high", "n"]
    frame: Frame = pd.DataFrame(rows, columns=columns)
    best = frame.groupby(["model", "task"])["y"].transform("max")
    frame["weighed"] = [weighed_accuracy(y, top) if top else 0.0 for y, top in zip(frame["y"], best, strict=True)]
    frame["counts"] = False
    for _, part in frame.groupby(["model", "task", "group"]):
        points = [OperatingPoint(tpf=x, accuracy=y) for x, y in zip(part["x"], part["y"], strict=True)]
        kept = kept_points(points)
        frame.loc[part.index, "counts"] = [point in kept for point in points]
    return frame


def draw(frame: Frame, definition: Definition) -> "Figure":
    """Draw a panel per panel: points, lines through them, and the weighed area under those that count."""
    names, by_group = list(dict.fromkeys(frame["panel"])), styles(frame["group"])
    figure, panels = new_panels(names, width=definition.width, legend=1 + len(by_group) // 2)
    for name, panel in zip(names, panels, strict=True):
        for group, points in frame[frame["panel"] == name].groupby("group", sort=False):
            style = by_group[group]
            counted = points[points["counts"]].sort_values("x")
            # The first point counts as a rectangle from no parallelism at all.
            edges = [0.0, *counted["x"]], [counted["y"].iloc[0], counted["y"].iloc[0], *counted["weighed"].iloc[1:]]
            panel.fill_between(*edges, color=style.colour, alpha=0.10, lw=0)
            draw_points(panel, points, style, group)
        percent_axis(panel)
        panel.set_xlim(left=0)
    label_axes(panels, "tokens per call", "accuracy, %")
    add_legend(figure)
    separate(figure)
    return figure
