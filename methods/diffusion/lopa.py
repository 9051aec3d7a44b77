"""LoPA: look one call ahead along several branches and follow the surest (arXiv:2512.16229; zhijie-group/LoPA).

A step commits by the method's own rule: the base branch. Branch j commits, besides, the j-th best of the candidates
that are left. All branches of a row are evaluated in one call, and the row goes on from the one whose remaining open
positions look surest on average; its prediction is known already.
Symbol -> knob: branching factor b, the base not included -> k = b + 1, the base included (default 3, the b = 2 that the
published code defaults to; the published 2 to 4, if they are this b, are k = 3 to 5; its b = 1 makes no branch, which
is k = 1), lowest share of the positions that is averaged -> branch_topp (scripts: 1), weight of the confidence with
which the branch was made -> alpha (scripts: 0; the base counts as certain), threshold (0.9, to be exceeded),
block_length (32).
`method/verifier=lopa` looks ahead with any step rule and any cache.
As in the authors' code, the base loses ties, and confidences are the present top-1 probabilities.
Reconstruction: the published code decodes D2F models, whose canvas holds the active blocks only; here a branch is
judged by the open positions of its window. A branch that would leave none is not made: it would win unseen.
Invariants: k = 1 is the method without branches; rounds are counted by nfe, evaluated branches by nfe_total.
"""

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import SETTLED, Canvas
from harness.engine.diffusion.margins import across
from harness.engine.diffusion.policies import Observe, Step
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Candidates, Prediction, ScoreDtype, rank_descending, surest
from harness.errors import FieldError, at_least
from methods.diffusion.drafts import starts

_TOKENS, _SCORE, _CONFIDENCE = "lopa.tokens_BL", "lopa.score_BL", "lopa.confidence_BL"
_KNOWN, _CREATION, _TOKEN_GAP = "lopa.known_BL", "lopa.creation_B", "lopa.token_gap_BL"


@policy("method/verifier", "lopa")
class LookAhead:
    """Evaluate the step and up to `k` - 1 variants of it that commit one position more; keep the surest."""

    k: int = 3
    branch_topp: float = 1.0
    alpha: float = 0.0
    score_dtype: ScoreDtype = ScoreDtype.float32

    def __post_init__(self) -> None:
        at_least(1, k=self.k)
        if not 0 < self.branch_topp <= 1:
            raise FieldError("branch_topp", self.branch_topp, "be above 0 and at most 1")
        if not 0 <= self.alpha <= 1:
            raise FieldError("alpha", self.alpha, "be between 0 and 1")

    def before_commit(self, canvas: Canvas, prediction: Prediction, candidates: Candidates) -> None:
        """Keep the candidates, of which the step leaves some to the branches; ask for no further evaluation."""
        candidates = candidates.widened(canvas.tokens_BL.shape[1])
        canvas.memory |= {
            _TOKENS: candidates.tokens_BL,
            _SCORE: candidates.score_BL,
            _CONFIDENCE: candidates.confidence_BL,
            # Not to be read off the score, which is 0 where positions are inserted.
            _KNOWN: candidates.score_BL.isfinite(),
        }
        if candidates.token_gap_BL is not None:
            canvas.memory[_TOKEN_GAP] = candidates.token_gap_BL

    def ahead(self, canvas: Canvas) -> None:
        """Return None: branches stay in their window."""

    def propose(self, canvas: Canvas, prediction: Prediction, stepped: Canvas, step: Step) -> Canvas:
        """Return the branches, each row's base first, then by the rank of what they add."""
        moved_B = stepped.clock_B > canvas.clock_B
        left_BL = stepped.open_BL & stepped.memory[_KNOWN] & moved_B[:, None]
        branches_B = left_BL.sum(1).clamp(max=self.k - 1) * (stepped.open_BL.sum(1) > 1)
        origin_D = torch.arange(stepped.num_rows, device=left_BL.device).repeat_interleave(branches_B + 1)
        first_B = (branches_B + 1).cumsum(0) - branches_B - 1
        nth_D = torch.arange(len(origin_D), device=left_BL.device) - first_B[origin_D]
        drafts = stepped.rows(origin_D)
        rank_DL = rank_descending(stepped.memory[_SCORE].masked_fill(~left_BL, -torch.inf))[origin_D]
        added_DL = left_BL[origin_D] & (rank_DL == nth_D[:, None] - 1)
        _commit_with_the_last_step(drafts, added_DL)
        branched_DL = left_BL[origin_D] & (rank_DL < branches_B[origin_D, None])
        drafts.note(rankings=(stepped.memory[_SCORE][origin_D], branched_DL, left_BL[origin_D]))
        if _TOKEN_GAP in drafts.memory:
            drafts.note(tokens=(drafts.memory[_TOKEN_GAP].abs(), added_DL))
        drafts.draft_from_B = torch.where(branches_B > 0, stepped.clock_B - 1, SETTLED)[origin_D]
        creation_D = drafts.memory[_CONFIDENCE].masked_fill(~added_DL, 0.0).sum(1)
        drafts.memory[_CREATION] = creation_D.masked_fill(nth_D == 0, 1.0)
        return drafts

    def accept(self, drafts: Canvas, prediction: Prediction, step: Step, observe: Observe) -> tuple[Canvas, Prediction]:
        """Return each row's surest branch."""
        row_D = torch.unique_consecutive(drafts.sample_B, return_inverse=True)[1]
        draft_D = torch.arange(len(row_D), device=row_D.device)
        base_D = starts(row_D)
        sure_D = self._confidence(drafts, prediction)
        own_RD = torch.arange(int(base_D.sum()), device=row_D.device)[:, None] == row_D
        sure_RD = torch.where(own_RD, sure_D, -torch.inf)
        best_RD = own_RD & (sure_RD == sure_RD.amax(1, keepdim=True))
        best_R = torch.where(best_RD, draft_D + base_D * len(draft_D), 2 * len(draft_D)).amin(1) % len(draft_D)
        chosen = drafts.rows(best_R)
        chosen.note_choice(across(sure_RD, own_RD & (draft_D == best_R[:, None]), own_RD))
        further_R = ~base_D[best_R]
        if bool(further_R.any()):
            begun_R = base_D.nonzero().squeeze(1)[further_R]
            before = drafts.rows(begun_R)
            before.tick(torch.ones_like(begun_R, dtype=torch.bool), -1)
            said = Candidates(
                tokens_BL=before.memory[_TOKENS],
                score_BL=before.memory[_SCORE],
                confidence_BL=before.memory[_CONFIDENCE],
            )
            observe(before, said, chosen.rows(further_R.nonzero().squeeze(1)))
        return chosen, prediction.rows(best_R)

    def _confidence(self, drafts: Canvas, prediction: Prediction) -> Tensor:
        """Return the mean top-1 probability of each draft's least sure open positions, mixed with its creation."""
        logits_NV = self.score_dtype.cast(prediction.logits_NV)
        p_N = surest(logits_NV)[1].exp().double()
        p_DL = prediction.scatter(p_N, torch.inf).masked_fill(~drafts.open_BL, torch.inf).sort(1).values
        count_D = (drafts.open_BL.sum(1) * self.branch_topp).long().clamp(min=1)
        rank_L = torch.arange(p_DL.shape[1], device=p_DL.device)
        mean_D = p_DL.masked_fill(rank_L >= count_D[:, None], 0.0).sum(1) / count_D
        return self.alpha * drafts.memory[_CREATION] + (1 - self.alpha) * mean_D


def _commit_with_the_last_step(drafts: Canvas, added_DL: Tensor) -> None:
    """Decide positions by the prediction that the last step followed."""
    every_D = torch.ones_like(drafts.clock_B, dtype=torch.bool)
    drafts.tick(every_D, -1)
    drafts.commit(added_DL, drafts.memory[_TOKENS])
    drafts.tick(every_D)
