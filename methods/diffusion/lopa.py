"""LoPA: look ahead along several branches, go on with the most confident one (arXiv:2512.16229; zhijie-group/LoPA).

Symbol -> knob: branches k -> k (3; the authors use 2 to 4), share of a branch's masks that its score looks at, least
confident first -> branch_topp (1.0: all), threshold of the base step -> tau (0.9), block_length (32).
Every round, the base branch is the method's own step; branch j commits in addition the j-th best open position of the
same prediction. One call evaluates all branches; the one whose open positions are predicted with the highest mean
confidence goes on, with that prediction. `method/verifier=lopa` adds the branches to any step rule.
Counting: a round is one forward (nfe) of up to k rows (nfe_total).
Deviations from the authors' code: a branch never completes a window (it has to be scored by what is open); their
mixture with the confidence of the branch's own commit, which their scripts give weight 0, is not built.
Invariants: k = 1 is the base method; every round commits at least what the base step does.
"""

import torch
from torch import Tensor

from harness.engine.canvas import Canvas
from harness.engine.policies import DiffusionMethod, NoCache, Observe, Step
from harness.engine.policy import policy
from harness.engine.prediction import Prediction, log_probability, rank_descending


@policy("method/verifier", "lopa")
class LookAhead:
    """Evaluate up to `k` branches and keep the most confident; the base branch wins ties."""

    k: int = 3
    branch_topp: float = 1.0

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k must be at least 1, got {self.k}")
        if not 0 < self.branch_topp <= 1:
            raise ValueError(f"branch_topp must lie in (0, 1], got {self.branch_topp}")

    def fit(self, method: DiffusionMethod) -> None:
        """Refuse caches, and windows that depend on a prediction."""
        if not isinstance(method.cache, NoCache):
            raise ValueError("the verifier lopa compares exact predictions; use method/cache=none")
        if method.foreseers:
            raise ValueError("the verifier lopa cannot branch beside windows that depend on a prediction")

    def propose(self, canvas: Canvas, prediction: Prediction, stepped: Canvas, step: Step) -> Canvas:
        """Return each row's base branch and, behind it, its branches with one more commit."""
        tokens_BL, score_BL = _best(prediction)
        open_BL = stepped.open_BL & score_BL.isfinite()
        rank_BL = rank_descending(score_BL.masked_fill(~open_BL, -torch.inf))
        spare_B = (stepped.open_BL.sum(1) - 1).clamp(min=0)
        branches_B = 1 + torch.minimum(open_BL.sum(1), spare_B).clamp(max=self.k - 1)
        origin_D = torch.arange(len(branches_B), device=branches_B.device).repeat_interleave(branches_B)
        first_B = branches_B.cumsum(0) - branches_B
        number_D = torch.arange(len(origin_D), device=origin_D.device) - first_B[origin_D]
        drafts = stepped.rows(origin_D)
        extra_DL = open_BL[origin_D] & (rank_BL[origin_D] == (number_D - 1)[:, None])
        clock_D = drafts.clock_B
        drafts.clock_B = clock_D - 1  # the extra position is part of the step that was made
        drafts.commit(extra_DL, tokens_BL[origin_D])
        drafts.clock_B = clock_D
        return drafts

    def accept(self, drafts: Canvas, prediction: Prediction, step: Step, observe: Observe) -> tuple[Canvas, Prediction]:
        """Return the most confident branch of every row."""
        group_D = torch.unique_consecutive(drafts.sample_B, return_inverse=True)[1]
        score_D = self._confidence(drafts, prediction)
        rows = int(group_D.max()) + 1
        best_B = score_D.new_full((rows,), -torch.inf).scatter_reduce(0, group_D, score_D, "amax")
        draft_D = torch.arange(len(group_D), device=group_D.device)
        candidate_D = draft_D.masked_fill(score_D < best_B[group_D], len(group_D))
        chosen_B = candidate_D.new_full((rows,), len(group_D)).scatter_reduce(0, group_D, candidate_D, "amin")
        return drafts.rows(chosen_B), prediction.rows(chosen_B)

    def _confidence(self, drafts: Canvas, prediction: Prediction) -> Tensor:
        """Return each branch's mean confidence over its least confident open positions."""
        _, score_DL = _best(prediction)
        open_DL = drafts.open_BL & score_DL.isfinite()
        counted_D = (open_DL.sum(1) * self.branch_topp).ceil().clamp(min=1)
        rank_DL = rank_descending((-score_DL).masked_fill(~open_DL, -torch.inf))
        counted_DL = open_DL & (rank_DL < counted_D[:, None])
        return score_DL.exp().double().masked_fill(~counted_DL, 0).sum(1) / counted_D


def _best(prediction: Prediction) -> tuple[Tensor, Tensor]:
    """Return the most probable tokens and their log probabilities, -inf where nothing was read."""
    logits_NV = prediction.logits_NV.double()
    tokens_N = logits_NV.argmax(-1)
    log_p_N = log_probability(logits_NV, tokens_N)
    return prediction.scatter(tokens_N, 0), prediction.scatter(log_p_N, -torch.inf)
