"""The figure of a sweep: accuracy over model calls per task, with what an ideal sampler reaches.

A figure takes data and draws it; it runs no model and contains no number of its own. The csv holds every point.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import MissingDependency
from harness.results.comparison import Comparison

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito: distinguishable under every common colour blindness; the marker repeats what the colour says.
_STYLES = (
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#56B4E9", "v"),
    ("#E69F00", "P"),
    ("#000000", "X"),
    ("#8C6D00", "<"),
    ("#7F3C8D", ">"),
    ("#666666", "p"),
)
_GREY = "#8a8a8a"
Line = tuple[str, str]
_COLUMNS = 3
_PANEL_INCHES = (2.35, 1.95)
# Markers of accuracies that differ by less (percent points) are drawn at least so many powers of two apart.
_SAME_ACCURACY = 5.0
_APART = 0.24


@dataclass(frozen=True, kw_only=True)
class TheoryPoint:
    """What an ideal sampler reaches on a task: `nfe` calls, `accuracy` in [0, 1].

    Points of kind `ideal` (k positions per step) are joined to a line; `fewest` marks the fewest calls without loss.
    """

    task: str
    kind: Literal["ideal", "fewest"]
    nfe: float
    accuracy: float


def accuracy_over_calls(
    per_task: Sequence[Comparison], theory: Sequence[TheoryPoint] = ()
) -> "tuple[Figure, pd.DataFrame]":
    """Draw one panel per task and one line per model and method, through its settings; return figure and points.

    At least one setting has model calls that are known; those without are among the points only.
    Raises MissingDependency without matplotlib.
    """
    import pandas as pd

    drawn = [one for one in per_task if one.nfe]
    tasks = list(dict.fromkeys(one.tasks[0] for one in drawn))
    styles = _styles(drawn)
    rows = math.ceil(len(tasks) / _COLUMNS)
    columns = math.ceil(len(tasks) / rows)
    width, height = _PANEL_INCHES
    figure = new_figure(width * columns + 2.0, height * rows + 0.6)
    places = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    panels = places[: len(tasks)]
    for task, panel in zip(tasks, panels, strict=True):
        measured, ideal = [one for one in drawn if one.tasks[0] == task], [p for p in theory if p.task == task]
        _draw_panel(panel, measured, ideal, styles)
        panel.set_title(task, fontsize=9, loc="left")
    for panel in places[len(tasks) :]:
        panel.remove()
    for panel in panels[-columns:]:
        panel.tick_params(labelbottom=True)
    _label(figure, panels, drawn)
    _add_legend(figure, panels)
    return figure, pd.DataFrame([*map(_measured_record, per_task), *map(_theory_record, theory)])


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure of a size in inches; raise MissingDependency without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency("figures need matplotlib: pip install 'decbench[figures]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def tidy(panel: "Axes", grid: "Literal['both', 'x']" = "both") -> None:
    """Put a light grid behind what is drawn, and leave out the frame's top and right."""
    panel.grid(axis=grid, color="#e6e6e6", lw=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def save(figure: "Figure", points: "pd.DataFrame", path: Path) -> list[Path]:
    """Write `path` with the suffixes .svg, .png and .csv, the same bytes for the same data; return the paths."""
    import matplotlib as mpl

    path.parent.mkdir(parents=True, exist_ok=True)
    svg, png, csv = (path.with_suffix(suffix) for suffix in (".svg", ".png", ".csv"))
    with mpl.rc_context({"svg.hashsalt": "decbench", "svg.fonttype": "none"}):
        figure.savefig(svg, metadata={"Date": None})
    figure.savefig(png, dpi=200, metadata={"Software": None})
    points.to_csv(csv, index=False, float_format="%.6g")
    return [svg, png, csv]


def _styles(comparisons: Sequence[Comparison]) -> dict[Line, tuple[str, str]]:
    lines = dict.fromkeys((one.model, one.method) for one in comparisons)
    return {line: _STYLES[index % len(_STYLES)] for index, line in enumerate(lines)}


def _draw_panel(
    panel: "Axes", measured: Sequence[Comparison], theory: Sequence[TheoryPoint], styles: dict[Line, tuple[str, str]]
) -> None:
    ideal = sorted((point.nfe, 100 * point.accuracy) for point in theory if point.kind == "ideal")
    fewest = [(point.nfe, 100 * point.accuracy) for point in theory if point.kind == "fewest"]
    if ideal:
        calls, accuracies = zip(*ideal, strict=True)
        panel.plot(calls, accuracies, color=_GREY, lw=1.2, ls=(0, (4, 2)), label="ideal sampler, k per step", zorder=1)
    places = _side_by_side([(one.nfe or 0, 100 * one.accuracy.value) for one in measured] + fewest)
    if fewest:
        panel.plot(places[len(measured) :], [accuracy for _, accuracy in fewest], color=_GREY, marker="*", ms=11,
                   mec="white", mew=0.6, ls="", label="fewest calls without loss", zorder=2)  # fmt: skip
    for line, style in styles.items():
        points = [(x, one) for x, one in zip(places, measured, strict=False) if (one.model, one.method) == line]
        if points:
            _draw_line(panel, sorted(points, key=lambda point: point[0]), " · ".join(line), style)


def _draw_line(panel: "Axes", points: Sequence[tuple[float, Comparison]], label: str, style: tuple[str, str]) -> None:
    colour, marker = style
    centres = [100 * one.accuracy.value for _, one in points]
    # Rounding can leave a bar of -1e-15 at 0 and 100 percent, which matplotlib refuses.
    below = [max(0.0, y - 100 * (one.accuracy.low or 0)) for y, (_, one) in zip(centres, points, strict=True)]
    above = [max(0.0, 100 * (one.accuracy.high or 0) - y) for y, (_, one) in zip(centres, points, strict=True)]
    panel.errorbar([x for x, _ in points], centres, yerr=[below, above], color=colour, marker=marker, ms=5.5,
                   mec="white", mew=0.5, lw=1, elinewidth=0.6, label=label, zorder=3)  # fmt: skip


def _side_by_side(points: Sequence[tuple[float, float]]) -> list[float]:
    """Return where to draw each (calls, accuracy) so that markers of nearly equal values stay apart."""
    places = [math.log2(calls) for calls, _ in points]
    for band in _bands([accuracy for _, accuracy in points]):
        clusters: list[list[int]] = []
        for index in sorted(band, key=lambda i: places[i]):
            clusters.append([index])
            while len(clusters) > 1 and _overlap(clusters[-2], clusters[-1], places):
                clusters[-2:] = [clusters[-2] + clusters[-1]]
        rows = [zip(cluster, _row(cluster, places), strict=True) for cluster in clusters]
        for index, place in [pair for row in rows for pair in row]:
            places[index] = place
    return [2**place for place in places]


def _bands(accuracies: Sequence[float]) -> list[list[int]]:
    bands: list[list[int]] = []
    for index in sorted(range(len(accuracies)), key=lambda i: accuracies[i]):
        if bands and accuracies[index] - accuracies[bands[-1][-1]] < _SAME_ACCURACY:
            bands[-1].append(index)
        else:
            bands.append([index])
    return bands


def _row(cluster: Sequence[int], places: Sequence[float]) -> list[float]:
    centre = fmean(places[index] for index in cluster)
    return [centre + _APART * (rank - (len(cluster) - 1) / 2) for rank in range(len(cluster))]


def _overlap(left: Sequence[int], right: Sequence[int], places: Sequence[float]) -> bool:
    return _row(right, places)[0] - _row(left, places)[-1] < _APART


def _label(figure: "Figure", panels: "Sequence[Axes]", comparisons: Sequence[Comparison]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    calls = [one.nfe for one in comparisons if one.nfe]
    fewest, most = min(calls), max(calls)
    ticks = [2**power for power in range(math.floor(math.log2(fewest)), math.ceil(math.log2(most)) + 1)]
    for panel in panels:
        panel.set_xscale("log", base=2)
        panel.xaxis.set_major_locator(FixedLocator(ticks))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(FuncFormatter(lambda calls, _: f"{calls:g}"))
        panel.set_xlim(ticks[0] * 0.5, ticks[-1] * 1.5)
        panel.set_ylim(-6, 108)
        panel.set_yticks([0, 25, 50, 75, 100])
        panel.tick_params(labelsize=8)
        tidy(panel)
    figure.supxlabel("model calls per sample (nfe, log scale)", fontsize=9)
    figure.supylabel("accuracy, % (Wilson 95 % interval)", fontsize=9)


def _add_legend(figure: "Figure", panels: "Sequence[Axes]") -> None:
    entries: dict[str, Any] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    legend = figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside right upper",
        fontsize=8,
        frameon=False,
        title="markers that would overlap\nare drawn side by side",
        title_fontsize=7,
    )
    legend.set_alignment("left")


def _measured_record(one: Comparison) -> dict[str, object]:
    return {
        "task": one.tasks[0],
        "kind": "measured",
        "model": one.model,
        "method": one.method,
        "setting": one.setting,
        "n": one.n,
        "nfe": one.nfe,
        "tpf": one.tpf,
        "query_tokens": one.query_tokens,
        "accuracy": one.accuracy.value,
        "accuracy_low": one.accuracy.low,
        "accuracy_high": one.accuracy.high,
    }


def _theory_record(point: TheoryPoint) -> dict[str, object]:
    return {"task": point.task, "kind": point.kind, "nfe": point.nfe, "accuracy": point.accuracy}
