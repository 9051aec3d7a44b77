"""Coherent contextual decoding as its authors released it (arXiv:2512.02044; tonyckc/CCD-DLM-code, on Dream).

Symbol -> knob: S -> steps (default: gen_length; b = gen_length // steps tokens per step), expand_ratio (4.0: the buffer
holds up to b + int(b * expand_ratio) positions), warm (5 steps), seek (False: CCD, True: CCD-DS); temperature, top_p,
top_k as Dream's. The order is Dream's negative entropy, over the whole response.
A buffer holds the best positions of the last step that it did not commit. The b best of the present step close, as
ever, if none of them was buffered; else those close that are among the present best and in the buffer with the same
token, the b best of them or (`seek`) all, provided they are at least b. The rule of the paper is another one (`ccd`):
this code averages nothing, looks back one step, and takes a position that has just come up.
Deviations from the authors' code: at the end b is what is left, where theirs may write masks over decided tokens; what
`steps` leaves over where it does not divide gen_length closes b by b.
Invariants: never more than ceil(gen_length / b) calls; expand_ratio = 0 without seek equals b per step by entropy.
"""

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.standing import number_of
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Candidates, open_rank, top
from harness.errors import FieldError, at_least

_BUFFER, _WIDTH, _TOKENS = "ccd_code.buffer_BL", "ccd_code.width_B", "ccd_code.tokens_BL"


@policy("method/selector", "buffered")
class Buffered:
    """Close the best positions of a step, or those that two steps agree on."""

    steps: int | None
    gen_length: int
    expand_ratio: float = 4.0
    warm: int = 5
    seek: bool = False

    def __post_init__(self) -> None:
        if self.steps is not None and not 1 <= self.steps <= self.gen_length:
            raise FieldError("steps", self.steps, f"lie in [1, gen_length={self.gen_length}]")
        at_least(0, expand_ratio=self.expand_ratio)
        at_least(1, warm=self.warm)

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        """Return the positions to commit, and remember the rest's best."""
        steps, score_BL, step_B = self.steps or self.gen_length, candidates.score_BL, canvas.window_clock_B
        open_B, rank_BL = number_of(canvas, open_BL), open_rank(score_BL, open_BL)
        per_step_B, width_B = open_B.clamp(max=self.gen_length // steps), self._width(canvas, open_B)
        best_BL, within_BL = (open_BL & (rank_BL < count_B[:, None]) for count_B in (per_step_B, width_B))
        buffer_BL = canvas.memory.get(_BUFFER, False)
        same_BL = candidates.tokens_BL == canvas.memory.get(_TOKENS, candidates.tokens_BL)
        held_BL = within_BL & buffer_BL
        agreed_BL = held_BL & same_BL
        usual_B = (step_B < self.warm) | (step_B >= steps - 1)
        usual_B = usual_B | ~(best_BL & buffer_BL).any(1) | (agreed_BL.sum(1) < per_step_B)
        coherent_BL = agreed_BL if self.seek else top(score_BL, agreed_BL, per_step_B)
        commit_BL = torch.where(usual_B[:, None], best_BL, coherent_BL)
        left_BL = open_BL & ~commit_BL
        kept_BL = top(score_BL, left_BL, width_B)
        canvas.note(rankings=(score_BL, best_BL, open_BL))
        canvas.note(rankings=(score_BL, within_BL, open_BL))
        canvas.note(rankings=(score_BL, kept_BL, left_BL))
        if not self.seek:
            canvas.note(rankings=(score_BL, coherent_BL, agreed_BL & ~usual_B[:, None]))
        if candidates.token_gap_BL is not None:
            # Two steps agree or not by the tokens of what the buffer held, and of what it will hold.
            canvas.note(bounds=(candidates.token_gap_BL, held_BL | kept_BL))
        canvas.memory[_BUFFER] = kept_BL
        canvas.memory[_TOKENS] = candidates.tokens_BL
        return commit_BL

    def _width(self, canvas: Canvas, open_B: Tensor) -> Tensor:
        """Return the buffer's size in this step: 1 at first, then growing, and 2 for the last tenth."""
        per_step = self.gen_length // (self.steps or self.gen_length)
        width_B = canvas.memory.get(_WIDTH, torch.ones_like(canvas.clock_B))
        width_B = width_B.masked_fill(10 * open_B <= self.gen_length, 1)
        grown_B = (width_B + 1).clamp(max=per_step + int(per_step * self.expand_ratio))
        canvas.memory[_WIDTH] = torch.where(canvas.window_clock_B >= self.warm - 1, grown_B, width_B)
        return canvas.memory[_WIDTH]
