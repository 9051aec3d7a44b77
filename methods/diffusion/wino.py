"""WINO: commit widely, verify every earlier token in the same call, take back what fails (arXiv:2507.18578, section 3).

Symbol -> knob: tau_1 -> tau1 (0.7; 0.5 to 0.8 by task), tau_2 -> tau2 (0.9), block size K -> block_length (128),
least and most commits per step -> cap_least (5), cap_most (20), share of the masks that may close -> cap_share (0.7).
A shadow block of K masks follows the canvas, with the positions of the current block. It sees everything but the token
at its own position, and only shadows see it: its row i estimates p(x_i | all the rest), exactly so in a model of one
layer (in deeper ones the rest has seen the token). Per step and call: the positions
surer than tau1 close (at most cap = clamp(0.7 masks, 5, 20); the best one at least); tokens decided before whose shadow
probability is below tau2 are masked again, the least probable ones first, fewer than the last step closed, and none
when only one position closes now. The first step of a block may take back 29.
Deviations from the authors' code (Feng-Hong/WINO-DLLM): the cap's constants are knobs.
Cost: every call computes the shadow as well, (L + K) query tokens. Keys of shadows must not be cached.
Invariants: tau2 = 0 never takes back; a step that takes back closes more than the next one may take back.
"""

from dataclasses import dataclass
from functools import lru_cache, partial

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.evaluation import EvaluationRequest
from harness.engine.diffusion.margins import Bound
from harness.engine.diffusion.needs import Gives, Needs
from harness.engine.diffusion.standing import number_of
from harness.engine.shared.indexing import filled, listed, positions
from harness.engine.shared.model import ForwardRequest, ModelSpec
from harness.engine.shared.policy import policy, probability
from harness.engine.shared.prediction import Candidates, Prediction, ScoreDtype, least, log_probability, top
from harness.engine.shared.records import Charge
from harness.errors import FieldError, at_least

_LAST = "wino.last_B"
_FIRST_LIMIT = 30


@policy("method/cache", "shadow_block")
class ShadowBlock:
    """Compute everything and, for the decided positions of the window, what the model says without their tokens."""

    # No attention: that of a canvas with a shadow is not the canvas's.
    gives = Gives(guidance=True, drafts=True)

    def evaluate(self, request: EvaluationRequest) -> Tensor:
        """Return aligned logits; those of committed positions come from their shadows."""
        canvas, known = request.canvas, (request.canvas.window_BL, request.canvas.whole_BL)
        shadow = canvas.once(_Shadow, known, partial(_Shadow.of, request.model.spec))
        rows, added = len(canvas.tokens_BL), shadow.positions_BT.shape[1] - canvas.tokens_BL.shape[1]
        masks_BK, never_BK = (
            filled((rows, added), value, torch.int64, canvas.tokens_BL.device) for value in (canvas.mask_id, -1)
        )
        with_shadows = ForwardRequest(
            torch.cat([canvas.tokens_BL, masks_BK], 1),
            positions_BT=shadow.positions_BT,
            visible_BTS=shadow.visible_BTS,
            select_N=request.places.take(torch.where(canvas.committed_BL, shadow.shadow_BL, shadow.own_BL)),
            decided_at_BT=torch.cat([canvas.decided_at_BL, never_BK], 1),
        )
        charge = Charge(
            sample_B=canvas.sample_B,
            query_B=shadow.query_B,
            keys_B=canvas.length_B,
            head_B=request.head_B,
        )
        return request.call(with_shadows, charge)


@dataclass(frozen=True, kw_only=True)
class _Shadow:
    """What a call with shadows looks like: the same as long as the window is.

    `own_BL` and `shadow_BL` are the places, rows one behind the other, that a position's logits are those of: as it is,
    and without its token where it has a shadow; `query_B` is how many positions each row has, shadows included.
    """

    query_B: Tensor
    positions_BT: Tensor
    visible_BTS: Tensor
    own_BL: Tensor
    shadow_BL: Tensor

    @classmethod
    def of(cls, spec: ModelSpec, window_BL: Tensor, whole_BL: Tensor) -> "_Shadow":
        """Put the positions of every window behind the canvas; waits for the device."""
        (rows, width), device, count_B = window_BL.shape, window_BL.device, window_BL.sum(1)
        order_BK = window_BL.long().argsort(dim=1, descending=True, stable=True)[:, : int(count_B.max())]
        real_BK = positions(order_BK.shape[1], device) < count_B[:, None]
        positions_BT = torch.cat([positions(width, device).expand(rows, -1), order_BK], 1)
        total = positions_BT.shape[1]
        own_BL = positions(rows * total, device).view(rows, total)[:, :width]
        shadow_BL = torch.where(window_BL, own_BL[:, :1] + width + window_BL.cumsum(1) - 1, own_BL)
        source_L = spec.sources(positions(width, device))
        return cls(
            query_B=whole_BL.sum(1) + count_B,
            positions_BT=positions_BT,
            visible_BTS=_visible(positions_BT, torch.cat([whole_BL, real_BK], 1), width),
            own_BL=own_BL.index_select(1, source_L),
            shadow_BL=shadow_BL.index_select(1, source_L),
        )


def _visible(positions_BT: Tensor, keys_BT: Tensor, width: int) -> Tensor:
    """Return what queries see [B, T, T]: canvas sees canvas, shadows see all but the token at their own position."""
    shadow_T = torch.arange(positions_BT.shape[1], device=positions_BT.device) >= width
    same_BTT = positions_BT[:, :, None] == positions_BT[:, None, :]
    of_shadow_BTT = shadow_T[None, None, :] | ~same_BTT
    return keys_BT[:, None, :] & torch.where(shadow_T[None, :, None], of_shadow_BTT, ~shadow_T[None, None, :])


@policy("method/selector", "wide_in")
class WideIn:
    """Close the positions surer than `tau1`, at most a clamped share of the window's masks."""

    tau1: float = probability(0.7)
    cap_share: float = 0.7
    cap_least: int = 5
    cap_most: int = 20

    def __post_init__(self) -> None:
        at_least(0, tau1=self.tau1)
        if not 0 < self.cap_share <= 1:
            raise FieldError("cap_share", self.cap_share, "lie in (0, 1]")
        if not 1 <= self.cap_least <= self.cap_most:
            raise FieldError("cap_least", self.cap_least, f"lie in [1, cap_most={self.cap_most}]")

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        """Return the positions to commit; the loop adds the best one where there is none."""
        cap_B = _caps(self, open_BL.shape[1], open_BL.device).index_select(0, number_of(canvas, open_BL))
        sure_BL = open_BL & (candidates.confidence_BL > self.tau1)
        chosen_BL = top(candidates.score_BL, sure_BL, cap_B)
        canvas.note(
            later=(Bound(self.tau1), (candidates.confidence_BL, open_BL)),
            rankings=(candidates.score_BL, chosen_BL, sure_BL),
        )
        return chosen_BL


@lru_cache
def _caps(rule: WideIn, most: int, device: torch.device) -> Tensor:
    """Return how many of so many masks may close, from none to `most`."""
    shares = (int(masks * rule.cap_share) for masks in range(most + 1))
    return listed(tuple(min(max(share, rule.cap_least), rule.cap_most) for share in shares), device)


@policy("method/reviser", "narrow_out")
class NarrowOut:
    """Mask tokens again that the model, not seeing them, gives less than `tau2`."""

    # As a shadow block predicts them: other predictions have seen the tokens.
    needs = Needs(positions=lambda canvas: canvas.decided_here_BL, beside={"cache": ("shadow_block",)})

    tau2: float = 0.9
    score_dtype: ScoreDtype = ScoreDtype.float32

    def __post_init__(self) -> None:
        at_least(0, tau2=self.tau2)

    def __call__(self, canvas: Canvas, prediction: Prediction, candidates: Candidates, commit_BL: Tensor) -> None:
        """Take back tokens that were decided before this step."""
        logits_NV = self.score_dtype.cast(prediction.logits_NV)
        p_N = log_probability(logits_NV, prediction.gather(canvas.tokens_BL)).exp()
        p_BL = prediction.scatter(p_N, torch.inf)
        closed_B = commit_BL.sum(1)
        looked_at_BL = (canvas.decided_here_BL > commit_BL) & (closed_B > 1)[:, None]
        failed_BL = looked_at_BL & (p_BL < self.tau2)
        opened_B = canvas.clock_B == canvas.opened_at_B
        last_B = canvas.memory.get(_LAST, canvas.clock_B).masked_fill(opened_B, _FIRST_LIMIT)
        reopened_BL = least(p_BL, failed_BL, last_B - 1)
        canvas.note(later=(Bound(self.tau2), (p_BL, looked_at_BL)), rankings=(p_BL, reopened_BL, failed_BL))
        canvas.reopen(reopened_BL, reopened_BL.sum(1))
        canvas.memory[_LAST] = closed_B
