"""Published values beside measured ones: a hollow diamond for what was printed, a dot with its interval for ours."""

from typing import TYPE_CHECKING

from harness.results.figures.frame import Frame
from harness.results.figures.style import add_legend, new_figure, styles, tidy
from harness.results.published import QUANTITIES, PublishedTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANEL_INCHES = 1.5
_LABEL_INCHES = 1.6


def draw(frame: Frame, table: PublishedTable) -> "Figure":
    """Draw a panel per quantity and a line per cell of the table, the first at the top; what is missing stays empty."""
    places = list(frame[["row", "column"]].drop_duplicates().itertuples(index=False, name=None))
    names = [" · ".join(one for one in place if len(table.across) > 1 or one != place[1]) for place in places]
    width = _LABEL_INCHES + _PANEL_INCHES * len(table.quantities)
    figure = new_figure(max(3.3, width), 0.13 * len(places) + 0.9)
    panels = figure.subplots(1, len(table.quantities), sharey=True, squeeze=False)[0]
    for quantity, panel in zip(table.quantities, panels, strict=True):
        _draw_quantity(panel, frame[frame["quantity"] == quantity])
        panel.set_title(QUANTITIES[quantity], loc="left")
        tidy(panel)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    add_legend(figure)
    return figure


def _draw_quantity(panel: "Axes", values: Frame) -> None:
    printed, ours = styles(("published", "measured")).values()
    at = range(len(values))
    panel.plot(values["published"].astype(float), at, color=printed.colour, marker="D", mfc="none", ls="",
               label="published")  # fmt: skip
    panel.plot(values["measured"].astype(float), at, color=ours.colour, marker="o", ms=3, ls="", label="measured")
    for place, low, high in zip(at, values["low"].astype(float), values["high"].astype(float), strict=True):
        panel.plot([low, high], [place, place], color=ours.colour, lw=0.7)
