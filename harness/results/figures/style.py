"""How figures look: readable in one column of a paper, without colours, and with every marker in sight."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, floor, isnan, log
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import ConfigError, MissingDependency
from harness.results.figures.frame import Frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# Okabe and Ito without yellow: distinguishable under every common colour blindness.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
# Counts without a common divisor: 77 pairs before one comes again, neighbours differ in both.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")
_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
GREY = "#6e6e6e"
_LIGHT = "#e6e6e6"

COLUMN_INCHES = 3.3
_PANEL_INCHES = 1.6
_RATIO = 0.8
_LINE_INCHES = 0.14

# Points of 1/72 inch: markers nearer than the first are moved apart by the second, within the third in all.
_MOST_DOUBLINGS, _LEAST = 256, 1 / 16
_NEAR, _APART, _MOST = 4.0, 2.4, 11.0


@dataclass(frozen=True, kw_only=True)
class Style:
    """What tells one group from another, each alone."""

    colour: str
    marker: str
    dashes: Any


def styles(names: Iterable[str]) -> dict[str, Style]:
    """Return a style per name, in order of appearance."""
    return {
        name: Style(
            colour=_COLOURS[at % len(_COLOURS)], marker=_MARKERS[at % len(_MARKERS)], dashes=_DASHES[at % len(_DASHES)]
        )
        for at, name in enumerate(dict.fromkeys(names))
    }


@contextmanager
def drawing() -> "Iterator[None]":
    """Draw and write figures under the settings of this house; raise MissingDependency without matplotlib."""
    try:
        import matplotlib as mpl
        import matplotlib.figure
    except ImportError as error:
        raise MissingDependency("figures need matplotlib: pip install 'decbench[figures]'") from error
    with mpl.rc_context(_look()):  # type: ignore[arg-type]
        yield


def _look() -> dict[str, Any]:
    small = ("axes.titlesize", "axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize")
    sizes = dict.fromkeys(small, 6.5) | {"font.size": 7, "figure.labelsize": 7, "legend.title_fontsize": 6.5}
    lines = {"lines.linewidth": 0.9, "lines.markersize": 4.2, "lines.markeredgewidth": 0.9, "axes.linewidth": 0.6}
    # Text stays text, and the same data give the same bytes.
    files = {"svg.fonttype": "none", "svg.hashsalt": "decbench", "pdf.fonttype": 42, "savefig.dpi": 300}
    return {**sizes, **lines, **files, "xtick.major.width": 0.6, "ytick.major.width": 0.6}


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of a size in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02)  # type: ignore[union-attr]
    return figure


def new_panels(
    titles: Sequence[str], *, width: float = COLUMN_INCHES, legend: int = 0, share: bool = True
) -> "tuple[Figure, list[Axes]]":
    """Return a figure with one panel per title in a grid, and room for a legend of so many entries below it.

    Raises ConfigError where there is no panel.
    """
    if not titles:
        raise ConfigError("no run has what it shows")
    rows = ceil(len(titles) / max(1, round(width / _PANEL_INCHES)))
    columns = ceil(len(titles) / rows)
    height = rows * (0.25 + _RATIO * min(width / columns, 1.6 * _PANEL_INCHES)) + _LINE_INCHES * legend
    figure = new_figure(width, height + 0.3)
    places = list(figure.subplots(rows, columns, sharex=share, sharey=share, squeeze=False).flat)
    panels = places[: len(titles)]
    for title, panel in zip(titles, panels, strict=True):
        panel.set_title(title, loc="left")
        tidy(panel)
    for panel in places[len(titles) :]:
        panel.remove()
    for panel in panels[-columns:]:
        panel.tick_params(labelbottom=True)
    return figure, panels


def label_axes(panels: "Sequence[Axes]", x: str, y: str) -> None:
    """Write what all panels share below the lowest and beside the leftmost of them."""
    for panel in panels:
        place = panel.get_subplotspec()
        assert place is not None
        if place.is_first_col():
            panel.set_ylabel(y)
        if panel.xaxis.get_tick_params()["labelbottom"]:
            panel.set_xlabel(x)


def tidy(panel: "Axes", grid: "Literal['both', 'x', 'y']" = "both") -> None:
    """Put a light grid behind what is drawn, and leave out the frame's top and right."""
    panel.grid(axis=grid, color=_LIGHT, lw=0.5)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def draw_points(
    panel: "Axes",
    points: Frame,
    style: Style,
    name: str,
    *,
    across: float = 1.0,
    up: float = 1.0,
    dashes: Any = None,
    joined: bool = True,
) -> None:
    """Draw the points of a group, with columns x, y, low and high: hollow markers, bars of intervals, a line through.

    Values are multiplied by `across` and `up`; `low` and `high` may be unknown.
    """
    ordered = points.sort_values("x").astype({"low": float, "high": float})
    line = (style.dashes if dashes is None else dashes) if joined and len(points) > 1 else ""
    # What the legend shows; each marker is drawn alone, so that it can be moved.
    panel.plot(across * ordered["x"], up * ordered["y"], color=style.colour, ls=line, lw=0.7, marker=style.marker,
               mfc="none", markevery=[], label=name)  # fmt: skip
    for one in ordered.itertuples():
        x, low, high = across * float(one.x), up * float(one.low), up * float(one.high)
        if not isnan(low):
            panel.plot([x, x], [low, high], color=style.colour, lw=0.6, zorder=2)
        panel.plot([x], [up * float(one.y)], color=style.colour, marker=style.marker, mfc="none", ls="", zorder=3)


def separate(figure: "Figure") -> None:
    """Move markers that hide each other apart, up and down by a few points of 1/72 inch; all stand at their x.

    To be called last: what is near is known when everything has its place.
    """
    from matplotlib.transforms import ScaledTranslation

    figure.draw_without_rendering()
    for panel in figure.axes:
        marks = marks_of(panel)
        places = [panel.transData.transform(line.get_xydata()[0]) * 72 / figure.dpi for line in marks]  # type: ignore[index]
        for cluster in _clusters([(float(x), float(y)) for x, y in places]):
            step = min(_APART, _MOST / max(1, len(cluster) - 1))
            for rank, at in enumerate(cluster):
                rise = step * (rank - (len(cluster) - 1) / 2)
                moved = ScaledTranslation(0, rise / 72, figure.dpi_scale_trans)
                marks[at].set_transform(panel.transData + moved)


def marks_of(panel: "Axes") -> "list[Line2D]":
    """Return what marks one point each; a line that has a marker for the legend alone is none."""
    return [line for line in panel.lines if len(line.get_xydata()) == 1 and line.get_markevery() is None]  # type: ignore[arg-type]


def _clusters(places: Sequence[tuple[float, float]]) -> list[list[int]]:
    """Return the indices of places that lie near a common one, lowest first."""
    clusters: list[list[int]] = []
    for at in sorted(range(len(places)), key=lambda i: (places[i][1], i)):
        x, y = places[at]
        near = (c for c in clusters if abs(places[c[0]][0] - x) < _NEAR and abs(places[c[0]][1] - y) < _NEAR)
        home = next(near, None)
        if home is None:
            clusters.append([at])
        else:
            home.append(at)
    return clusters


def add_legend(figure: "Figure", *, title: str | None = None, columns: int | None = None) -> None:
    """Put one legend of everything that has a label below the panels."""
    entries: dict[str, Any] = {}
    for panel in figure.axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if not entries:
        return
    widest = max(map(len, entries))
    fits = columns or max(1, int(figure.get_figwidth() * 72 / (3.6 * widest + 24)))
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside lower center",
        ncols=min(fits, len(entries)),
        frameon=False,
        title=title,
        handlelength=1.8,
        columnspacing=1.0,
        labelspacing=0.3,
    )


def scale_axis(panel: "Axes", axis: "Literal['x', 'y']", values: "Iterable[float]") -> None:
    """Give an axis a logarithmic scale with ticks at powers of two, of ten where these would be many or long."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    positive = [value for value in values if value > 0]
    if not positive:
        return
    base = 2 if max(positive) / min(positive) <= _MOST_DOUBLINGS and min(positive) >= _LEAST else 10
    first, last = floor(log(min(positive), base) + 1e-9), ceil(log(max(positive), base) - 1e-9)
    ticks = [base**power for power in range(first, max(last, first + 1) + 1)]
    getattr(panel, f"set_{axis}scale")("log", base=base)
    one = getattr(panel, f"{axis}axis")
    one.set_major_locator(FixedLocator(ticks))
    one.set_minor_locator(NullLocator())
    one.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    edge = base**0.3
    getattr(panel, f"set_{axis}lim")(min(positive[0], *positive) / edge, max(positive) * edge)


def percent_axis(panel: "Axes", axis: "Literal['x', 'y']" = "y") -> None:
    """Show all of 0 to 100 percent."""
    getattr(panel, f"set_{axis}lim")(-9, 111)
    getattr(panel, f"set_{axis}ticks")([0, 25, 50, 75, 100])
