"""A masked-diffusion method, and the parts that do nothing.

Shapes: B rows, L positions, N read positions, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cached_property

import torch
from torch import Tensor

from harness.engine.diffusion import fit
from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.evaluation import EvaluationRequest
from harness.engine.diffusion.needs import Gives, gives_of, needs_of
from harness.engine.diffusion.policies import (
    BeforeCommit,
    Cache,
    Finish,
    Guidance,
    Narrowing,
    Observe,
    Preparation,
    Reviser,
    Schedule,
    Scorer,
    Selector,
    Step,
    Stopper,
    Verifier,
    Watchful,
    Window,
)
from harness.engine.shared.model import LanguageModel
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Candidates, Prediction


@policy("method/preparation", "none")
class Unprepared:
    """Start from the canvas alone."""

    def __call__(self, model: LanguageModel, canvas: Canvas) -> None:
        """Do nothing."""


@policy("method/stopper", "never")
class NeverStop:
    """Never commit everything at once."""

    def __call__(self, prediction: Prediction, candidates: Candidates, canvas: Canvas) -> Tensor:
        """Return False for every row."""
        return torch.zeros_like(canvas.clock_B, dtype=torch.bool)


@policy("method/reviser", "never")
class NeverRevise:
    """Leave decided positions alone."""

    def __call__(self, canvas: Canvas, prediction: Prediction, candidates: Candidates, commit_BL: Tensor) -> None:
        """Do nothing."""


@policy("method/finish", "full")
class DecodeFully:
    """Decode every position of the response, end tokens or not."""

    gives = Gives(waits=True)

    def __call__(self, canvas: Canvas, complete_B: Tensor) -> None:
        """Do nothing."""


@policy("method/guidance", "none")
class Unguided:
    """Show the model the canvas and take its word."""

    @property
    def copies(self) -> int:
        """Return 1."""
        return 1

    def widen(self, canvas: Canvas) -> Canvas:
        """Return the canvas."""
        return canvas

    def combine(self, logits_NV: Tensor) -> Tensor:
        """Return the logits."""
        return logits_NV


@policy("method/verifier", "none")
class Unverified:
    """Take one step per evaluation."""

    def ahead(self, canvas: Canvas) -> None:
        """Return None."""

    def propose(self, canvas: Canvas, prediction: Prediction, stepped: Canvas, step: Step) -> Canvas:
        """Return the stepped canvas."""
        return stepped

    def accept(self, drafts: Canvas, prediction: Prediction, step: Step, observe: Observe) -> tuple[Canvas, Prediction]:
        """Accept it."""
        return drafts, prediction


@policy("method/schedule", "none")
class Unscheduled:
    """Set no budget; the selector alone decides."""

    def quota(self, canvas: Canvas) -> Tensor | None:
        """Return None."""
        return None

    def surplus(self, canvas: Canvas) -> Tensor:
        """Return 0 for every row."""
        return torch.zeros_like(canvas.clock_B)


@policy("method/cache", "none")
class NoCache:
    """Compute every position of every row in every call."""

    gives = Gives(guidance=True, attention=True, drafts=True, any_draft=True)

    def evaluate(self, request: EvaluationRequest) -> Tensor:
        """Return aligned logits from one full forward."""
        return request.forward_whole()


@dataclass(frozen=True, kw_only=True)
class DiffusionMethod:
    """A masked-diffusion method: a choice of policies."""

    window: Window
    scorer: Scorer
    selector: Selector
    preparation: Preparation = field(default_factory=Unprepared)
    schedule: Schedule = field(default_factory=Unscheduled)
    stopper: Stopper = field(default_factory=NeverStop)
    reviser: Reviser = field(default_factory=NeverRevise)
    finish: Finish = field(default_factory=DecodeFully)
    guidance: Guidance = field(default_factory=Unguided)
    cache: Cache = field(default_factory=NoCache)
    verifier: Verifier = field(default_factory=Unverified)

    def __post_init__(self) -> None:
        fit.refuse_misfits(self)

    @property
    def _parts(self) -> list[object]:
        return [getattr(self, slot.name) for slot in fields(self)]

    # Every call asks for these, and asking each policy costs about as much as a small model's layer.
    @cached_property
    def read_too(self) -> list[Callable[[Canvas], Tensor | None]]:
        """What returns the positions that some policy reads beside open ones."""
        return [reads for part in self._parts if (reads := needs_of(part).positions) is not None]

    @cached_property
    def before_commit(self) -> list[BeforeCommit]:
        """The policies that act on a prediction before anything is committed, first what decides on the length."""
        ordered = [self.finish, *(part for part in self._parts if part is not self.finish)]
        return [part for part in ordered if isinstance(part, BeforeCommit)]

    @cached_property
    def waits(self) -> bool:
        """Whether windows and ends of rows stay as they are until a window is complete, positions move or it is due."""
        return gives_of(self.window).waits and gives_of(self.finish).waits

    @cached_property
    def watchful(self) -> list[Watchful]:
        """Those of both that say when they change something all the same, where they wait."""
        return [part for part in (self.window, self.finish) if self.waits and isinstance(part, Watchful)]

    @cached_property
    def narrowing(self) -> Narrowing | None:
        """The cache, if it gives logits of fewer positions than are read."""
        return self.cache if isinstance(self.cache, Narrowing) else None

    @cached_property
    def steady(self) -> bool:
        """Whether a prediction need be scored only once."""
        return gives_of(self.scorer).steady

    @cached_property
    def decides(self) -> bool:
        """Whether the selector needs nobody to force it."""
        return gives_of(self.selector).decides

    @cached_property
    def decides_if_read(self) -> bool:
        """Whether it needs nobody where all that is open was read."""
        return gives_of(self.selector).decides_if_read

    @cached_property
    def scheduled(self) -> bool:
        """Whether the schedule says how many positions close."""
        return not isinstance(self.schedule, Unscheduled)

    @cached_property
    def stops(self) -> bool:
        """Whether the stopper ever stops."""
        return not isinstance(self.stopper, NeverStop)

    @cached_property
    def revises(self) -> bool:
        """Whether the reviser ever does."""
        return not isinstance(self.reviser, NeverRevise)

    @cached_property
    def drafts(self) -> bool:
        """Whether the verifier makes more of a step than the step."""
        return not isinstance(self.verifier, Unverified)

    @cached_property
    def reads_attention(self) -> bool:
        """Whether some policy reads attention."""
        return any(needs_of(part).attention for part in self._parts)
