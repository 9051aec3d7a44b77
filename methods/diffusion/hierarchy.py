"""dInfer's hierarchy decoders: close one position inside every run of masks, so that all runs split at once.

Source: dInfer (arXiv:2510.08666), HierarchyDecoder and two more selectors of the authors' code. Symbol -> knob:
threshold -> tau (default 0.9), least confidence of a run's best position -> low (default 0.4), re-masking bound -> rm
(default 0.4), early stop -> early_stop, block size -> block_length (default 32). Runs are maximal stretches of open
positions. Closed are the best position of every run where its confidence exceeds low, every position above tau, and the
best of all; `fast_v2` closes the best of all for its own sake only where no confidence reaches low.
`hierarchy_remask` looks again at what the window has decided: such a token whose position is now predicted with less
than rm is doubted, runs are made of open and doubted positions, and further best positions are taken until one more is
chosen than are doubted. Chosen doubted positions take the present prediction, the others are masked again.
Deviations from the authors' code: of equal maxima of a run the first closes, not all; their own loop cannot reach the
re-masking selector, so the plain block loop around it is ours; `early_stop` is off by default, and off means that the
whole response is decoded.
Invariants: low >= 1 equals `threshold` with a strict comparison; masks of a block become fewer in every step, re-masked
ones included; rm = 0 re-masks nothing.
"""

from enum import Enum

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.needs import Gives, Needs
from harness.engine.shared.policy import policy, probability
from harness.engine.shared.prediction import Candidates, Prediction, rank_descending, top
from harness.errors import at_least

_EDITED = "hierarchy.edited_BL"
_REMASKED = "hierarchy.remasked_BL"


class Variant(Enum):
    """What becomes of the best of all: `standard` always closes it, `fast_v2` where no confidence reaches `low`."""

    standard = "standard"
    fast_v2 = "fast_v2"


def run_maxima(score_BL: Tensor, open_BL: Tensor) -> Tensor:
    """Return the best position of every maximal stretch of open positions, the first of equals."""
    length = open_BL.shape[1]
    before_BL = torch.nn.functional.pad(open_BL[:, :-1], (1, 0))
    run_BL = (open_BL & ~before_BL).cumsum(1)
    rank_BL = rank_descending(score_BL.masked_fill(~open_BL, -torch.inf)).masked_fill(~open_BL, length)
    best_BR = torch.full((len(run_BL), length + 1), length, device=run_BL.device)
    best_BR = best_BR.scatter_reduce(1, run_BL, rank_BL, "amin")
    return open_BL & (rank_BL == best_BR.gather(1, run_BL))


@policy("method/selector", "hierarchy")
class Hierarchy:
    """Close the best position of every run above `low`, every position above `tau`, and the best of all."""

    tau: float = probability(0.9)
    low: float = 0.4
    variant: Variant = Variant.standard

    def __post_init__(self) -> None:
        at_least(0, tau=self.tau, low=self.low)

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        """Return the positions of the rule."""
        best_BL = top(candidates.score_BL, open_BL, torch.ones_like(canvas.clock_B))
        chosen_BL = _above(candidates, open_BL, self.tau, self.low)
        self._note_margin(candidates, open_BL, best_BL, canvas)
        if self.variant is Variant.standard:
            return chosen_BL | best_BL
        confident_B1 = (open_BL & (candidates.confidence_BL >= self.low)).any(1, keepdim=True)
        return chosen_BL | (best_BL & ~confident_B1)

    def _note_margin(self, candidates: Candidates, open_BL: Tensor, best_BL: Tensor, canvas: Canvas) -> None:
        """The best of all closes by its rank, the others by both bounds and their rank in their run."""
        canvas.note(bounds=(_slack(candidates, open_BL, self.tau, self.low), open_BL & ~best_BL))
        by_rank_BL = best_BL | (open_BL & ~_above(candidates, open_BL, self.tau, self.low))
        canvas.note(rankings=(candidates.score_BL, best_BL, by_rank_BL))
        if self.variant is Variant.fast_v2:
            canvas.note(bounds=(candidates.confidence_BL - self.low, best_BL))


@policy("method/selector", "hierarchy_remask")
class HierarchyOfDoubted:
    """Close, of open and doubted positions, those of the hierarchy rule, and more until they outnumber the doubted.

    Doubted are decided positions of the window whose prediction has a confidence below `rm`. What becomes of them is
    left to the reviser.
    """

    gives = Gives(decides=True)

    tau: float = probability(0.9)
    low: float = 0.4
    rm: float = 0.4

    def __post_init__(self) -> None:
        at_least(0, tau=self.tau, low=self.low, rm=self.rm)

    @property
    def needs(self) -> Needs:
        """What `reads` returns."""
        return Needs(positions=self.reads)

    def reads(self, canvas: Canvas) -> Tensor:
        """Return the decided positions of the window."""
        return canvas.committed_BL & canvas.window_BL

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        """Return the chosen open positions: at least one, as more are chosen than are doubted."""
        doubted_BL = self.reads(canvas) & (candidates.confidence_BL < self.rm)
        eligible_BL = open_BL | doubted_BL
        chosen_BL = _above(candidates, eligible_BL, self.tau, self.low)
        missing_B = (doubted_BL.sum(1) + 1 - chosen_BL.sum(1)).clamp(min=0)
        canvas.note(bounds=(candidates.confidence_BL - self.rm, self.reads(canvas)))
        canvas.note(bounds=(_slack(candidates, eligible_BL, self.tau, self.low), eligible_BL))
        left_BL, added_BL = eligible_BL & ~chosen_BL, top(candidates.score_BL, eligible_BL & ~chosen_BL, missing_B)
        canvas.note(rankings=(candidates.score_BL, added_BL, left_BL))
        chosen_BL = chosen_BL | added_BL
        canvas.memory[_EDITED] = doubted_BL & chosen_BL
        canvas.memory[_REMASKED] = doubted_BL & ~chosen_BL
        return open_BL & chosen_BL


@policy("method/reviser", "hierarchy_remask")
class RemaskDoubted:
    """Give doubted positions that the selector chose the present prediction, and mask the others again.

    Does nothing beside a selector that doubts nothing.
    """

    def __call__(self, canvas: Canvas, prediction: Prediction, candidates: Candidates, commit_BL: Tensor) -> None:
        """Revise the rows that have made a step."""
        if _EDITED not in canvas.memory:
            return
        stepped_B1 = commit_BL.any(1, keepdim=True)
        changed_BL = candidates.tokens_BL != canvas.tokens_BL
        canvas.edit(canvas.memory[_EDITED] & stepped_B1 & changed_BL, candidates.tokens_BL)
        canvas.remask(canvas.memory[_REMASKED] & stepped_B1)


def _above(candidates: Candidates, open_BL: Tensor, tau: float, low: float) -> Tensor:
    """Return run maxima above `low` and positions above `tau`."""
    maxima_BL = run_maxima(candidates.score_BL, open_BL) & (candidates.confidence_BL > low)
    return maxima_BL | (open_BL & (candidates.confidence_BL > tau))


def _slack(candidates: Candidates, open_BL: Tensor, tau: float, low: float) -> Tensor:
    """Return by how much positions meet `_above`, or (negative) do not."""
    confidence_BL = candidates.confidence_BL.double()
    lead_BL = _lead_in_run(candidates.score_BL, open_BL)
    return torch.maximum(torch.minimum(lead_BL, confidence_BL - low), confidence_BL - tau)


def _lead_in_run(score_BL: Tensor, open_BL: Tensor) -> Tensor:
    """Return by how much each score exceeds the best other one of its run."""
    best_BL = run_maxima(score_BL, open_BL)
    of_best_BL = _greatest_in_run(score_BL, open_BL, open_BL)
    of_next_BL = _greatest_in_run(score_BL, open_BL, open_BL & ~best_BL)
    return score_BL.double() - torch.where(best_BL, of_next_BL, of_best_BL)


def _greatest_in_run(score_BL: Tensor, open_BL: Tensor, among_BL: Tensor) -> Tensor:
    """Return, at every position, the greatest score of those in its run that are in `among_BL`."""
    before_BL = torch.nn.functional.pad(open_BL[:, :-1], (1, 0))
    run_BL = (open_BL & ~before_BL).cumsum(1)
    lowest_BR = torch.full((len(run_BL), open_BL.shape[1] + 1), -torch.inf, dtype=torch.float64, device=run_BL.device)
    score_BL = score_BL.double().masked_fill(~among_BL, -torch.inf)
    return lowest_BR.scatter_reduce(1, run_BL, score_BL, "amax").gather(1, run_BL)
