"""One sample's decoding as the page plays it: what every step changed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from harness.errors import DataError
from harness.results.trace import Frame, frames

Rows = Sequence[Mapping[str, Any]]


def film(sample: Mapping[str, Any], steps: Rows, *, again: bool = False) -> dict[str, Any] | None:
    """Return the film of a sample from its row and those of its steps; None where nothing is known of its order.

    `set` and `clear` of a frame are what became of positions since the frame before, `marks` what the step did by sign,
    `sure` certainties in percent. `again` says that the steps are of a later decoding.
    """
    try:
        shown = frames(sample, steps)
    except DataError:
        return None
    before: Sequence[int | None] = ()
    made = []
    for frame in shown:
        made.append(_frame(frame, before))
        before = frame.tokens
    return {
        "sample": sample["sample_id"],
        "correct": sample["correct"],
        "nfe": sample["nfe"],
        "traced": bool(steps),
        "again": again,
        "length": max(len(frame.tokens) for frame in shown),
        "frames": made,
    }


def _frame(frame: Frame, before: Sequence[int | None]) -> dict[str, Any]:
    earlier = [*before, *[None] * (len(frame.tokens) - len(before))]
    changed = [at for at, token in enumerate(frame.tokens) if token != earlier[at]]
    marks: dict[str, list[int]] = {}
    for position, mark in sorted(frame.marks.items()):
        marks.setdefault(mark.value, []).append(position)
    return {
        "step": frame.number,
        "set": [[at, frame.tokens[at]] for at in changed if frame.tokens[at] is not None],
        "clear": [at for at in changed if frame.tokens[at] is None],
        "marks": marks,
        "sure": [[at, round(100 * value)] for at, value in sorted(frame.certainty.items())],
        "computed": frame.computed,
        "reused": frame.reused,
        "cached": None if frame.cached is None else list(frame.cached),
        "moved": frame.moved,
    }


def spelled_words(films: Iterable[Mapping[str, Any]], spelled: Callable[[int], str]) -> dict[str, str]:
    """Return how the tokens of films are written, by their numbers."""
    ids = {token for one in films for frame in one["frames"] for _, token in frame["set"]}
    return {str(token): spelled(token) for token in sorted(ids)}
