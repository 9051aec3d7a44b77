"""dInfer's threshold decoder: a threshold that gives way to the most confident position (arXiv:2510.08666).

Symbol -> knob: tau -> tau (default 0.9), early stop -> early_stop (finish rule `block_eos`), block size -> block_length
(default 32). With c the confidences of the open positions, those of at least min(max(c) - 1e-5, tau) close: where none
reaches tau the best one closes, and with it every position within 1e-5 of it, however low.
Deviations from the authors' code: no position can predict the mask token, so no step closes nothing; `early_stop` is
off by default, and off means that the whole response is decoded.
Invariants: without near ties the commits are those of `threshold`; no step is forced.
"""

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.margins import nearest
from harness.engine.shared.policy import policy, probability
from harness.engine.shared.prediction import Candidates
from harness.errors import at_least

_NEAR = 1e-5


@policy("method/selector", "dinfer_threshold")
class DinferThreshold:
    """Close every open position whose confidence reaches `tau` or, nearly, the best of its row (above 1 is legal)."""

    tau: float = probability(0.9)

    def __post_init__(self) -> None:
        at_least(0, tau=self.tau)

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        """Return the sure positions, or the best ones."""
        best_B1 = candidates.confidence_BL.masked_fill(~open_BL, -torch.inf).amax(1, keepdim=True)
        canvas.note_choice(self._margin(candidates.confidence_BL, open_BL, best_B1))
        return open_BL & (candidates.confidence_BL >= (best_B1 - _NEAR).clamp(max=self.tau))

    def _margin(self, confidence_BL: Tensor, open_BL: Tensor, best_B1: Tensor) -> Tensor:
        """Return the distance of open positions from the bound; the best one closes wherever the bound is."""
        others_BL = open_BL & ~_first(open_BL & (confidence_BL == best_B1))
        either_BL = torch.maximum(confidence_BL - self.tau, confidence_BL - best_B1 + _NEAR)
        return nearest(either_BL, others_BL)


def _first(marked_BL: Tensor) -> Tensor:
    return marked_BL & (marked_BL.cumsum(1) == 1)
