"""The step that verifiers are given, and the last one that was made with it."""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import fields, replace

from harness.engine.diffusion.canvas import Canvas
from harness.engine.shared.prediction import Prediction

_BESIDE = {"stores", "known", "memory"}
"""Fields of a canvas that say nothing of its rows' next step, and the one that is compared by what it holds."""


class Steps:
    """A method's step; one of all rows is remembered, for what a verifier has tried is often what comes next."""

    def __init__(self, take: Callable[[Canvas, Prediction, Sequence[bool] | None], Canvas]) -> None:
        self._take = take
        self._last: tuple[Canvas, weakref.ref[Prediction], Canvas] | None = None

    def __call__(self, canvas: Canvas, prediction: Prediction, rows: Sequence[bool] | None = None) -> Canvas:
        """Return the next canvas. Only the rows marked in `rows` (default: all) make the step; ignore the others."""
        after = self._take(canvas, prediction, rows)
        # Held weakly: logits outlive their use by nothing.
        self._last = (canvas.copy(), weakref.ref(prediction), after) if rows is None else None
        return after

    def taken(self, canvas: Canvas, prediction: Prediction) -> Canvas | None:
        """Return where the last step led if it was made from this canvas, by this prediction."""
        if self._last is None:
            return None
        before, known, after = self._last
        return replace(after, stores=dict(canvas.stores)) if known() is prediction and _same(canvas, before) else None


def _same(one: Canvas, other: Canvas) -> bool:
    """Return whether no tensor differs: they are replaced, never changed in place."""
    names = [field.name for field in fields(one) if field.name not in _BESIDE]
    return all(getattr(one, name) is getattr(other, name) for name in names) and one.memory.is_of(other.memory)
