"""Columns of samples over another: how work, time and accuracy grow with the length of a prompt or an answer."""

from typing import TYPE_CHECKING, Any

from harness.results.figures.columns import label, number_of, scale
from harness.results.figures.definition import Definition
from harness.results.figures.frame import Frame
from harness.results.figures.selected import Selected
from harness.results.figures.style import (
    add_legend,
    draw_points,
    new_panels,
    percent_axis,
    scale_axis,
    separate,
    styles,
)
from harness.results.figures.values import by_sample, mean_of, share_of
from harness.results.schemas import SAMPLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INTERVAL = "bars: 95 % intervals over samples, Wilson's of accuracy and Student's of means"
_BINS = 8
"""More values of x than twice so many are put into so many equally full bins."""


def data(selected: Selected) -> Frame:
    """Return, for every column that is drawn, one row per group and value (or bin) of x, with the mean over samples."""
    import pandas as pd

    definition = selected.definition
    (x,) = definition.x[:1]
    columns = ["sample_id", *(_stored(one) for one in (x, *definition.y) if _stored(one) in SAMPLES.names)]
    frame = selected.named("samples", list(dict.fromkeys(columns)))
    for one in (x, *definition.y):
        if _stored(one) not in SAMPLES.names:
            known = {run["run_id"]: number_of(run, one, definition.name) for run in selected.runs}
            frame[one] = frame["run_id"].map(known)
    frame["x"] = _binned(frame[_stored(x)].astype(float))
    rows = [
        {"panel": y, "group": group, "x_column": x, "x": at, **_mean(by_sample(part, _stored(y)), y)}
        for y in definition.y
        for (group, at), part in frame.dropna(subset=["x"]).groupby(["group", "x"], sort=False)
        if len(part[_stored(y)].dropna())
    ]
    return pd.DataFrame(rows, columns=["panel", "group", "x_column", "x", "y", "low", "high", "n"])


def _stored(column: str) -> str:
    return "correct" if column == "accuracy" else column


def _mean(values: Frame, y: str) -> dict[str, Any]:
    found = share_of(values) if y == "accuracy" else mean_of(values)
    return {"y": found.value, "low": found.low, "high": found.high, "n": len(values)}


def _binned(values: Frame) -> Frame:
    import pandas as pd

    if values.nunique() <= 2 * _BINS:
        return values
    bins = pd.qcut(values, _BINS, duplicates="drop")
    return values.groupby(bins, observed=True).transform("mean")


def draw(frame: Frame, definition: Definition) -> "Figure":
    """Draw a panel per column and a line per group."""
    by_group = styles(frame["group"])
    names = [name for name in definition.y if name in set(frame["panel"])]
    figure, panels = new_panels([""] * len(names), width=definition.width, legend=1 + len(by_group) // 2, share=False)
    for name, panel in zip(names, panels, strict=True):
        up, across = scale(name), scale(definition.x[0])
        inside = frame[frame["panel"] == name]
        for group, points in inside.groupby("group", sort=False):
            draw_points(panel, points, by_group[group], group, across=across, up=up)
        if "x" in definition.log:
            scale_axis(panel, "x", across * inside["x"])
        if name == "accuracy":
            percent_axis(panel)
        elif "y" in definition.log:
            scale_axis(panel, "y", up * inside["y"])
        panel.set_xlabel(label(definition.x[0]))
        panel.set_ylabel(label(name))
    add_legend(figure)
    separate(figure)
    return figure
