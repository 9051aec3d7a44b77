"""Where the time of decodings goes, as bars of parts: how much each takes of a token's milliseconds."""

from textwrap import fill
from typing import TYPE_CHECKING

from harness.results.figures.frame import Frame
from harness.results.figures.style import COLUMN_INCHES, add_legend, new_figure, styles, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INTERVAL = "beside the bars: predicted milliseconds per token; arithmetic has no intervals"
# One per part: what tells parts apart where colours do not.
_HATCHES = ("", "////", "....", "xxxx", "----")
_NAMES = {"feed_forward": "feed-forward", "filling": "calls that fill caches", "lost": "lost with every call"}
_LONGEST = 28
_LINE_INCHES = 0.1


def draw(frame: Frame) -> "Figure":
    """Draw a bar per decoding, the first at the top; columns decoding, part, ms_per_token and share."""
    decodings, parts = ([*dict.fromkeys(frame[column])] for column in ("decoding", "part"))
    names = [fill(one, _LONGEST) for one in decodings]
    lines = 1 + max(name.count("\n") for name in names)
    figure = new_figure(COLUMN_INCHES, (0.09 + _LINE_INCHES * lines) * len(decodings) + 0.9)
    panel = figure.subplots()
    places = range(len(decodings))
    begun = [0.0 for _ in places]
    for style, hatch, part in zip(styles(parts).values(), _HATCHES, parts, strict=False):
        inside = frame[frame["part"] == part].set_index("decoding")
        widths = [100 * float(inside.loc[one, "share"]) for one in decodings]
        if any(widths):
            panel.barh(places, widths, left=begun, height=0.7, color=style.colour, hatch=hatch, edgecolor="white",
                       lw=0.3, label=_NAMES.get(part, part))  # fmt: skip
        begun = [before + width for before, width in zip(begun, widths, strict=True)]
    for place, one in enumerate(decodings):
        total = frame.loc[frame["decoding"] == one, "ms_per_token"].sum()
        panel.text(102, place, f"{total:#.3g}", va="center", fontsize=6)
    panel.text(102, -0.8, "ms per token", va="center", fontsize=6)
    panel.set_yticks(places, names)
    panel.set_ylim(len(decodings) - 0.5, -0.5)
    panel.set_xlim(0, 100)
    panel.set_xlabel("share of the predicted time, %")
    tidy(panel, "x")
    add_legend(figure)
    return figure
