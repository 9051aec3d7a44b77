"""Fast-dLLM's parallel decoding: confidence threshold and factor (arXiv:2505.22618, section 3.3, Theorem 1, Alg. 1).

Symbol -> knob: tau -> threshold (default 0.9), f -> factor (default 1.0), block size -> block_length (default 32).
Deviations from the authors' code: `factor` is the plain prefix rule; `factor_compat` adds their off-by-one (a
violation at the very last open position commits it as well). Their block loop without cache is reproduced call by
call.
Invariants: threshold > 1 equals one token per step; threshold <= 0 closes a block in one call.
"""

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.margins import Bound, across, prefix
from harness.engine.diffusion.needs import Gives
from harness.engine.diffusion.standing import number_of
from harness.engine.shared.policy import policy, probability
from harness.engine.shared.prediction import Candidates, top
from harness.errors import FieldError, at_least


@policy("method/selector", "threshold")
class Threshold:
    """Close every open position whose confidence reaches `threshold` (above 1 is legal: one position per step).

    With a schedule, only the best `quota` positions are looked at. `strict` asks for more than the threshold.
    """

    threshold: float = probability(0.9)
    strict: bool = False

    def __post_init__(self) -> None:
        at_least(0, threshold=self.threshold)

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        """Return the sure positions; the loop adds the best one where there is none."""
        confidence_BL = candidates.confidence_BL
        within_BL = open_BL
        if quota_B is not None:
            within_BL = top(candidates.score_BL, open_BL, quota_B)
            canvas.note(rankings=(candidates.score_BL, within_BL, open_BL))
        canvas.note(later=(Bound(self.threshold), (confidence_BL, within_BL)))
        sure_BL = confidence_BL > self.threshold if self.strict else confidence_BL >= self.threshold
        return sure_BL if quota_B is None else within_BL & sure_BL


@policy("method/selector", "factor")
class Factor:
    """Close the longest prefix, by confidence, whose n-th member reaches 1 - factor / (n + 1); the first is free."""

    gives = Gives(decides=True)

    factor: float = 1.0
    compat: bool = False

    def __post_init__(self) -> None:
        at_least(0, factor=self.factor)

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        """Return the prefix."""
        order_BL = candidates.score_BL.masked_fill(~open_BL, -torch.inf).argsort(dim=1, descending=True, stable=True)
        n_L = torch.arange(1, open_BL.shape[1] + 1, device=open_BL.device)
        confidence_BL, bound_L = candidates.confidence_BL.gather(1, order_BL), 1 - self.factor / (n_L + 1)
        reached_BL = confidence_BL >= bound_L
        reached_BL[:, 0] = True
        open_B = number_of(canvas, open_BL)
        count_B = torch.minimum(reached_BL.cumprod(1).sum(1), open_B)
        margin_B = prefix(confidence_BL - bound_L, count_B, 1, open_B - int(self.compat))
        if self.compat:
            count_B = torch.where(count_B == open_B - 1, open_B, count_B)
        chosen_BL = top(candidates.score_BL, open_BL, count_B)
        canvas.note_choice(torch.minimum(margin_B, across(candidates.score_BL, chosen_BL, open_BL)))
        return chosen_BL


@policy("method/schedule", "allowance")
class Allowance:
    """Allow gen_length/steps positions per step and carry unused allowance over (their sampler for Dream).

    After the last step the rest stays allowed: unsure positions wait as long as they need.
    """

    steps: int
    gen_length: int

    def __post_init__(self) -> None:
        if self.steps < 1 or self.gen_length % self.steps:
            raise FieldError("steps", self.steps, f"divide gen_length={self.gen_length}")

    def quota(self, canvas: Canvas) -> Tensor:
        """Return what is allowed so far and not used."""
        allowed_B = (canvas.window_clock_B + 1) * (self.gen_length // self.steps)
        left_B = canvas.num_open_B
        used_B = canvas.window_masks_B - left_B
        return torch.minimum(allowed_B - used_B, left_B)

    def surplus(self, canvas: Canvas) -> Tensor:
        """Return 0: the loop ends with the last mask."""
        return torch.zeros_like(canvas.clock_B)
