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

from dataclasses import replace
from itertools import groupby

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import SETTLED, Canvas
from harness.engine.diffusion.policies import Observe, Step
from harness.engine.diffusion.standing import Told, counted, tell, told
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Candidates, Prediction, ScoreDtype, rank_descending, surest
from harness.errors import FieldError, at_least

_TOKENS, _SCORE, _CONFIDENCE = "lopa.tokens_BL", "lopa.score_BL", "lopa.confidence_BL"
_KNOWN, _CREATION, _TOKEN_GAP = "lopa.known_BL", "lopa.creation_B", "lopa.token_gap_BL"
_CLOCK = "lopa.clock_B"


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
            _KNOWN: candidates.score_BL > -torch.inf,
        }
        if candidates.token_gap_BL is not None:
            canvas.memory[_TOKEN_GAP] = candidates.token_gap_BL
        canvas.memory[_CLOCK] = canvas.clock_B

    def count(self, canvas: Canvas) -> Tensor:
        """Return how many candidates a step has left to the branches."""
        return _left(canvas).sum(1)

    def ahead(self, canvas: Canvas) -> None:
        """Return None: branches stay in their window."""

    def propose(self, canvas: Canvas, prediction: Prediction, stepped: Canvas, step: Step) -> Canvas:
        """Return the branches, each row's base first, then by the rank of what they add."""
        memory, left_BL = stepped.memory, _left(stepped)
        sample, opened, held = told(stepped)
        counts = counted(stepped) or left_BL.sum(1).tolist()
        branches = [min(left, self.k - 1) if more > 1 else 0 for left, more in zip(counts, opened, strict=True)]
        made = [(row, nth, count) for row, count in enumerate(branches) for nth in range(count + 1)]
        origin_D, nth_D, count_D = torch.tensor(made, dtype=torch.int64, device=left_BL.device).unbind(1)
        score_BL = memory[_SCORE]
        rank_BL = rank_descending(torch.where(left_BL, score_BL, -torch.inf))
        left_DL, rank_DL, score_DL = (one.index_select(0, origin_D) for one in (left_BL, rank_BL, score_BL))
        added_DL, branch_D = left_DL & (rank_DL == nth_D[:, None] - 1), nth_D > 0
        drafts = _without(stepped, _KNOWN, _CLOCK, _TOKEN_GAP).rows(origin_D)
        drafts.draft_from_B = torch.where(count_D > 0, drafts.clock_B - 1, SETTLED)
        _commit_with_the_last_step(drafts, added_DL, branch_D)
        drafts.note(rankings=(score_DL, left_DL & (rank_DL < count_D[:, None]), left_DL))
        if _TOKEN_GAP in memory:
            drafts.note(tokens=(memory[_TOKEN_GAP].index_select(0, origin_D).abs(), added_DL))
        creation_D = torch.where(added_DL, drafts.memory[_CONFIDENCE], 0.0).sum(1)
        drafts.memory[_CREATION] = torch.where(branch_D, creation_D, 1.0)
        origins = [row for row, _, _ in made]
        left_open = [opened[row] - (nth > 0) for row, nth, _ in made]
        tell(drafts, Told([sample[row] for row in origins], left_open, [held[row] for row in origins]))
        return drafts

    def accept(self, drafts: Canvas, prediction: Prediction, step: Step, observe: Observe) -> tuple[Canvas, Prediction]:
        """Return each row's surest branch."""
        samples = told(drafts).sample
        if len(set(samples)) == len(samples):
            return _without(drafts, _TOKENS, _SCORE, _CONFIDENCE, _CREATION), prediction
        confidences = self._confidence(drafts, prediction).tolist()
        starts: list[int] = []
        best: list[int] = []
        gaps: list[float] = []
        for _, of_row in groupby(range(len(samples)), key=samples.__getitem__):
            sure = [(confidences[draft], draft) for draft in of_row]
            starts.append(sure[0][1])
            # The base loses ties, of the others the first wins.
            ranked = sorted(sure[1:] + sure[:1], key=lambda one: -one[0])
            best.append(ranked[0][1])
            gaps.append(ranked[0][0] - ranked[1][0] if len(ranked) > 1 else torch.inf)
        device = drafts.held_B.device
        chosen = _without(drafts, _TOKENS, _SCORE, _CONFIDENCE, _CREATION).rows(torch.tensor(best, device=device))
        chosen.note_choice(torch.tensor(gaps, dtype=torch.float64, device=device))
        further = [row for row, (start, at) in enumerate(zip(starts, best, strict=True)) if start != at]
        if further:
            before = drafts.rows(torch.tensor([starts[row] for row in further], device=device))
            before.tick(None, -1)
            said = Candidates(
                tokens_BL=before.memory[_TOKENS],
                score_BL=before.memory[_SCORE],
                confidence_BL=before.memory[_CONFIDENCE],
            )
            observe(before, said, chosen.rows(torch.tensor(further, device=device)))
        read = prediction.open_BL is drafts.open_BL
        return chosen, replace(prediction.rows(best), open_BL=chosen.open_BL if read else None)

    def _confidence(self, drafts: Canvas, prediction: Prediction) -> Tensor:
        """Return the mean top-1 probability of each draft's least sure open positions, mixed with its creation."""
        logits_NV = self.score_dtype.cast(prediction.logits_NV)
        p_N = surest(logits_NV)[1].exp().double()
        p_DL = torch.where(drafts.open_BL, prediction.scatter(p_N, torch.inf), torch.inf).sort(1).values
        count_D = (drafts.num_open_B * self.branch_topp).long().clamp(min=1)
        mean_D = p_DL.masked_fill(drafts.position_L >= count_D[:, None], 0.0).sum(1) / count_D
        return self.alpha * drafts.memory[_CREATION] + (1 - self.alpha) * mean_D


def _left(canvas: Canvas) -> Tensor:
    """Return the open positions with a score, of which a scorer may leave some without, in rows that made a step."""
    if _CLOCK not in canvas.memory:
        return torch.zeros_like(canvas.window_BL)
    sources = canvas.open_BL, canvas.memory[_KNOWN], canvas.clock_B, canvas.memory[_CLOCK]
    return canvas.once(
        _left, sources, lambda open_BL, known_BL, *clocks: open_BL & known_BL & torch.gt(*clocks)[:, None]
    )


def _without(canvas: Canvas, *keys: str) -> Canvas:
    """Return a copy that has forgotten what is kept under these keys."""
    made = canvas.copy()
    for key in keys:
        if key in made.memory:
            del made.memory[key]
    return made


def _commit_with_the_last_step(drafts: Canvas, added_DL: Tensor, branch_D: Tensor) -> None:
    """Decide one position of every branch by the prediction that the last step followed."""
    drafts.tick(None, -1)
    drafts.decide(added_DL, drafts.memory[_TOKENS], branch_D)
    drafts.tick(None)
