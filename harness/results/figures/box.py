"""A column of samples as boxes: how times, calls or lengths are spread, and what the slowest ones take."""

from typing import TYPE_CHECKING

from harness.results.figures.columns import label, scale
from harness.results.figures.definition import Definition
from harness.results.figures.frame import Frame
from harness.results.figures.selected import Selected
from harness.results.figures.style import label_axes, new_panels, scale_axis, styles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INTERVAL = "boxes: quartiles over samples; whiskers: 1.5 times the distance of the quartiles, or the last sample within"


def data(selected: Selected) -> Frame:
    """Return quartiles and ends of whiskers per panel and group, by matplotlib's rule."""
    import pandas as pd
    from matplotlib.cbook import boxplot_stats

    (y,) = selected.definition.y[:1]
    frame = selected.named("samples", [y]).dropna(subset=[y])
    rows = []
    for (panel, group), part in frame.groupby(["panel", "group"], sort=False):
        (found,) = boxplot_stats(part[y].astype(float))
        ends = {"low": found["whislo"], "q1": found["q1"], "median": found["med"], "q3": found["q3"]}
        rows.append({"panel": panel, "group": group, **ends, "high": found["whishi"], "n": len(part)})
    return pd.DataFrame(rows, columns=["panel", "group", "low", "q1", "median", "q3", "high", "n"])


def draw(frame: Frame, definition: Definition) -> "Figure":
    """Draw a panel per panel and a lying box per group, the first at the top."""
    by_group = styles(frame["group"])
    names, groups = list(dict.fromkeys(frame["panel"])), list(by_group)[::-1]
    (y,) = definition.y[:1]
    figure, panels = new_panels(names, width=definition.width, legend=len(groups) - 4)
    for name, panel in zip(names, panels, strict=True):
        for one in frame[frame["panel"] == name].itertuples():
            box = {"whislo": one.low, "q1": one.q1, "med": one.median, "q3": one.q3, "whishi": one.high}
            drawn = panel.bxp([{key: scale(y) * value for key, value in box.items()}], [groups.index(one.group)],
                              orientation="horizontal", showfliers=False, widths=0.6)  # fmt: skip
            for line in (line for lines in drawn.values() for line in lines):
                line.set_color(by_group[one.group].colour)
        panel.set_yticks(range(len(groups)), groups)
        panel.set_ylim(-0.6, len(groups) - 0.4)
        if "x" in definition.log or "y" in definition.log:
            scale_axis(panel, "x", scale(y) * frame[["low", "high"]].to_numpy().ravel())
    label_axes(panels, label(y), "")
    return figure
