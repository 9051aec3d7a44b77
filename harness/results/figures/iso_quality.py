"""What a search has found: cost and loss of every setting that was tried, and of the chosen ones beside the margin."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.results.figures.frame import Frame
from harness.results.figures.style import GREY, add_legend, draw_points, new_panels, scale_axis, separate, styles
from harness.results.iso_quality import OBJECTIVES, Found, Search

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INTERVAL = (
    "bars: 95 % intervals of the paired difference on the half that was not searched; small points: what was tried, on "
    "the half that was; dashed: the margin"
)


def data(search: Search, found: Sequence[Found]) -> Frame:
    """Return one row per setting that was tried, and per method the chosen one on the other half; y in points."""
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for one in found:
        group = f"{one.run['model']} · {one.run['method']}"
        rows += [{"kind": "tried", "group": group, "x": each.cost, "y": 100 * each.difference.value, "n": each.n}
                 for each in one.tried]  # fmt: skip
        told = one.reported
        rows.append({"kind": "chosen", "group": group, "setting": one.run["setting"], "x": told.cost,
                     "y": 100 * told.difference.value, "low": 100 * (told.difference.low or 0),
                     "high": 100 * (told.difference.high or 0), "n": told.n,
                     "verdict": told.outcome(search.margin / 100).value, "runs": " ".join(one.runs)})  # fmt: skip
    return pd.DataFrame(rows)


def draw(frame: Frame, search: Search) -> "Figure":
    """Draw the loss over the cost, a marker per chosen setting with its verdict."""
    by_group = styles(frame["group"])
    figure, (panel,) = new_panels([""], legend=2 + len(by_group) // 2)
    panel.axhline(-search.margin, color=GREY, lw=0.8, ls=(0, (4, 2)), label=f"{search.margin:g} points lost")
    for group, points in frame.groupby("group", sort=False):
        tried, style = points[points["kind"] == "tried"], by_group[group]
        panel.plot(tried["x"], tried["y"], color=style.colour, ls="", marker=".", ms=2, alpha=0.6)
        chosen = points[points["kind"] == "chosen"]
        draw_points(panel, chosen, style, f"{group}: {chosen['verdict'].iloc[0]}", joined=False)
    scale_axis(panel, "x", frame["x"])
    panel.set_xlabel(f"{OBJECTIVES[search.objective]} per sample")
    panel.set_ylabel("Δ accuracy, points")
    add_legend(figure)
    separate(figure)
    return figure
