"""Tokens per call at which blocks are as fast as a causal model, over batch sizes, and what methods reach."""

from typing import TYPE_CHECKING

from harness.results.figures.frame import Frame
from harness.results.figures.style import GREY, add_legend, draw_points, new_panels, scale_axis, separate, styles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INTERVAL = (
    "lines end where even a call per block is slower; markers: means over runs, with thin lines to larger "
    "batches, since what a row reaches does not depend on the others"
)
_NAMES = {"none": "no cache", "block_causal": "block-causal"}
_SHORT = 24
"""Letters of a name that leave room for another beside it in the legend."""
LINE, REACHED = "line", "reached"


def draw(frame: Frame, block: int) -> "Figure":
    """Draw a line per cache and a marker per method; columns kind (line or reached), group, x, y, low and high.

    `block` is the most tokens that a call can decide.
    """
    lines, reached = frame[frame["kind"] == LINE], frame[frame["kind"] == REACHED]
    by_group = styles(frame["group"])
    entries, longest = 1 + len(by_group), max(map(len, by_group))
    figure, (panel,) = new_panels([""], legend=entries if longest > _SHORT else 1 + entries // 2)
    panel.axhline(block, color=GREY, lw=0.8, ls=(0, (4, 2)), label=f"a call per block of {block}")
    for group, points in lines.groupby("group", sort=False):
        style = by_group[group]
        panel.plot(points["x"], points["y"], color=style.colour, ls=style.dashes, lw=1.1,
                   label=_NAMES.get(str(group), f"{group} cache"))  # fmt: skip
    for group, points in reached.groupby("group", sort=False):
        # The spread over runs would hide the markers of others, which often share a batch size: the csv has it.
        draw_points(panel, points.assign(low=None), by_group[group], str(group), joined=False)
        for one in points.itertuples():
            panel.plot([one.x, frame["x"].max()], [one.y, one.y], color=by_group[group].colour, lw=0.4, alpha=0.6)
    scale_axis(panel, "x", frame["x"])
    scale_axis(panel, "y", [1, block, *frame["y"].dropna()])
    panel.set_xlabel("batch size")
    panel.set_ylabel("tokens per call and row")
    add_legend(figure)
    separate(figure)
    return figure
