"""Where and when: at which step each position is committed, and how far the order is from left to right.

The order is told by Kendall's tau (b, which allows for ties) of position and step, in windows side by side: 1 is left
to right, -1 right to left, 0 no order. A window that was committed in one step has none and is left out.
"""

from statistics import fmean
from typing import TYPE_CHECKING, Any

from harness.results.figures.definition import Definition
from harness.results.figures.frame import Frame
from harness.results.figures.selected import Selected
from harness.results.figures.style import add_legend, draw_points, new_panels, scale_axis, separate, styles
from harness.results.figures.values import SAMPLE, mean_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INTERVAL = "shade: share of the samples that committed the position then; bars: Student's 95 % intervals over samples"
WINDOWS = (4, 8, 16, 32, 64)
_MOST_CELLS = 32
"""More positions, or steps, than that share cells."""


_COLUMNS = ["kind", "group", "position", "time", "window", "y", "low", "high", "n", "positions", "rows", "columns"]


def data(selected: Selected) -> Frame:
    """Return two kinds of rows per group: `share` of the samples that committed a position (cell) at a time (cell) in
    [0, 1), and `tau` of windows of so many positions, the mean over samples. What several seeds make of a sample is its
    mean.
    """
    import pandas as pd

    columns = ["sample_id", "repetition", "decided_at"]
    frame = selected.named("samples", columns).dropna(subset=["decided_at"])
    places = zip(frame["repetition"], frame["decided_at"], strict=True)
    frame = frame.loc[[at == 0 and any(step >= 0 for step in one) for at, one in places]]
    rows: list[dict[str, Any]] = []
    for group, part in frame.groupby("group", sort=False):
        samples = [[[int(step) for step in one] for one in of["decided_at"]] for _, of in part.groupby([*SAMPLE])]
        rows += [{"group": group, **row} for row in (*_cells(samples), *_windows(samples))]
    return pd.DataFrame(rows, columns=_COLUMNS)


def _cells(samples: list[list[list[int]]]) -> list[dict[str, Any]]:
    from collections import Counter

    orders = [order for of in samples for order in of]
    positions, steps = max(map(len, orders)), 1 + max(map(max, orders))
    wide, high = min(_MOST_CELLS, positions), min(_MOST_CELLS, steps)
    counted: Counter[tuple[int, int]] = Counter()
    of_position: Counter[int] = Counter()
    for order in orders:
        last = 1 + max(order)
        for at, step in enumerate(order):
            if step >= 0:
                column = at * wide // positions
                counted[column, step * high // last] += 1
                of_position[column] += 1
    return [
        {"kind": "share", "position": column * positions / wide, "time": row / high, "y": count / of_position[column],
         "positions": positions, "rows": high, "columns": wide, "n": len(samples)}
        for (column, row), count in sorted(counted.items())
    ]  # fmt: skip


def _windows(samples: list[list[list[int]]]) -> list[dict[str, Any]]:
    rows = []
    for window in WINDOWS:
        known = [[tau for order in of if (tau := order_of(order, window)) is not None] for of in samples]
        taus = [fmean(of) for of in known if of]
        if taus:
            found = mean_of(taus)
            rows.append({"kind": "tau", "window": window, "y": found.value, "low": found.low, "high": found.high,
                         "n": len(taus)})  # fmt: skip
    return rows


def order_of(decided_at: list[int], window: int) -> float | None:
    """Return the mean of Kendall's tau over the full windows of a sample that have an order, None where none has.

    Positions that were given (-1), or never decided (-2), belong to no window.
    """
    steps = [step for step in decided_at if step >= 0]
    windows = (steps[start : start + window] for start in range(0, len(steps) - window + 1, window))
    taus = [_tau(one) for one in windows if len(set(one)) > 1]
    return sum(taus) / len(taus) if taus else None


def _tau(steps: list[int]) -> float:
    from scipy.stats import kendalltau

    found: Any = kendalltau(range(len(steps)), steps)
    return float(found.statistic)


def draw(frame: Frame, definition: Definition) -> "Figure":
    """Draw a map per group, dark where all samples committed, and the order over the width of windows below."""
    by_group = styles(frame["group"])
    figure, panels = new_panels([*by_group, "order in windows"], width=definition.width,
                                legend=1 + len(by_group) // 2, share=False)  # fmt: skip
    for group, panel in zip(by_group, panels, strict=False):
        cells = frame[(frame["group"] == group) & (frame["kind"] == "share")]
        grid, across = _grid(cells)
        shown = panel.imshow(100 * grid, origin="lower", extent=(0, across, 0, 100), aspect="auto", cmap="Blues",
                             vmin=0, vmax=100, interpolation="nearest")  # fmt: skip
        panel.grid(False)
        panel.set_xlabel("position")
        panel.set_ylabel("steps, %")
    figure.colorbar(shown, ax=panels, label="samples, %", shrink=0.4, aspect=20)
    _draw_order(panels[-1], frame[frame["kind"] == "tau"], by_group)
    add_legend(figure)
    separate(figure)
    return figure


def _grid(cells: Frame) -> "tuple[Any, int]":
    """Return the shares as rows of time and columns of position, and how many positions there are."""
    import numpy as np

    positions, rows, columns = (int(cells[name].iloc[0]) for name in ("positions", "rows", "columns"))
    grid = np.zeros((rows, columns))
    for one in cells.itertuples():
        grid[round(one.time * rows), round(one.position * columns / positions)] = one.y
    return grid, positions


def _draw_order(panel: Any, taus: Frame, by_group: Any) -> None:
    for group, points in taus.groupby("group", sort=False):
        draw_points(panel, points.rename(columns={"window": "x"}), by_group[group], group)
    scale_axis(panel, "x", taus["window"])
    panel.set_ylim(-1.1, 1.1)
    panel.set_xlabel("window, positions")
    panel.set_ylabel("Kendall's tau")
