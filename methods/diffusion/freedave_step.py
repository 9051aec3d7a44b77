"""The step rule of FreeDave's released decoder (arXiv:2510.00294): the best position, or all that reach a threshold."""

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.margins import ahead
from harness.engine.diffusion.needs import Gives
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Candidates, Prediction, best
from harness.errors import at_least

KNOWN = "freedave.known_B"
"""Whether a verified draft has shown that the next step completes the window."""


@policy("method/selector", "sure_or_best")
class SureOrBest:
    """Close every open position whose confidence reaches `threshold`, else (and without one) the best."""

    gives = Gives(decides=True)

    threshold: float | None = None

    def __post_init__(self) -> None:
        at_least(0, threshold=self.threshold)

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        """Return the positions to commit."""
        best_BL = best(candidates, open_BL)
        if self.threshold is None:
            return best_BL
        sure_BL = open_BL & (candidates.confidence_BL >= self.threshold)
        canvas.note(bounds=(candidates.confidence_BL - self.threshold, open_BL))
        canvas.note_choice(ahead(candidates.score_BL, open_BL).masked_fill(sure_BL.any(1), torch.inf))
        return best_BL | sure_BL


@policy("method/reviser", "confirm")
class Confirm:
    """With `enabled`, hold a window that a step of several positions has completed for one call that changes nothing.

    Where a draft that was verified had completed it, the published code makes no such call.
    """

    enabled: bool = False

    def __call__(self, canvas: Canvas, prediction: Prediction, candidates: Candidates, commit_BL: Tensor) -> None:
        """Hold, or let go in the step that follows, which commits nothing."""
        if self.enabled:
            known_B = canvas.memory[KNOWN] = canvas.memory.get(KNOWN, torch.zeros_like(canvas.held_B))
            canvas.held_B = (commit_BL.sum(1) > 1) & ~canvas.open_BL.any(1) & ~known_B
