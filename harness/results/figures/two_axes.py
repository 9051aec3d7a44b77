"""Two columns over a third, each with an axis of its own: what a knob, or a batch, buys and costs."""

from typing import TYPE_CHECKING

from harness.results.figures import scatter
from harness.results.figures.columns import label, scale
from harness.results.figures.definition import Definition
from harness.results.figures.frame import Frame
from harness.results.figures.selected import Selected
from harness.results.figures.style import (
    add_legend,
    draw_points,
    label_axes,
    new_panels,
    percent_axis,
    scale_axis,
    separate,
    styles,
    tidy,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INTERVAL = scatter.INTERVAL


def data(selected: Selected) -> Frame:
    """Return one row per value of x, group, panel and drawn column; runs of one setting weigh equally.

    There is none where no run has one of the two: half of the figure would be empty.
    """
    frame = scatter.data(selected)
    return frame if {*selected.definition.y} <= {*frame["y_column"]} else frame.iloc[:0]


def draw(frame: Frame, definition: Definition) -> "Figure":
    """Draw the first column on the left axis, solid, and the second on the right one, dashed."""
    names, groups = list(dict.fromkeys(frame["panel"])), list(dict.fromkeys(frame["group"]))
    left, right = definition.y
    by_line = styles(f"{group}: {column}" for group in groups for column in (left, right))
    figure, panels = new_panels(names, width=definition.width, legend=2 + len(by_line) // 2)
    for name, panel in zip(names, panels, strict=True):
        inside = frame[frame["panel"] == name]
        second = panel.twinx()
        for axis, column in ((panel, left), (second, right)):
            for group, points in inside[inside["y_column"] == column].groupby("group", sort=False):
                called = label(column) if len(groups) == 1 else f"{group}: {label(column)}"
                draw_points(axis, points, by_line[f"{group}: {column}"], called, across=scale(definition.x[0]),
                            up=scale(column), dashes=(0, (3, 1.5)) if axis is second else "-")  # fmt: skip
            if column == "accuracy":
                percent_axis(axis)
            elif "y" in definition.log:
                scale_axis(axis, "y", scale(column) * inside[inside["y_column"] == column]["y"])
            else:
                axis.set_ylim(0, 1.1 * scale(column) * inside[inside["y_column"] == column]["y"].max())
        if "x" in definition.log:
            scale_axis(panel, "x", frame["x"] * scale(definition.x[0]))
        second.grid(False)
        second.spines["top"].set_visible(False)
        second.set_ylabel(label(right))
        tidy(panel)
        panel.spines["right"].set_visible(True)
    label_axes(panels, label(definition.x[0]), label(left))
    add_legend(figure)
    separate(figure)
    return figure
