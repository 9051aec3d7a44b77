"""How sure a decoder is while it decodes: scores, entropies and margins of what it commits, from the first to the last
step, and scores against the share that is decided already.
"""

from typing import TYPE_CHECKING, Any

from harness.results.figures.definition import Definition
from harness.results.figures.frame import Frame
from harness.results.figures.selected import Selected
from harness.results.figures.style import add_legend, draw_points, new_panels, separate, styles
from harness.results.figures.values import by_sample, mean_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INTERVAL = "bars: Student's 95 % intervals over samples"
_BINS = 10
_PANELS = {
    "score": ("time", "score of commits"),
    "entropy": ("time", "entropy, nats"),
    "margin": ("time", "margin, nats"),
    "score over share decided": ("decided", "score of commits"),
}


def data(selected: Selected) -> Frame:
    """Return, per quantity, group and tenth of the way, the mean over samples of the steps that committed something.

    `x` is the middle of the tenth in percent: of the sample's steps, or of its positions that were decided before.
    """
    import pandas as pd

    columns = ["sample_id", "repetition", "step", "n_committed", "scores", "entropy", "token_margin"]
    steps = selected.named("steps", columns)
    steps = steps[steps["n_committed"] > 0].sort_values("step", kind="stable")
    of_sample = steps.groupby(["run_id", "sample_id", "repetition"], sort=False)
    steps["time"] = steps["step"] / (1 + of_sample["step"].transform("max"))
    committed = of_sample["n_committed"]
    steps["decided"] = (committed.cumsum() - steps["n_committed"]) / committed.transform("sum")
    steps["score"], steps["margin"] = steps["scores"].map(_mean), steps["token_margin"]
    steps["entropy"] = steps["entropy"].map(_mean)
    rows: list[dict[str, Any]] = []
    for name, (across, _) in _PANELS.items():
        quantity = name.split()[0]
        known = steps.dropna(subset=[quantity])
        tenth = (known[across] * _BINS).astype(int).clip(upper=_BINS - 1)
        for (group, at), part in known.groupby(["group", tenth], sort=False):
            values = by_sample(part, quantity)
            found = mean_of(values)
            rows.append({"panel": name, "group": group, "x": 100 * (at + 0.5) / _BINS, "y": found.value,
                         "low": found.low, "high": found.high, "n": len(values)})  # fmt: skip
    return pd.DataFrame(rows, columns=["panel", "group", "x", "y", "low", "high", "n"])


def _mean(values: Any) -> float:
    known = [float(one) for one in values if one is not None and one == one] if values is not None else []
    return sum(known) / len(known) if known else float("nan")


def draw(frame: Frame, definition: Definition) -> "Figure":
    """Draw a panel per quantity and a line per group."""
    by_group = styles(frame["group"])
    names = [name for name in _PANELS if name in set(frame["panel"])]
    figure, panels = new_panels([""] * len(names), width=definition.width, legend=1 + len(by_group) // 2, share=False)
    for name, panel in zip(names, panels, strict=True):
        across, up = _PANELS[name]
        for group, points in frame[frame["panel"] == name].groupby("group", sort=False):
            draw_points(panel, points, by_group[group], group)
        panel.set_xlim(-2, 102)
        panel.set_xticks([0, 50, 100])
        panel.set_xlabel("steps, %" if across == "time" else "decided before, %")
        panel.set_ylabel(up)
        # Means are what is read; an interval of two steps may reach far beyond.
        means = frame[frame["panel"] == name]["y"]
        room = 0.15 * (means.max() - means.min()) or 1.0
        panel.set_ylim(means.min() - room, means.max() + room)
    add_legend(figure)
    separate(figure)
    return figure
