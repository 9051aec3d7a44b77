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
    """Maximal stretches of open positions: the best of each, the first of equals, and by how much all are ahead.

    `lead_BL` is by how much an open position's score exceeds the best other one of its run.
    """

    best_BL: Tensor
    lead_BL: Tensor

    @classmethod
    def of(cls, score_BL: Tensor, open_BL: Tensor) -> "Runs":
        """Find them."""
        (rows, length), device = open_BL.shape, open_BL.device
        begins_BL = open_BL & ~torch.nn.functional.pad(open_BL[:, :-1], (1, 0))
        run_BL, at_L = begins_BL.cumsum(1), positions(length, device)
        nowhere_BR = filled((rows, length + 1), length, torch.int64, device)
        least_BR = filled((rows, length + 1), -torch.inf, torch.float64, device)

        def greatest(values_BL: Tensor) -> Tensor:
            return least_BR.scatter_reduce(1, run_BL, values_BL, "amax").gather(1, run_BL)

        own_BL = torch.where(open_BL, score_BL.double(), -torch.inf)
        most_BL = greatest(own_BL)
        ties_BL = open_BL & (own_BL == most_BL)
        first_BR = nowhere_BR.scatter_reduce(1, run_BL, torch.where(ties_BL, at_L, length), "amin")
        best_BL = ties_BL & (first_BR.gather(1, run_BL) == at_L)
        next_BL = greatest(torch.where(best_BL, -torch.inf, own_BL))
        return cls(best_BL, own_BL - torch.where(best_BL, next_BL, most_BL))

    def above(self, candidates: Candidates, open_BL: Tensor, tau: float, low: float) -> Tensor:
        """Return run maxima above `low` and open positions above `tau`."""
        confidence_BL = candidates.confidence_BL
        return (self.best_BL & (confidence_BL > low)) | (open_BL & (confidence_BL > tau))

    def slack(self, candidates: Candidates, tau: float, low: float) -> Tensor:
        """Return by how much positions are `above`, or (negative) are not."""
        confidence_BL = candidates.confidence_BL.double()
        return torch.maximum(torch.minimum(self.lead_BL, confidence_BL - low), confidence_BL - tau)


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
            bounds=(runs.slack(candidates, self.tau, self.low), open_BL & ~best_BL),
            rankings=(score_BL, best_BL, best_BL | (open_BL & ~chosen_BL)),
        )
        if self.variant is Variant.standard:
            return chosen_BL | best_BL
        canvas.note(bounds=(candidates.confidence_BL - self.low, best_BL))
        confident_B1 = (open_BL & (candidates.confidence_BL >= self.low)).any(1, keepdim=True)
        return chosen_BL | (best_BL & ~confident_B1)


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
        again_BL, score_BL = self.reads(canvas), candidates.score_BL
        doubted_BL = again_BL & (candidates.confidence_BL < self.rm)
        eligible_BL = open_BL | doubted_BL
        runs = Runs.of(score_BL, eligible_BL)
        chosen_BL = runs.above(candidates, eligible_BL, self.tau, self.low)
        missing_B = (doubted_BL.sum(1) + 1 - chosen_BL.sum(1)).clamp(min=0)
        left_BL = eligible_BL & ~chosen_BL
        added_BL = top(score_BL, left_BL, missing_B)
        canvas.note(bounds=(candidates.confidence_BL - self.rm, again_BL))
        canvas.note(
            bounds=(runs.slack(candidates, self.tau, self.low), eligible_BL), rankings=(score_BL, added_BL, left_BL)
        )
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
