"""EOSER: do not believe early end tokens (arXiv:2509.23924; sampler of its published code).

LLaDA's loop with one change: where the candidate is the end token, its probability is multiplied by gamma(t) before
positions are ordered, t counting steps from 0 of S. The token itself stays the same.
Symbol -> knob: gamma_min (default 0.4; 0.01 with ascending steps), gamma_max (default 1), S -> steps, temperature.
`linear`: gamma rises evenly from gamma_min to gamma_max. `doubling` (with ascending steps): it has risen by the share
(2^(t+1) - 1) / 2^S of that way. S = 1 means gamma_max.
Deviation from the authors' code: t counts the steps of the whole response, not of the block, so that gamma_max is
reached with blocks too (the same thing with one block). Only the tokenizer's end token is damped, no end of turn.
Invariants: gamma_min = gamma_max = 1 equals LLaDA; NFE + idle = steps.
"""

from enum import Enum

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Candidates, Prediction, ScoreDtype
from harness.errors import FieldError, at_least
from methods.diffusion.llada import Confidence


class Ramp(Enum):
    """How gamma rises: `linear` in the step, or `doubling` with the number of decided positions."""

    linear = "linear"
    doubling = "doubling"


@policy("method/scorer", "end_rejection")
class EndRejection:
    """Most probable (or sampled) token, ordered by its probability, that of the end token times gamma."""

    steps: int | None
    gen_length: int
    gamma_min: float = 0.4
    gamma_max: float = 1.0
    ramp: Ramp = Ramp.linear
    temperature: float = 0.0
    score_dtype: ScoreDtype = ScoreDtype.float32

    def __post_init__(self) -> None:
        if not 0 <= self.gamma_min <= 1:
            raise FieldError("gamma_min", self.gamma_min, "lie in [0, 1]")
        if not self.gamma_min <= self.gamma_max:
            raise FieldError("gamma_max", self.gamma_max, f"be at least gamma_min={self.gamma_min}")
        at_least(0, temperature=self.temperature)

    def gamma(self, step_B: Tensor) -> Tensor:
        """Return the factor of each row's step, float64 [B]."""
        if self.ramp is Ramp.linear:
            last = (self.steps or self.gen_length) - 1
            risen_B = step_B.double() / last if last > 0 else torch.ones_like(step_B, dtype=torch.float64)
        else:
            total = self.steps or self.gen_length.bit_length() - 1
            risen_B = (2.0 ** (step_B + 1).double() - 1) / 2.0**total
        return self.gamma_min + (self.gamma_max - self.gamma_min) * risen_B.clamp(max=1)

    def __call__(self, prediction: Prediction, canvas: Canvas) -> Candidates:
        """Return candidates of all read positions."""
        believed = Confidence(temperature=self.temperature, score_dtype=self.score_dtype)(prediction, canvas)
        end_BL = believed.tokens_BL == prediction.spec.stop_ids[0]
        gamma_B1 = self.gamma(canvas.clock_B)[:, None]
        # In float64: next to log gamma, float32 would lose the log p of sure ends, and with it their order.
        score_BL = believed.score_BL.double()
        damped_BL = believed.confidence_BL * gamma_B1.to(believed.confidence_BL.dtype)
        return Candidates(
            tokens_BL=believed.tokens_BL,
            score_BL=torch.where(end_BL, score_BL + gamma_B1.log(), score_BL),
            confidence_BL=torch.where(end_BL, damped_BL, believed.confidence_BL),
            token_gap_BL=believed.token_gap_BL,
        )
