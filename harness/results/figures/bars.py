"""Areas under parallelism as bars, largest first."""

from typing import TYPE_CHECKING

from harness.results.figures import areas
from harness.results.figures.definition import Definition
from harness.results.figures.frame import Frame
from harness.results.figures.selected import Selected
from harness.results.figures.style import new_figure, styles, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INTERVAL = areas.INTERVAL


def data(selected: Selected) -> Frame:
    """Return the mean area over tasks of every group, largest first."""
    return areas.over_tasks(areas.areas_of(selected))


def draw(frame: Frame, definition: Definition) -> "Figure":
    """Draw one bar per group, its value beside it."""
    ordered = frame.iloc[::-1]
    figure = new_figure(definition.width, 0.13 * len(ordered) + 0.6)
    panel = figure.subplots()
    bars = panel.barh(ordered["group"], ordered["area"], color=styles("1")["1"].colour, height=0.7)
    panel.bar_label(bars, fmt="%.0f", padding=2, fontsize=6)
    panel.set_xlabel("AUP (% accuracy, tokens per call)")
    panel.margins(x=0.1, y=0.01)
    tidy(panel, "x")
    return figure
