"""When answers emerge: the share of correct answers that stand, over the steps (arXiv:2508.19982, section 3)."""

from typing import TYPE_CHECKING, Any

from harness.results.convergence import Emergence, emerged, emergences
from harness.results.figures.definition import Definition
from harness.results.figures.frame import Frame
from harness.results.figures.selected import Selected
from harness.results.figures.style import add_legend, label_axes, new_panels, percent_axis, styles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INTERVAL = "Wilson 95 % intervals in the csv"
_ASKED = (25.0, 50.0)


def data(selected: Selected) -> Frame:
    """Return, per panel and group, the share of correct answers that have emerged by each percentage of the steps.

    Rows stand where the share rises, at 25, at 50 and at 100 percent. Correct samples only, each once.
    """
    import pandas as pd

    runs = {run["run_id"]: run for run in selected.runs}
    found: dict[tuple[str, str], list[Emergence]] = {}
    for one in emergences(selected.store, selected.ids):
        run = runs[one.run_id]
        found.setdefault((selected.panel(run), selected.group(run)), []).append(one)
    rows: list[dict[str, Any]] = []
    for (panel, group), of in found.items():
        for at in sorted({*_ASKED, 100.0}.union(*(one.percent.values() for one in of))):
            share = emerged(of, at)
            if share is not None:
                rows.append({"panel": panel, "group": group, "x": at, "y": share.share.value, "low": share.share.low,
                             "high": share.share.high, "n": share.n})  # fmt: skip
    return pd.DataFrame(rows, columns=["panel", "group", "x", "y", "low", "high", "n"])


def draw(frame: Frame, definition: Definition) -> "Figure":
    """Draw, per panel, a staircase per group."""
    names, by_group = list(dict.fromkeys(frame["panel"])), styles(frame["group"])
    figure, panels = new_panels(names, width=definition.width, legend=1 + len(by_group))
    for name, panel in zip(names, panels, strict=True):
        for group, points in frame[frame["panel"] == name].groupby("group", sort=False):
            style = by_group[group]
            panel.step([0, *points["x"]], [0, *(100 * points["y"])], where="post", color=style.colour,
                       ls=style.dashes, label=group)  # fmt: skip
        percent_axis(panel)
        panel.set_xlim(-2, 102)
        panel.set_xticks([0, 25, 50, 75, 100])
    label_axes(panels, "steps, %", "emerged, % of correct answers")
    add_legend(figure)
    return figure
