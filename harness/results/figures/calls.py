"""The figure of a sweep: accuracy over model calls per task, with what an ideal sampler reaches.

A figure takes data and draws it; it runs no model and contains no number of its own. The csv holds every point.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness.results.comparison import Comparison
from harness.results.figures.style import GREY, Style, add_legend, drawing, mark, new_panels, separate, styles

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Line = tuple[str, str]
_WIDTH = 6.9


@dataclass(frozen=True, kw_only=True)
class TheoryPoint:
    """What an ideal sampler reaches on a task: `nfe` calls, `accuracy` in [0, 1].

    Points of kind `ideal` (k positions per step) are joined to a line; `fewest` marks the fewest calls without loss.
    """

    task: str
    kind: Literal["ideal", "fewest"]
    nfe: float
    accuracy: float


@drawing()
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
    by_line = styles(" · ".join((one.model, one.method)) for one in drawn)
    figure, panels = new_panels(tasks, width=_WIDTH, legend=2 + len(by_line) // 3)
    for task, panel in zip(tasks, panels, strict=True):
        measured, ideal = [one for one in drawn if one.tasks[0] == task], [p for p in theory if p.task == task]
        _draw_panel(panel, measured, ideal, by_line)
    _label(figure, panels, drawn)
    add_legend(figure)
    separate(figure)
    return figure, pd.DataFrame([*map(_measured_record, per_task), *map(_theory_record, theory)])


def save(figure: "Figure", points: "pd.DataFrame", path: Path) -> list[Path]:
    """Write `path` with the suffixes .svg, .png and .csv, the same bytes for the same data; return the paths."""
    path.parent.mkdir(parents=True, exist_ok=True)
    svg, png, csv = (path.with_suffix(suffix) for suffix in (".svg", ".png", ".csv"))
    with drawing():
        figure.savefig(svg, metadata={"Date": None})
        figure.savefig(png, metadata={"Software": None})
    points.to_csv(csv, index=False, float_format="%.6g")
    return [svg, png, csv]


def _draw_panel(
    panel: "Axes", measured: Sequence[Comparison], theory: Sequence[TheoryPoint], by_line: dict[str, Style]
) -> None:
    ideal = sorted((point.nfe, 100 * point.accuracy) for point in theory if point.kind == "ideal")
    if ideal:
        calls, accuracies = zip(*ideal, strict=True)
        panel.plot(calls, accuracies, color=GREY, ls=(0, (4, 2)), label="ideal sampler, k per step", zorder=1)
    for point in (point for point in theory if point.kind == "fewest"):
        panel.plot([point.nfe], [100 * point.accuracy], color=GREY, marker="*", ms=7, mfc="none", ls="",
                   label="fewest calls without loss", zorder=2)  # fmt: skip
    for name, style in by_line.items():
        points = sorted(
            ((one.nfe or 0, one.accuracy) for one in measured if " · ".join((one.model, one.method)) == name),
            key=lambda point: point[0],
        )
        if points:
            calls, accuracies = [x for x, _ in points], [100 * one.value for _, one in points]
            panel.plot(calls, accuracies, color=style.colour, marker=style.marker, mfc="none", ls=style.dashes,
                       lw=0.7, markevery=[], label=name)  # fmt: skip
            for x, one in points:
                mark(panel, x, 100 * one.value, style, low=100 * (one.low or 0), high=100 * (one.high or 0))


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
        panel.set_xlim(ticks[0] * 0.8, ticks[-1] * 1.25)
        panel.set_ylim(-6, 108)
        panel.set_yticks([0, 25, 50, 75, 100])
    figure.supxlabel("model calls per sample (nfe, log scale)")
    figure.supylabel("accuracy, % (Wilson 95 % interval)")


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
