"""LocalLeap: a lower threshold in the neighbourhood of positions that are sure (arXiv:2510.07081).

Symbol -> knob: anchor threshold -> tau (default 0.9), relaxed threshold -> tau_rel (default 0.75; null: none), radius
-> r (default 4), block size -> block_length (default 32), finish rule `block_eos` -> early_stop. Anchors are the open
positions that reach tau in this very step; within r positions of one, tau_rel is enough.
Deviations: the rule follows a copy in another project (DAWN), not the authors' own code. Tokens that are already
decided are no anchors there, and the relaxation does not decay with the distance. `strict` is an addition.
Invariants: r = 0 or tau_rel = tau equals `threshold`; above 1 both ways, one position per step.
"""

from torch import Tensor
from torch.nn.functional import max_pool1d

from harness.engine.diffusion.canvas import Canvas
from harness.engine.shared.policy import policy, probability
from harness.engine.shared.prediction import Candidates
from harness.errors import FieldError, at_least


@policy("method/selector", "local_leap")
class LocalLeap:
    """Close open positions that reach `tau`, and those within `r` positions of one of them that reach `tau_rel`.

    `strict` asks for more than the thresholds.
    """

    tau: float = probability(0.9)
    tau_rel: float | None = 0.75
    r: int = 4
    strict: bool = False

    def __post_init__(self) -> None:
        at_least(0, tau=self.tau)
        if self.tau_rel is not None and not 0 <= self.tau_rel <= self.tau:
            raise FieldError("tau_rel", self.tau_rel, f"be between 0 and tau={self.tau}")
        at_least(0, r=self.r)

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        """Return the sure positions and their neighbours; the loop adds the best one where there is none."""
        anchor_BL = open_BL & self._reaches(candidates, self.tau)
        canvas.note(bounds=(candidates.confidence_BL - self.tau, open_BL))
        if self.tau_rel is None:
            return anchor_BL
        near_BL = max_pool1d(anchor_BL.float(), 2 * self.r + 1, stride=1, padding=self.r) > 0
        canvas.note(bounds=(candidates.confidence_BL - self.tau_rel, open_BL & near_BL & ~anchor_BL))
        return anchor_BL | (open_BL & near_BL & self._reaches(candidates, self.tau_rel))

    def _reaches(self, candidates: Candidates, bound: float) -> Tensor:
        return candidates.confidence_BL > bound if self.strict else candidates.confidence_BL >= bound
