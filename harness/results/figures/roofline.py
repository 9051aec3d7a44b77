"""Calls that were timed under the roof of a machine, and what was predicted for them."""

from typing import TYPE_CHECKING

from harness.results.figures.frame import Frame
from harness.results.figures.style import GREY, add_legend, new_panels, scale_axis, styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INTERVAL = (
    "left: rates over operations per byte, the roof and a tick where the fitted machine has a call; right: seconds as "
    "predicted over seconds as measured, the line where they are equal; hollow: not fitted to"
)


def draw(frame: Frame, flops: float, bandwidth: float) -> "Figure":
    """Draw rates under the roof of `flops` and `bandwidth` per second, and predicted over measured seconds.

    Columns are intensity, measured_gflops, predicted_gflops, measured_s, predicted_s and held_out.
    """
    figure, (rates, times) = new_panels(["", ""], legend=2, share=False)
    lowest, highest = frame["intensity"].min() / 1.5, frame["intensity"].max() * 1.5
    corner = min(max(flops / bandwidth, lowest), highest)
    roof = [(at, min(flops, bandwidth * at) / 1e9) for at in (lowest, corner, highest)]
    rates.plot(*zip(*roof, strict=True), color=GREY, lw=0.8, label="roof of the fitted machine")
    rates.plot(frame["intensity"], frame["predicted_gflops"], color="black", ls="", marker="_", ms=4, mew=0.6,
               label="predicted")  # fmt: skip
    _measured(rates, frame, "intensity", "measured_gflops")
    seconds = [*frame["measured_s"], *frame["predicted_s"]]
    ends = [1e3 * min(seconds), 1e3 * max(seconds)]
    times.plot(ends, ends, color=GREY, lw=0.8)
    in_ms = frame.assign(**{column: 1e3 * frame[column] for column in ("measured_s", "predicted_s")})
    _measured(times, in_ms, "measured_s", "predicted_s")
    scale_axis(rates, "x", frame["intensity"])
    scale_axis(rates, "y", [*frame["measured_gflops"], *frame["predicted_gflops"]])
    for axis in ("x", "y"):
        scale_axis(times, axis, ends)
    rates.set_xlabel("operations per byte")
    rates.set_ylabel("GFLOP/s")
    times.set_xlabel("measured, ms")
    times.set_ylabel("predicted, ms")
    add_legend(figure, columns=2)
    return figure


def _measured(panel: "Axes", frame: Frame, x: str, y: str) -> None:
    """Draw calls that were fitted to as dots, those that were not as rings."""
    fitted, held_out = styles(("fitted", "held out")).values()
    for style, face, held, name in ((fitted, fitted.colour, False, "measured"),
                                    (held_out, "none", True, "measured, held out")):  # fmt: skip
        points = frame[frame["held_out"] == held]
        panel.plot(points[x], points[y], color=style.colour, marker=style.marker, mfc=face, ms=2.8, mew=0.7, ls="",
                   label=name)  # fmt: skip
