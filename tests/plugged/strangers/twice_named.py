"""A selector with memory: what was named twice in a row is taken."""

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.shared.policy import policy, probability
from harness.engine.shared.prediction import Candidates

_NAMED = "twice_named.named_BL"
"""The token that the last step would have written, plus 1: what is new has been named nothing."""


@policy("method/selector", "twice_named")
class TwiceNamed:
    """Close every open position that got the same token in the last step, or is surer than `sure`."""

    sure: float = probability(0.9)

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        """Return the positions to commit; the loop adds the best one where there is none."""
        named_BL = (candidates.tokens_BL + 1).masked_fill(~open_BL, 0)
        before_BL = canvas.memory.get(_NAMED, torch.zeros_like(named_BL))
        canvas.memory[_NAMED] = named_BL
        return open_BL & ((named_BL == before_BL) | (candidates.confidence_BL > self.sure))
