"""One column over another, a point per setting: what fast decoding costs, and what nothing else beats."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from harness.results.comparison import load
from harness.results.figures.columns import MORE_IS_BETTER, OUTCOMES, label, number_of, scale
from harness.results.figures.definition import Definition
from harness.results.figures.frame import Frame
from harness.results.figures.front import front_of
from harness.results.figures.selected import Selected
from harness.results.figures.style import (
    GREY,
    add_legend,
    draw_points,
    label_axes,
    new_panels,
    percent_axis,
    scale_axis,
    separate,
    styles,
)
from harness.results.pareto import front
from harness.results.repeated import num_samples
from harness.results.statistics import wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INTERVAL = "bars: Wilson 95 % intervals of accuracy; a shaded front: its 95 % interval over resampled samples"


@dataclass(frozen=True, kw_only=True)
class TheoryPoint:
    """What an ideal sampler reaches on a task: `nfe` calls, `accuracy` in [0, 1].

    Points of kind `ideal` (k positions per step) are joined to a line; `fewest` marks the fewest calls without loss.
    """

    task: str
    kind: Literal["ideal", "fewest"]
    nfe: float
    accuracy: float


def data(selected: Selected, theory: Sequence[TheoryPoint] = ()) -> Frame:
    """Return one row per setting, panel and pair of columns; runs of one setting weigh equally.

    Theory is added where accuracy is drawn over calls, a panel per task. `front` says that no other point of the panel
    is at least as good in both and better in one, `chance` in which share of resamplings that is so. Rows of kind
    `front` are what the front reaches, with its interval, where all settings of a panel answered the same samples.
    """
    import pandas as pd

    definition = selected.definition
    rows = [row for x in definition.x for y in definition.y for row in _measured(selected, x, y)]
    frame: Frame = pd.DataFrame(rows, columns=_COLUMNS)
    frame["front"] = False
    frame["chance"] = float("nan")
    samples = {one.run["run_id"]: one for one in load(selected.store, selected.ids)} if definition.front else {}
    bands: list[dict[str, Any]] = []
    for (panel, x, y), part in frame.groupby(["panel", "x_column", "y_column"]):
        frame.loc[part.index, "front"] = _front(part, str(x), str(y))
        runs = [[samples[name] for name in names.split() if name in samples] for names in part["runs"]]
        found = front_of(runs, str(x), str(y)) if definition.front and all(runs) else None
        if found is not None:
            frame.loc[part.index, "chance"] = found.chance_S
            ends = zip(found.at_G, found.low_G, found.high_G, strict=True)
            bands += [{"kind": "front", "panel": panel, "x_column": x, "y_column": y, "x": at, "low": low, "high": high,
                       "front": True} for at, low, high in ends]  # fmt: skip
    if bands:
        frame = pd.concat([frame, pd.DataFrame(bands)], ignore_index=True)
    if definition.panels == "task" and definition.x == ("nfe",) and definition.y == ("accuracy",):
        frame = pd.concat([frame, pd.DataFrame([_theory_row(one) for one in theory])], ignore_index=True)
    return frame


_COLUMNS = ["kind", "panel", "x_column", "y_column", "group", "setting", "x", "y", "low", "high", "n", "runs"]


def _measured(selected: Selected, x: str, y: str) -> list[dict[str, Any]]:
    where = selected.definition.name
    points: dict[tuple[str, ...], list[tuple[float, float, dict[str, Any]]]] = {}
    for run in selected.runs:
        place = number_of(run, x, where), number_of(run, y, where)
        if place[0] is not None and place[1] is not None:
            # What a run was told tells points apart; what it found out is averaged.
            told = "" if x in OUTCOMES else str(place[0])
            key = (selected.panel(run), selected.group(run), run["model"], selected.setting(run), told)
            points.setdefault(key, []).append((place[0], place[1], run))
    return [
        {
            "kind": "measured", "panel": panel, "x_column": x, "y_column": y, "group": group, "setting": setting,
            "x": fmean(at for at, _, _ in of), "y": fmean(value for _, value, _ in of),
            **_interval([value for _, value, _ in of], num_samples(run for _, _, run in of), y),
            "runs": " ".join(run["run_id"] for _, _, run in of),
        }
        for (panel, group, _, setting, _), of in points.items()
    ]  # fmt: skip


def _interval(values: Sequence[float], n: int, y: str) -> dict[str, float | None]:
    if y != "accuracy":
        return {"low": None, "high": None, "n": n}
    found = wilson(round(fmean(values) * n), n)
    return {"low": found.low, "high": found.high, "n": n}


def _front(part: Frame, x: str, y: str) -> "list[bool]":
    signs = [1 if column in MORE_IS_BETTER else -1 for column in (x, y)]
    return front(-signs[0] * part["x"].to_numpy(), signs[1] * part["y"].to_numpy()).tolist()


def _theory_row(point: TheoryPoint) -> dict[str, Any]:
    return {
        "kind": point.kind, "panel": point.task, "x_column": "nfe", "y_column": "accuracy", "x": point.nfe,
        "y": point.accuracy, "front": False,
    }  # fmt: skip


def draw(frame: Frame, definition: Definition) -> "Figure":
    """Draw a panel per panel and pair of columns, a marker per setting, and a line through those of a group."""
    measured = frame[frame["kind"] == "measured"]
    places = list(measured[["panel", "x_column", "y_column"]].drop_duplicates().itertuples(index=False, name=None))
    by_group = styles(measured["group"])
    share = len(definition.x) == len(definition.y) == 1
    figure, panels = new_panels([panel for panel, _, _ in places], width=definition.width,
                                legend=2 + len(by_group) // 2, share=share)  # fmt: skip
    for (name, x, y), panel in zip(places, panels, strict=True):
        inside = frame[(frame["panel"] == name) & (frame["x_column"] == x) & (frame["y_column"] == y)]
        _draw_theory(panel, inside)
        _draw_band(panel, inside[inside["kind"] == "front"])
        _draw_measured(panel, inside[inside["kind"] == "measured"], by_group, definition)
    for (_, x, y), panel in zip(places, panels, strict=True):
        of = frame[(frame["x_column"] == x) & (frame["y_column"] == y)]
        of = of[of["kind"] != "front"]
        _scale(panel, of["x"] * scale(x), of["y"] * scale(y), definition, y)
        if not share:
            panel.set_xlabel(label(x))
            panel.set_ylabel(label(y))
    if share:
        label_axes(panels, label(definition.x[0]), label(definition.y[0]))
    add_legend(figure)
    separate(figure)
    return figure


def _draw_measured(panel: "Axes", inside: Frame, by_group: dict, definition: Definition) -> None:
    for name, points in inside.groupby("group", sort=False):
        across, up = (scale(points[key].iloc[0]) for key in ("x_column", "y_column"))
        draw_points(panel, points, by_group[name], name, across=across, up=up, joined=definition.join)
    if definition.front:
        best = inside[inside["front"]].drop_duplicates(["x", "y"]).sort_values("x")
        across, up = scale(best["x_column"].iloc[0]), scale(best["y_column"].iloc[0])
        # A halo stays where it is (markevery) when markers are moved apart.
        panel.plot(across * best["x"], up * best["y"], color=GREY, lw=4, alpha=0.25, zorder=1, marker="o", ms=8,
                   mew=0, markevery=1, label="not beaten in both")  # fmt: skip


def _draw_band(panel: "Axes", band: Frame) -> None:
    """Shade what the front reaches at a cost: from one setting to the next no more than the cheaper one does."""
    if not len(band):
        return
    across, up = (scale(band[key].iloc[0]) for key in ("x_column", "y_column"))
    step = "pre" if band["x_column"].iloc[0] in MORE_IS_BETTER else "post"
    low, high = (up * band[key].astype(float) for key in ("low", "high"))
    panel.fill_between(across * band["x"], low, high, step=step, color=GREY, alpha=0.15, lw=0, zorder=0)


def _draw_theory(panel: "Axes", inside: Frame) -> None:
    ideal = inside[inside["kind"] == "ideal"].sort_values("x")
    if len(ideal):
        panel.plot(ideal["x"], 100 * ideal["y"], color=GREY, lw=0.8, ls=(0, (4, 2)), label="ideal sampler, k per step")
    for one in inside[inside["kind"] == "fewest"].itertuples():
        panel.plot([one.x], [100 * one.y], color=GREY, marker="*", ms=6, mfc="none", ls="",
                   label="fewest calls without loss")  # fmt: skip


def _scale(panel: "Axes", xs: Frame, ys: Frame, definition: Definition, y: str) -> None:
    if "x" in definition.log:
        scale_axis(panel, "x", xs)
    if y in ("accuracy", "accuracy_strict"):
        percent_axis(panel)
    elif "y" in definition.log:
        scale_axis(panel, "y", ys)
