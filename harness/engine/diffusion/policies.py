"""Interfaces of the parts that a masked-diffusion method is made of.

A policy is a frozen object that holds parameters only; what changes during a generation lives in the canvas. What it
needs of the others, and what it gives, it says by `needs` and `gives` (`harness.engine.diffusion.needs`), attributes or
properties that may be left out.
Shapes: B rows, L positions, D drafts, N read positions, V vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.evaluation import EvaluationRequest
from harness.engine.shared.model import LanguageModel
from harness.engine.shared.prediction import Candidates, Prediction


class Step(Protocol):
    """Apply the method's rule once."""

    def __call__(self, canvas: Canvas, prediction: Prediction, rows: Sequence[bool] | None = None) -> Canvas:
        """Return the next canvas (a new object); of rows that are not marked in `rows` nothing may be read."""
        ...


Observe = Callable[[Canvas, Prediction | Candidates, Canvas], None]
"""Show the observers steps that a verifier took: the canvas before, what they follow from, and the canvas after."""


class Preparation(Protocol):
    """What a method knows before it starts and is not charged for (reference answers, for bounds)."""

    def __call__(self, model: LanguageModel, canvas: Canvas) -> None:
        """Leave it in `canvas.memory`."""
        ...


class Window(Protocol):
    """Which positions may be committed, and in which order windows open."""

    def update(self, canvas: Canvas) -> None:
        """Open the next window of rows whose window holds nothing undecided (or move it otherwise).

        Also called for windows that are only about to be complete, to learn which come next.
        """
        ...


class Schedule(Protocol):
    """How many positions should close in a step."""

    def quota(self, canvas: Canvas) -> Tensor | None:
        """Return the number of positions per row (0: this step closes none), or None if there is no budget."""
        ...

    def surplus(self, canvas: Canvas) -> Tensor:
        """Return per row how many scheduled steps are left for a window that is complete."""
        ...


class Scorer(Protocol):
    """Which token a position would get, and how sure that is."""

    def __call__(self, prediction: Prediction, canvas: Canvas) -> Candidates:
        """Return candidates for the positions of the prediction."""
        ...


class Selector(Protocol):
    """Which open positions close.

    How near its choice was to another one it says by `canvas.note_choice`: `harness.engine.diffusion.margins` has the
    gaps of ranks, bounds and prefixes. One that says nothing is taken to have chosen by score: what counts is the
    smallest gap in score between a chosen open position and another one. Other policies that compare numbers note their
    gaps, too.
    """

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        """Return the positions to commit; those that are not in `open_BL` are left out."""
        ...


class Stopper(Protocol):
    """Whether everything undecided may close now."""

    def __call__(self, prediction: Prediction, candidates: Candidates, canvas: Canvas) -> Tensor:
        """Return, per row, whether to commit all undecided positions from this prediction."""
        ...


class Reviser(Protocol):
    """Which decided positions are opened or changed again, after each commit.

    So that rows end, no row may come back to what it was: let each step close more than it opens, or open a position a
    bounded number of times, or leave a window complete once it was. A row that is held has to be let go: hold it a
    bounded number of times, or only as long as something changes for good. Which policies oscillate depends on the
    model; a row that does is ended by the loop when it has used up its calls, and stored as it stands.
    """

    def __call__(self, canvas: Canvas, prediction: Prediction, candidates: Candidates, commit_BL: Tensor) -> None:
        """Call `canvas.remask` or `canvas.edit`."""
        ...


class Finish(Protocol):
    """What an end token means for the rest of the response."""

    def __call__(self, canvas: Canvas, complete_B: Tensor) -> None:
        """Fill or cut rows after a commit; `complete_B` marks rows whose window has just been completed."""
        ...


@runtime_checkable
class Watchful(Protocol):
    """A window or a finish that `waits`, but for the rows that it names."""

    def due(self, canvas: Canvas) -> Tensor:
        """Return the rows [B] that a call would change now although no window is complete and no position has moved."""
        ...


class Guidance(Protocol):
    """What the model is shown besides the canvas itself, and how its answers are combined."""

    @property
    def copies(self) -> int:
        """Rows that the model is shown for one row of the canvas; with 1, it is shown the canvas itself."""
        ...

    def widen(self, canvas: Canvas) -> Canvas:
        """Return the rows to evaluate, a multiple of the canvas's."""
        ...

    def combine(self, logits_NV: Tensor) -> Tensor:
        """Return logits of the canvas's own rows."""
        ...


class Cache(Protocol):
    """What is computed and which keys and values are reused."""

    def evaluate(self, request: EvaluationRequest) -> Tensor:
        """Return aligned logits [N, V] of the positions that are asked for, in their order."""
        ...


@runtime_checkable
class Narrowing(Protocol):
    """A cache that gives no logits of some positions that are read (`Gives.leaves`), which then cannot be committed."""

    def narrow(self, canvas: Canvas, read_BL: Tensor, quota_B: Tensor | None) -> Tensor:
        """Return which of `read_BL` the next evaluation is asked for: in each row at least one that is open.

        `quota_B` is how many positions the schedule will close, or None.
        """
        ...


class Verifier(Protocol):
    """Whether more than one step can be taken from one prediction."""

    def ahead(self, canvas: Canvas) -> Tensor | None:
        """Return how many positions of the windows that open next each row wants predicted; None is none.

        It is given those of whole windows, as many as hold this number.
        """
        ...

    def propose(self, canvas: Canvas, prediction: Prediction, stepped: Canvas, step: Step) -> Canvas:
        """Return drafts [D rows] to evaluate in one call; those of a row stand together, `stepped` first."""
        ...

    def accept(self, drafts: Canvas, prediction: Prediction, step: Step, observe: Observe) -> tuple[Canvas, Prediction]:
        """Return the canvas from which each row goes on and its prediction, in any order of the rows.

        What a row is taken further than its first draft is shown by `observe`.
        """
        ...


@runtime_checkable
class Counts(Protocol):
    """A verifier that has to know a number of each row behind a step, which the host reads with all others."""

    def count(self, canvas: Canvas) -> Tensor:
        """Return the number [B], which `counted(canvas)` of `standing` gives to `propose`."""
        ...


@runtime_checkable
class BeforeCommit(Protocol):
    """The one hook that any policy may have: for a window or a length that depends on a prediction."""

    def before_commit(self, canvas: Canvas, prediction: Prediction, candidates: Candidates) -> Tensor | None:
        """Move windows or change lengths; return per row whether it must be evaluated again before it commits.

        None says that no row must, and spares a wait.
        """
        ...
