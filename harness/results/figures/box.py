"""Columns of samples as boxes: how times, calls or lengths are spread, and what the slowest ones take."""

from typing import TYPE_CHECKING

from harness.results.figures.columns import label, scale
from harness.results.figures.definition import Definition
from harness.results.figures.frame import Frame
from harness.results.figures.selected import Selected
from harness.results.figures.style import label_axes, new_panels, scale_axis, styles
from harness.results.figures.values import SAMPLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INTERVAL = "boxes: quartiles over samples; whiskers: 1.5 times the distance of the quartiles, or the last sample within"


def data(selected: Selected) -> Frame:
    """Return quartiles and ends of whiskers per column, panel and group, by matplotlib's rule.

    What a setting makes of a sample is one value, the mean over seeds and repetitions; `n` counts samples.
    """
    import pandas as pd
    from matplotlib.cbook import boxplot_stats

    columns = selected.definition.y
    frame = selected.named("samples", list(dict.fromkeys(["sample_id", *columns])))
    rows = []
    for y in columns:
        known = frame.dropna(subset=[y]).astype({y: float})
        for (panel, group), part in known.groupby(["panel", "group"], sort=False):
            (found,) = boxplot_stats(part.groupby(["setting", *SAMPLE])[y].mean())
            ends = {"low": found["whislo"], "q1": found["q1"], "median": found["med"], "q3": found["q3"]}
            rows.append({"panel": panel, "y_column": y, "group": group, **ends, "high": found["whishi"],
                         "n": len(part.drop_duplicates([*SAMPLE]))})  # fmt: skip
    return pd.DataFrame(rows, columns=["panel", "y_column", "group", "low", "q1", "median", "q3", "high", "n"])


def draw(frame: Frame, definition: Definition) -> "Figure":
    """Draw a panel per panel and column, and in it a lying box per group, the first at the top."""
    by_group = styles(frame["group"])
    groups, several = list(by_group)[::-1], frame["y_column"].nunique() > 1
    places = list(frame[["panel", "y_column"]].drop_duplicates().itertuples(index=False, name=None))
    figure, panels = new_panels([name for name, _ in places], width=definition.width, legend=len(groups) - 4,
                                share=not several)  # fmt: skip
    for (name, y), panel in zip(places, panels, strict=True):
        inside = frame[frame["y_column"] == y]
        for one in inside[inside["panel"] == name].itertuples():
            box = {"whislo": one.low, "q1": one.q1, "med": one.median, "q3": one.q3, "whishi": one.high}
            drawn = panel.bxp([{key: scale(y) * value for key, value in box.items()}], [groups.index(one.group)],
                              orientation="horizontal", showfliers=False, widths=0.6)  # fmt: skip
            for line in (line for lines in drawn.values() for line in lines):
                line.set_color(by_group[one.group].colour)
        panel.set_yticks(range(len(groups)), groups)
        panel.set_ylim(-0.6, len(groups) - 0.4)
        if "x" in definition.log or "y" in definition.log:
            scale_axis(panel, "x", scale(y) * inside[["low", "high"]].to_numpy().ravel())
        if several:
            panel.set_xlabel(label(y))
            place = panel.get_subplotspec()
            panel.tick_params(labelleft=place is None or place.is_first_col())
    if not several:
        label_axes(panels, label(definition.y[0]), "")
    return figure
