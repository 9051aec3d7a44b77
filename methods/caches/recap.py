"""ReCAP for text: full calls, and between them calls for the positions that are next (after arXiv:2505.19089).

Published for images; this text version is a reconstruction. Symbol -> knob: light calls of a group -> r (default 1),
groups of one full call at the start of a window -> pre_full (default 2), least size of the target set U -> u_min
(default 4). A group is one full call, whose step commits C0, and up to r light calls; U are the best
max(|C0|, u_min) positions that are still open, by the top probability of the full call, or as many as the schedule
closes in r steps. A light call computes U and C0 against the keys and values of the full call; only U may be
committed. The group ends early when U is used up. Use: `method=threshold method/cache=recap method.cache.r=2`.
Of r steps of a schedule, the present quota is taken for each. Tokens that were edited or masked again since they were
computed are computed in light calls too.
Invariant: r = 0 equals no cache.
"""

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.evaluation import EvaluationRequest
from harness.engine.diffusion.needs import Gives, Leaves
from harness.engine.diffusion.reuse import compute, kept, recall, top_probability
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import top
from harness.errors import FieldError

_LEFT, _TARGETS, _LIGHT, _SURE = "recap.left_B", "recap.targets_BL", "recap.light_B", "recap.sure_BL"


@policy("method/cache", "recap")
class ContextReuse:
    """Follow a full call by `r` light ones, the first `pre_full` calls of a window apart."""

    gives = Gives(leaves=Leaves.open)

    r: int = 1
    pre_full: int = 2
    u_min: int = 4

    def __post_init__(self) -> None:
        for name, value, least in (("r", self.r, 0), ("pre_full", self.pre_full, 0), ("u_min", self.u_min, 1)):
            if value < least:
                raise FieldError(name, value, f"be at least {least}")

    def narrow(self, canvas: Canvas, read_BL: Tensor, quota_B: Tensor | None) -> Tensor:
        """Return the targets of rows that make a light call; the others read everything."""
        past = recall(canvas)
        begins_B = (past.calls_B == 0) | past.fresh_B
        left_B = kept(canvas, _LEFT, torch.zeros_like(canvas.clock_B)).masked_fill(begins_B, 0)
        targets_BL = kept(canvas, _TARGETS, torch.zeros_like(canvas.open_BL))
        first_B = (left_B > 0) & (left_B == self.r)
        if bool(first_B.any()):
            fresh_BL = self._targets(canvas, past.changed_BL(canvas), quota_B)
            targets_BL = torch.where(first_B[:, None], fresh_BL, targets_BL)
        light_B = (left_B > 0) & (targets_BL & canvas.open_BL).any(1)
        canvas.memory |= {_LEFT: left_B, _TARGETS: targets_BL, _LIGHT: light_B}
        return read_BL & (targets_BL | ~light_B[:, None])

    def _targets(self, canvas: Canvas, changed_BL: Tensor, quota_B: Tensor | None) -> Tensor:
        """Return the next positions and those that the full call's step has committed."""
        if quota_B is None:
            size_B = (changed_BL & ~canvas.undecided_BL).sum(1).clamp(min=self.u_min)
        else:
            size_B = self.r * quota_B.clamp(min=1)
        unknown_BL = torch.full_like(canvas.tokens_BL, -torch.inf, dtype=canvas.memory[_SURE].dtype)
        return top(kept(canvas, _SURE, unknown_BL), canvas.open_BL, size_B) | changed_BL

    def evaluate(self, request: EvaluationRequest) -> Tensor:
        """Return aligned logits of the read positions, which `narrow` has chosen."""
        canvas, model = request.canvas, request.model
        past, light_B = recall(canvas), canvas.memory[_LIGHT]
        query_BL = canvas.memory[_TARGETS] | past.changed_BL(canvas) | ~light_B[:, None]
        logits_NV = compute(request, query_BL, past)
        sure_BL = torch.full_like(canvas.tokens_BL, -torch.inf, dtype=logits_NV.dtype)
        sure_BL[request.row_N, request.position_N] = top_probability(logits_NV, model.spec)
        canvas.memory[_SURE] = sure_BL
        group_B = torch.where(past.calls_B < self.pre_full, 0, self.r)
        canvas.memory[_LEFT] = torch.where(light_B, canvas.memory[_LEFT] - 1, group_B)
        return logits_NV
