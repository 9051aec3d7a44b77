"""Coherent contextual decoding as published (arXiv:2512.02044; the released code is another rule: `ccd_code`).

Symbol -> knob: buffer size V -> top_v (4), history d (2 for LLaDA, 3 for Dream), b tokens per step -> b (1), CCD or
CCD-DS -> mode (ccd, ccd_ds), threshold of CCD-DS -> eps (null: what the authors use in its place, see below).
Of every open position the distributions of the present and the last d steps are averaged; H(mean) less the mean of
their entropies is what the position's token still depends on its context. Consistent are positions that were among
the `top_v` surest in all these steps. CCD closes the b consistent ones of least H(mean), CCD-DS all that are also
coherent: H(mean) plus the dependence at most eps, or without eps the same best token in all these steps. The token is
the mean's best. In the first d steps of a block, and where nothing is consistent, the b surest close as ever.
Reconstruction: sums and eps are from the paper's text, not from code; where no consistent position is coherent the b
best consistent ones close. History is dense: d * places * vocabulary numbers per row.
Invariant: d = 0 and order = confidence is b per step by confidence.
"""

from enum import Enum

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.needs import Needs
from harness.engine.shared.largest import at_largest
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import (
    Candidates,
    Prediction,
    ScoreDtype,
    log_probability,
    surest,
    token_gap,
    top,
)
from harness.errors import at_least

_PAST, _STREAK, _SAME, _TOKENS = "ccd.past_BRDV", "ccd.streak_BL", "ccd.same_BL", "ccd.tokens_BL"
_CONSISTENT, _COHERENT, _SLACK = "ccd.consistent_BL", "ccd.coherent_BL", "ccd.slack_BL"


class Mode(Enum):
    """`ccd`: b positions per step; `ccd_ds`: as many as are coherent."""

    ccd = "ccd"
    ccd_ds = "ccd_ds"


class MeanOrder(Enum):
    """What orders consistent positions: the mean's negative entropy or its largest probability."""

    entropy = "entropy"
    confidence = "confidence"


@policy("method/scorer", "contextual")
class Contextual:
    """Score consistent positions by the mean of the last distributions, all by confidence where there is none.

    Leaves for the selector which positions are coherent. The confidence is the present probability.
    """

    top_v: int = 4
    d: int = 2
    eps: float | None = None
    order: MeanOrder = MeanOrder.entropy
    score_dtype: ScoreDtype = ScoreDtype.float32

    def __post_init__(self) -> None:
        at_least(1, top_v=self.top_v)
        at_least(0, d=self.d, eps=self.eps)

    def __call__(self, prediction: Prediction, canvas: Canvas) -> Candidates:
        """Return candidates of all read positions."""
        logits_NV = self.score_dtype.cast(prediction.logits_NV)
        tokens_N, log_p_N, behind_N = surest(logits_NV)
        all_NDV = self._with_past(logits_NV.softmax(-1), prediction, canvas)
        mean_NV = all_NDV.mean(1)
        entropy_N = torch.special.entr(mean_NV).sum(-1)
        best_N, log_mean_NV = at_largest(mean_NV), mean_NV.log()
        ordered_N = -entropy_N if self.order is MeanOrder.entropy else log_probability(log_mean_NV, best_N)
        told_KN = [log_p_N, ordered_N, log_p_N.exp(), behind_N, -token_gap(log_mean_NV, best_N)]
        surest_BL, ordered_BL, p_BL, behind_BL, mean_behind_BL = prediction.places.put(
            torch.stack(told_KN, 1), -torch.inf
        ).unbind(2)
        tokens_BL, best_BL = prediction.places.put(torch.stack([tokens_N, best_N], 1), 0).unbind(2)
        consistent_BL = self._consistent(surest_BL, tokens_BL, canvas)
        if self.eps is None:
            coherent_BL, slack_BL = canvas.memory[_SAME] >= self.d, -behind_BL
        else:
            # Jensen and Shannon's divergence of the distributions.
            dependence_N = entropy_N - torch.special.entr(all_NDV).sum(-1).mean(1)
            coherent_BL = prediction.scatter(entropy_N + dependence_N <= self.eps, False)
            slack_BL = prediction.scatter(self.eps - entropy_N - dependence_N, torch.inf)
        canvas.memory |= {_CONSISTENT: consistent_BL, _COHERENT: coherent_BL, _SLACK: slack_BL}
        by_mean_B1 = consistent_BL.any(1, keepdim=True)
        return Candidates(
            tokens_BL=torch.where(by_mean_B1, best_BL, tokens_BL),
            score_BL=torch.where(by_mean_B1, torch.where(consistent_BL, ordered_BL, -torch.inf), surest_BL),
            confidence_BL=p_BL,
            token_gap_BL=-torch.where(by_mean_B1, mean_behind_BL, behind_BL),
        )

    def _consistent(self, surest_BL: Tensor, tokens_BL: Tensor, canvas: Canvas) -> Tensor:
        """Count for how many steps positions have been among the surest and have had the same token."""
        among_BL = top(surest_BL, canvas.open_BL, self.top_v)
        canvas.note(rankings=(surest_BL, among_BL, canvas.open_BL))
        canvas.memory[_STREAK] = (canvas.memory.get(_STREAK, 0) + 1) * among_BL
        same_BL = canvas.open_BL & (tokens_BL == canvas.memory.get(_TOKENS, -1))
        canvas.memory[_SAME] = (canvas.memory.get(_SAME, 0) + 1) * same_BL
        canvas.memory[_TOKENS] = tokens_BL
        return among_BL & (canvas.memory[_STREAK] > self.d) & (canvas.window_clock_B >= self.d)[:, None]

    def _with_past(self, p_NV: Tensor, prediction: Prediction, canvas: Canvas) -> Tensor:
        """Return the distributions of the present and the last d steps.

        Of positions without a whole past that is what there is, which nobody reads: they are not consistent.
        """
        entry = (prediction.row_N, prediction.gather(canvas.place_BL))
        if _PAST not in canvas.memory:
            places = int((canvas.length_B - canvas.prompt_length_B).max())
            canvas.memory[_PAST] = p_NV.new_zeros(canvas.num_rows, places, self.d, p_NV.shape[-1])
        past_BRDV = canvas.memory[_PAST]
        all_NDV = torch.cat([p_NV[:, None], past_BRDV[entry]], 1)
        canvas.memory[_PAST] = torch.zeros_like(past_BRDV).index_put(entry, all_NDV[:, : self.d])
        return all_NDV


@policy("method/selector", "coherent")
class Coherent:
    """Close the b best positions, or (`ccd_ds`) all coherent ones where there is one."""

    b: int = 1
    mode: Mode = Mode.ccd

    def __post_init__(self) -> None:
        at_least(1, b=self.b)

    @property
    def needs(self) -> Needs:
        """Its scorer says what is coherent."""
        return Needs(beside={"scorer": ("contextual",)}) if self.mode is Mode.ccd_ds else Needs()

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        """Return the positions to commit; positions without a score are none."""
        scored_BL = open_BL & (candidates.score_BL > -torch.inf)
        best_BL = top(candidates.score_BL, scored_BL, self.b)
        if self.mode is Mode.ccd:
            canvas.note(rankings=(candidates.score_BL, best_BL, scored_BL))
            return best_BL
        consistent_BL = canvas.memory[_CONSISTENT]
        coherent_BL = open_BL & consistent_BL & canvas.memory[_COHERENT]
        by_mean_B1 = coherent_BL.any(1, keepdim=True)
        canvas.note(
            bounds=(canvas.memory[_SLACK].double(), open_BL & consistent_BL),
            rankings=(candidates.score_BL, best_BL, scored_BL & ~by_mean_B1),
        )
        return torch.where(by_mean_B1, coherent_BL, best_BL)
