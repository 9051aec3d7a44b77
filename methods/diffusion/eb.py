"""EB-Sampler: close positions together while their joint dependence is bounded (arXiv:2505.24857, section 3).

Symbol -> knob: gamma (nats; default 0.1), error proxy e -> proxy. With h the entropies in the order of e, the
first k positions close, k the largest with sum(h) - max(h) <= gamma; k = 1 is always allowed.
Deviation: none known; no official code was published. `block_length` (default: the whole response) confines the
choice to a block.
Invariants: gamma = 0 on a model without certain positions equals one position per step.
"""

from enum import Enum

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.margins import across, prefix
from harness.engine.diffusion.needs import Gives
from harness.engine.diffusion.standing import number_of
from harness.engine.shared.largest import at_largest, two_largest
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Candidates, Prediction, ScoreDtype, log_probability, top
from harness.errors import at_least


class Proxy(Enum):
    """Error proxy e that orders positions: entropy, or minus the confidence, or minus the margin."""

    entropy = "entropy"
    confidence = "confidence"
    margin = "margin"


@policy("method/scorer", "entropy_budget")
class EntropyBudgetScore:
    """Most probable token, ordered by the proxy; the confidence is the negative entropy in nats."""

    proxy: Proxy = Proxy.entropy
    score_dtype: ScoreDtype = ScoreDtype.float32

    def __call__(self, prediction: Prediction, canvas: Canvas) -> Candidates:
        """Return candidates of all read positions."""
        logits_NV = self.score_dtype.cast(prediction.logits_NV)
        tokens_N = at_largest(logits_NV)
        p_NV = logits_NV.softmax(-1)
        negative_entropy_N = -torch.special.entr(p_NV).sum(-1)
        if self.proxy is Proxy.entropy:
            score_N = negative_entropy_N
        elif self.proxy is Proxy.confidence:
            score_N = log_probability(logits_NV, tokens_N)
        else:
            best_N2 = two_largest(p_NV)
            score_N = best_N2[:, 0] - best_N2[:, 1]
        return Candidates(
            tokens_BL=prediction.scatter(tokens_N, 0),
            score_BL=prediction.scatter(score_N, -torch.inf),
            confidence_BL=prediction.scatter(negative_entropy_N, -torch.inf),
            token_gap_BL=prediction.token_gap(tokens_N, logits_NV),
        )


@policy("method/selector", "entropy_budget")
class EntropyBudget:
    """Close the longest prefix whose entropies, the largest left out, sum to at most `gamma`."""

    gives = Gives(decides=True)

    gamma: float = 0.1

    def __post_init__(self) -> None:
        at_least(0, gamma=self.gamma)

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        """Return the prefix."""
        order_BL = candidates.score_BL.masked_fill(~open_BL, -torch.inf).argsort(dim=1, descending=True, stable=True)
        entropy_BL = -candidates.confidence_BL.masked_fill(~open_BL, 0.0).gather(1, order_BL)
        dependence_BL = entropy_BL.cumsum(1) - entropy_BL.cummax(1).values
        within_BL = dependence_BL <= self.gamma
        within_BL[:, 0] = True  # one position depends on nothing, whatever rounding says
        count_B, open_B = within_BL.cumprod(1).sum(1), number_of(canvas, open_BL)
        chosen_BL = top(candidates.score_BL, open_BL, torch.minimum(count_B, open_B))
        bound_B = prefix(self.gamma - dependence_BL, count_B, 1, open_B)
        canvas.note_choice(torch.minimum(bound_B, across(candidates.score_BL, chosen_BL, open_BL)))
        return chosen_BL
