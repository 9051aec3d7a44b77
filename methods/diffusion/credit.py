"""CreditDecoding: a token that keeps being the most probable one earns credit (arXiv:2510.06133).

Symbol -> knob: fusion weight -> alpha (default 0.7), boost exponent -> gam (default 0.2), decay -> beta (default 0.8),
threshold -> tau (default 0.9; the authors use 0.8 to 0.95), early stop -> early_stop, block size -> block_length
(default 32). In every step all credit decays by beta, the most probable token of every open position earns
p ** gam, and alpha * ln(1 + credit) is added to the logits; token and confidence come from the sum. Credit starts
fresh with every window. The scorer goes with any selector; the method has dInfer's threshold.
Deviations from the authors' code: credit is kept per token that ever led, which is exact and takes steps, not
vocabulary, per position; rows are independent, where theirs keep credit until the whole batch is done.
Invariant: alpha = 0 equals `dinfer_threshold`.
"""

from dataclasses import replace

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.shared.largest import largest
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Candidates, Prediction, ScoreDtype
from harness.errors import FieldError, at_least
from methods.diffusion.llada import Confidence

_LEADERS = "credit.leaders_BSL"
_CREDIT = "credit.credit_BSL"


@policy("method/scorer", "credit")
class Credit:
    """Most probable token after credit was added to the logits, and its probability then.

    Leaders and their credit are [B, S, L]: a slot per step with new leaders, dropped when no row counts it any more.
    """

    alpha: float = 0.7
    gam: float = 0.2
    beta: float = 0.8
    temperature: float = 0.0
    score_dtype: ScoreDtype = ScoreDtype.float32

    def __post_init__(self) -> None:
        at_least(0, alpha=self.alpha, gam=self.gam, temperature=self.temperature)
        if not 0 <= self.beta <= 1:
            raise FieldError("beta", self.beta, "be between 0 and 1")

    def __call__(self, prediction: Prediction, canvas: Canvas) -> Candidates:
        """Return candidates of all read positions; this step's credit counts already."""
        leaders_BSL, credit_BSL = self._earn(prediction, canvas)
        canvas.memory[_LEADERS], canvas.memory[_CREDIT] = leaders_BSL, credit_BSL
        at = (prediction.row_N, slice(None), prediction.position_N)
        credit_NV = torch.zeros_like(prediction.logits_NV, dtype=credit_BSL.dtype)
        credit_NV = credit_NV.scatter_add(1, leaders_BSL[at], credit_BSL[at])
        logits_NV = self.score_dtype.cast(prediction.logits_NV)
        fused_NV = logits_NV + (self.alpha * credit_NV.log1p()).to(logits_NV.dtype)
        rule = Confidence(temperature=self.temperature, score_dtype=self.score_dtype)
        return rule(replace(prediction, logits_NV=fused_NV), canvas)

    def _earn(self, prediction: Prediction, canvas: Canvas) -> tuple[Tensor, Tensor]:
        """Return leaders and credit after this step: the past decayed, and what the present leaders earn."""
        p_N, leader_N = (one_N1[:, 0] for one_N1 in largest(prediction.logits_NV.float().softmax(-1)))
        leader_B1L = prediction.scatter(leader_N, 0)[:, None]
        earned_B1L = torch.where(canvas.open_BL, prediction.scatter(p_N**self.gam, 0.0), 0.0)[:, None]
        if _CREDIT not in canvas.memory:
            return leader_B1L, earned_B1L
        leaders_BSL, credit_BSL = canvas.memory[_LEADERS], canvas.memory[_CREDIT]
        fresh_B11 = (canvas.window_clock_B == 0)[:, None, None]
        credit_BSL = (credit_BSL * self.beta).masked_fill(fresh_B11, 0.0)
        again_BSL = (leaders_BSL == leader_B1L) & (credit_BSL > 0)
        credit_BSL = credit_BSL + earned_B1L * again_BSL
        first_B1L = earned_B1L.masked_fill(again_BSL.any(1, keepdim=True), 0.0)
        first, *counts = torch.cat([first_B1L.any()[None], credit_BSL.any((0, 2))]).tolist()
        if not first:
            return leaders_BSL, credit_BSL
        kept = [place for place, one in enumerate(counts) if one]
        at_S = torch.tensor(kept, dtype=torch.int64, device=leader_B1L.device)
        return (
            torch.cat([leaders_BSL.index_select(1, at_S), leader_B1L], 1),
            torch.cat([credit_BSL.index_select(1, at_S), first_B1L], 1),
        )
