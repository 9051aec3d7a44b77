"""DSB's cache: what is about a sliding window, and everything once enough tokens are decided (arXiv:2602.05992).

Symbol -> knob: tokens decided since the last full call that make the next one full -> K (default 32, the block length
there), least number of positions before the window that are computed -> w (default 24). With s the first undecided
position, in which the last step has brought it forward by a, and e the end of the window, other calls compute
[s - max(w, a), e), and replace what is kept of it; keys and values of the rest stay.
Use: `method=dsb method.block_length=8 method/cache=dsb method.cache.K=8`.
What policies read elsewhere is computed as well; a row in which a token outside of the computed part has changed
(masked again, edited, filled) is computed whole. Not built: a window behind e, which the authors leave off, too.
Invariant: K = 1 equals no cache, since every step decides a token.
"""

import torch
from torch import Tensor

from harness.engine.diffusion.evaluation import EvaluationRequest
from harness.engine.diffusion.reuse import compute, kept, recall
from harness.engine.shared.policy import policy
from harness.errors import at_least

_DECIDED, _FIRST = "dsb.decided_B", "dsb.first_B"


@policy("method/cache", "dsb")
class SlidingCache:
    """Compute everything when `K` tokens have been decided since; else the window and `w` positions before, or more."""

    K: int = 32
    w: int = 24

    def __post_init__(self) -> None:
        at_least(1, K=self.K)
        at_least(0, w=self.w)

    def evaluate(self, request: EvaluationRequest) -> Tensor:
        """Return aligned logits of the read positions."""
        canvas = request.canvas
        place_BL, decided_B = canvas.place_BL, (canvas.response_BL & ~canvas.undecided_BL).sum(1)
        first_B = torch.minimum(canvas.first_undecided_B, canvas.length_B - canvas.prompt_length_B)
        before_B = (first_B - kept(canvas, _FIRST, first_B)).clamp(min=self.w)
        last_B1 = place_BL.masked_fill(~canvas.window_BL, -1).amax(1, keepdim=True)
        active_BL = (place_BL >= (first_B - before_B)[:, None]) & (place_BL <= last_B1)
        full_B = decided_B - kept(canvas, _DECIDED, decided_B) >= self.K
        past = recall(canvas)
        full_B = full_B | (past.changed_BL(canvas) & ~active_BL).any(1)
        canvas.memory[_FIRST] = first_B
        canvas.memory[_DECIDED] = torch.where(full_B, decided_B, kept(canvas, _DECIDED, decided_B))
        return compute(request, active_BL | full_B[:, None], past)
