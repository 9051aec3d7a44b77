"""What each call gives: tokens committed, call by call, and how many drafted tokens were accepted."""

from typing import TYPE_CHECKING, Any

from harness.results.figures.definition import Definition
from harness.results.figures.frame import Frame
from harness.results.figures.selected import Selected
from harness.results.figures.style import add_legend, draw_points, new_panels, separate, styles
from harness.results.figures.values import SAMPLE, by_sample, mean_of, share_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INTERVAL = "bars: 95 % intervals over samples and rounds, Student's of means and Wilson's of shares"
_COUNTS = ("n_committed", "n_drafted", "n_accepted")
_COMMITTED, _ACCEPTED = "committed", "accepted"
_AXES = {_COMMITTED: ("call", "tokens committed"), _ACCEPTED: ("accepted draft tokens", "rounds, %")}


def data(selected: Selected) -> Frame:
    """Return the mean number of tokens that each call committed, over the samples that were still decoding, and the
    share of rounds in which so many drafted tokens were accepted.

    Rounds of a sample that was decoded several times, with other seeds, count for as many as one decoding has.
    """
    import pandas as pd

    steps = _calls(selected.named("steps", ["sample_id", "repetition", "step", *_COUNTS, "n_computed"]))
    rows: list[dict[str, Any]] = []
    for (group, step), part in steps.groupby(["group", "step"], sort=False):
        values = by_sample(part, "n_committed")
        found = mean_of(values)
        rows.append({"panel": _COMMITTED, "group": group, "x": step + 1, "y": found.value, "low": found.low,
                     "high": found.high, "n": len(values)})  # fmt: skip
    drafting = steps[steps["n_drafted"] > 0]
    for group, part in drafting.groupby("group", sort=False):
        weights = 1 / _decodings(part)
        n = round(weights.sum())
        for accepted in range(int(part["n_accepted"].max()) + 1):
            found = share_of(part["n_accepted"] == accepted, weights)
            rows.append({"panel": _ACCEPTED, "group": group, "x": accepted, "y": 100 * found.value,
                         "low": 100 * (found.low or 0), "high": 100 * (found.high or 0), "n": n})  # fmt: skip
    return pd.DataFrame(rows, columns=["panel", "group", "x", "y", "low", "high", "n"])


def _calls(steps: Frame) -> Frame:
    """Return a row per call in place of one per step: a step that cost nothing belongs to the call before it."""
    one = [name for name in steps.columns if name not in (*_COUNTS, "step", "n_computed")]
    ordered = steps.sort_values("step", kind="stable")
    called = ordered["n_computed"].fillna(1).gt(0)
    call = called.groupby([ordered[name] for name in one], sort=False).cumsum() - 1
    grouped = ordered.assign(step=call.clip(lower=0)).groupby([*one, "step"], sort=False)
    return grouped[[*_COUNTS]].sum(min_count=1).reset_index()


def _decodings(steps: Frame) -> Frame:
    """Return, for every step, how often its sample was decoded."""
    named = steps.assign(decoding=steps["run_id"] + " " + steps["repetition"].astype(str))
    return named.groupby([*SAMPLE])["decoding"].transform("nunique")


def draw(frame: Frame, definition: Definition) -> "Figure":
    """Draw a line per group and call, and one per group and accepted length where anything was drafted."""
    from matplotlib.ticker import MaxNLocator

    by_group = styles(frame["group"])
    names = list(dict.fromkeys(frame["panel"]))
    figure, panels = new_panels([""] * len(names), width=definition.width, legend=1 + len(by_group) // 2, share=False)
    for name, panel in zip(names, panels, strict=True):
        for group, points in frame[frame["panel"] == name].groupby("group", sort=False):
            draw_points(panel, points, by_group[group], group)
        panel.set_ylim(bottom=0)
        across, up = _AXES[name]
        panel.set_xlabel(across)
        panel.set_ylabel(up)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    add_legend(figure)
    separate(figure)
    return figure
