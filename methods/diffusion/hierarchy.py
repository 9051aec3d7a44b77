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

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.margins import Bound, nearest
from harness.engine.diffusion.needs import Gives, Needs
from harness.engine.shared.indexing import filled, positions
from harness.engine.shared.policy import policy, probability
from harness.engine.shared.prediction import Candidates, Prediction, top
from harness.errors import at_least

_EDITED = "hierarchy.edited_BL"
_REMASKED = "hierarchy.remasked_BL"


class Variant(Enum):
    """What becomes of the best of all: `standard` always closes it, `fast_v2` where no confidence reaches `low`."""

    standard = "standard"
    fast_v2 = "fast_v2"


@dataclass(frozen=True)
class Runs:
    """Maximal stretches of open positions: the best of each, the first of equals; of closed ones nothing is told.

    `run_BL` numbers them, `own_BL` are the scores of open positions, `most_BL` the greatest of each one's run.
    """

    run_BL: Tensor
    own_BL: Tensor
    most_BL: Tensor
    best_BL: Tensor

    @classmethod
    def of(cls, score_BL: Tensor, open_BL: Tensor) -> "Runs":
        """Find them."""
        # A run has a number of its own, which it shares with nothing but the closed position before it.
        run_BL, (rows, length) = (~open_BL).cumsum(1), open_BL.shape
        own_BL, at_L = torch.where(open_BL, score_BL.double(), -torch.inf), positions(length, open_BL.device)
        most_BL = _greatest(own_BL, run_BL)
        nowhere_BR = filled((rows, length + 1), length, torch.int64, open_BL.device)
        tied_BL = torch.where(own_BL == most_BL, at_L, length)
        first_BL = nowhere_BR.scatter_reduce(1, run_BL, tied_BL, "amin").gather(1, run_BL)
        return cls(run_BL, own_BL, most_BL, first_BL == at_L)

    @property
    def lead_BL(self) -> Tensor:
        """By how much the score of an open position exceeds the best other one of its run."""
        next_BL = _greatest(torch.where(self.best_BL, -torch.inf, self.own_BL), self.run_BL)
        return self.own_BL - torch.where(self.best_BL, next_BL, self.most_BL)

    def above(self, candidates: Candidates, open_BL: Tensor, tau: float, low: float) -> Tensor:
        """Return run maxima above `low` and open positions above `tau`."""
        confidence_BL = candidates.confidence_BL
        return open_BL & ((self.best_BL & (confidence_BL > low)) | (confidence_BL > tau))


def _greatest(values_BL: Tensor, run_BL: Tensor) -> Tensor:
    """Return the greatest value of each position's run."""
    rows, length = run_BL.shape
    least_BR = filled((rows, length + 1), -torch.inf, torch.float64, run_BL.device)
    return least_BR.scatter_reduce(1, run_BL, values_BL, "amax").gather(1, run_BL)


@dataclass(frozen=True)
class Above:
    """How near positions of `among_BL` are to being `Runs.above`, or not to be: what `nearest` returns."""

    tau: float
    low: float

    def __call__(self, score_BL: Tensor, confidence_BL: Tensor, open_BL: Tensor, among_BL: Tensor) -> Tensor:
        """Return it for every row."""
        lead_BL, confidence_BL = Runs.of(score_BL, open_BL).lead_BL, confidence_BL.double()
        slack_BL = torch.maximum(torch.minimum(lead_BL, confidence_BL - self.low), confidence_BL - self.tau)
        return nearest(slack_BL, among_BL)


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
        runs, score_BL = Runs.of(candidates.score_BL, open_BL), candidates.score_BL
        best_BL = top(score_BL, open_BL, 1)
        chosen_BL = runs.above(candidates, open_BL, self.tau, self.low)
        # The best of all closes by its rank, the others by both bounds and their rank in their run.
        canvas.note(
            later=(Above(self.tau, self.low), (score_BL, candidates.confidence_BL, open_BL, open_BL & ~best_BL)),
            rankings=(score_BL, best_BL, best_BL | (open_BL & ~chosen_BL)),
        )
        if self.variant is Variant.standard:
            return chosen_BL | best_BL
        canvas.note(later=(Bound(self.low), (candidates.confidence_BL, best_BL)))
        confident_B1 = (open_BL & (candidates.confidence_BL >= self.low)).any(1, keepdim=True)
        return chosen_BL | (best_BL & ~confident_B1)


@policy("method/selector", "hierarchy_remask")
class HierarchyOfDoubted:
    """Close, of open and doubted positions, those of the hierarchy rule, and more until they outnumber the doubted.

    Doubted are decided positions of the window whose prediction has a confidence below `rm`. What becomes of them is
    left to the reviser.
    """

    gives = Gives(decides=True)
    needs = Needs(positions=lambda canvas: canvas.decided_here_BL)

    tau: float = probability(0.9)
    low: float = 0.4
    rm: float = 0.4

    def __post_init__(self) -> None:
        at_least(0, tau=self.tau, low=self.low, rm=self.rm)

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        """Return what is chosen, of which at least one is open, as more are chosen than are doubted."""
        again_BL, score_BL, confidence_BL = canvas.decided_here_BL, candidates.score_BL, candidates.confidence_BL
        # Rows without an open position make no step.
        doubted_BL = again_BL & (confidence_BL < self.rm) & open_BL.any(1, keepdim=True)
        eligible_BL = open_BL | doubted_BL
        chosen_BL = Runs.of(score_BL, eligible_BL).above(candidates, eligible_BL, self.tau, self.low)
        left_BL = eligible_BL ^ chosen_BL
        # So many are missing; where more are chosen than need be, the number is negative, and none is added.
        added_BL = top(score_BL, left_BL, doubted_BL.sum(1) + 1 - chosen_BL.sum(1))
        canvas.note(later=(Bound(self.rm), (confidence_BL, again_BL)))
        canvas.note(
            rankings=(score_BL, added_BL, left_BL),
            later=(Above(self.tau, self.low), (score_BL, confidence_BL, eligible_BL, eligible_BL)),
        )
        chosen_BL = chosen_BL | added_BL
        canvas.memory[_EDITED] = edited_BL = doubted_BL & chosen_BL
        canvas.memory[_REMASKED] = doubted_BL ^ edited_BL
        return chosen_BL


@policy("method/reviser", "hierarchy_remask")
class RemaskDoubted:
    """Give doubted positions that the selector chose the present prediction, and mask the others again.

    Does nothing beside a selector that doubts nothing.
    """

    def __call__(self, canvas: Canvas, prediction: Prediction, candidates: Candidates, commit_BL: Tensor) -> None:
        """Edit and mask again."""
        if _EDITED not in canvas.memory:
            return
        changed_BL = candidates.tokens_BL != canvas.tokens_BL
        canvas.edit(canvas.memory[_EDITED] & changed_BL, candidates.tokens_BL)
        remasked_BL = canvas.memory[_REMASKED]
        canvas.reopen(remasked_BL, remasked_BL.sum(1))
