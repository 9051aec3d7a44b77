"""Fast-dLLM++'s Fréchet profile: close positions while a bound on their joint probability holds (arXiv:2606.02955).

Symbol -> knob: delta -> delta (default 0.25; the authors use 0.02 to 0.30), block size -> block_length (default 32).
With confidences c(1) >= c(2) >= ... the gap of the first n positions is the Fréchet lower bound of their joint
probability, sum c(j) - (n - 1), less the doubt 1 - c(n) about the last; the longest prefix whose gaps exceed delta
closes.
Deviations from the authors' code: none known.
Invariants: for equal confidences this is `factor` with f = 1 - delta, compared strictly; delta >= 1 is one position per
step, and a delta below -n closes any n positions.
"""

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.margins import across, prefix
from harness.engine.diffusion.standing import number_of
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Candidates, top


@policy("method/selector", "frechet")
class Frechet:
    """Close the longest prefix, by confidence, whose gaps exceed `delta` (any number, usually in [0, 0.5])."""

    delta: float = 0.25

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        """Return the prefix; the loop adds the best position where it is empty."""
        order_BL = candidates.score_BL.masked_fill(~open_BL, -torch.inf).argsort(dim=1, descending=True, stable=True)
        doubt_BL = 1 - candidates.confidence_BL.gather(1, order_BL)
        gap_BL = 1 - doubt_BL.cumsum(1) - doubt_BL
        count_B, open_B = (gap_BL > self.delta).long().cumprod(1).sum(1), number_of(canvas, open_BL)
        chosen_BL = top(candidates.score_BL, open_BL, torch.minimum(count_B, open_B))
        bound_B = prefix(gap_BL - self.delta, count_B, 0, open_B)
        canvas.note_choice(torch.minimum(bound_B, across(candidates.score_BL, chosen_BL, open_BL)))
        return chosen_BL
