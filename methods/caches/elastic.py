"""Elastic-Cache: recompute from the layer on where attention has drifted (arXiv:2510.14973).

Everything beyond the abstract is a reconstruction. Symbol -> knob: masks in the sliding
window -> beta (default 16), similarity below which attention has drifted -> gam (default 0.9), what is compared ->
profile (default column). The first call computes everything; in it every layer tracks the position outside of the
window that its masks look at most. A later call computes the leftmost beta masks, those of the open window first,
and the tokens that changed, against kept keys and values of the rest. Where the cosine of a layer's profile and that
of the call before is below gam, all layers above compute every position, from the kept inputs of their layer, and
track anew. The profile is the attention that the window's masks pay to the tracked position, over the masks of both
calls (`column`), or the attention that the tracked position pays to all others, for which it is computed (`row`).
Only the window's masks can be committed. Use: `method=threshold method/cache=elastic method.cache.gam=0.95`.
Invariants: with one layer and a window of all masks it equals no cache; gam = 0 never recomputes.
"""

from dataclasses import dataclass, field
from enum import Enum

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.evaluation import EvaluationRequest
from harness.engine.diffusion.needs import Gives, Leaves
from harness.engine.diffusion.reuse import (
    Features,
    Gathered,
    features_of,
    kept,
    recall,
    remember,
    with_sources,
)
from harness.engine.shared.model import Layer
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import top
from harness.errors import at_least

_TRACKED, _PROFILE = "elastic.tracked_BN", "elastic.profile_BNL"


class Profile(Enum):
    """Which attention of the tracked position is compared: what it gets, or what it pays."""

    column = "column"
    row = "row"


@policy("method/cache", "elastic")
class ElasticCache:
    """Compute a window of `beta` masks, and everything above the layer whose attention has drifted."""

    gives = Gives(leaves=Leaves.open)

    beta: int = 16
    gam: float = 0.9
    profile: Profile = Profile.column

    def __post_init__(self) -> None:
        at_least(1, beta=self.beta)
        at_least(0, gam=self.gam)

    def narrow(self, canvas: Canvas, read_BL: Tensor, quota_B: Tensor | None) -> Tensor:
        """Return the masks of the sliding window, of the positions read."""
        return read_BL & self._window(canvas)

    def _window(self, canvas: Canvas) -> Tensor:
        earlier_BL = -canvas.position_L.expand_as(canvas.open_BL)
        open_first_BL = earlier_BL + canvas.tokens_BL.shape[1] * canvas.open_BL
        return top(open_first_BL.double(), canvas.undecided_BL, torch.full_like(canvas.clock_B, self.beta))

    def evaluate(self, request: EvaluationRequest) -> Tensor:
        """Return aligned logits of the read positions, which `narrow` has chosen."""
        canvas, model = request.canvas, request.model
        past, whole = recall(canvas), canvas.whole_BL
        masks_BL, width = self._window(canvas), canvas.tokens_BL.shape[1]
        tracked_BN = kept(canvas, _TRACKED, canvas.clock_B.new_zeros(canvas.num_rows, model.spec.layers))
        active_BL = masks_BL | past.changed_BL(canvas) | (past.fresh_B[:, None] & whole)
        if self.profile is Profile.row:
            active_BL = active_BL.scatter(1, tracked_BN, True)
        features = features_of(canvas)
        plan = _Plan(
            features=features,
            whole_BL=whole,
            masks_BL=masks_BL,
            active_BL=with_sources(request, active_BL),
            everything_B=past.fresh_B,
            tracked=list(tracked_BN.unbind(1)),
            profiles=list(kept(canvas, _PROFILE, torch.zeros(*tracked_BN.shape, width).to(whole.device)).unbind(1)),
            gam=self.gam,
            pays=self.profile is Profile.row,
        )
        computed_BL = plan.active_BL
        logits_NV = request.forward_whole(plan)
        canvas.memory |= {_TRACKED: torch.stack(plan.tracked, 1), _PROFILE: torch.stack(plan.profiles, 1)}
        remember(canvas, past, computed_BL)
        return logits_NV


@dataclass(kw_only=True)
class _Plan:
    """One call: layers compute `active_BL`, which becomes everything in rows whose attention drifts."""

    features: Features
    whole_BL: Tensor
    masks_BL: Tensor
    active_BL: Tensor
    everything_B: Tensor
    tracked: list[Tensor]
    profiles: list[Tensor]
    gam: float
    pays: bool
    layer_tokens_B: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.layer_tokens_B = torch.zeros_like(self.everything_B, dtype=torch.int64)

    def __call__(self, index: int, layer: Layer, x_BLC: Tensor) -> Tensor:
        """Run a layer, and decide what the next one computes."""
        at, features = Gathered.of(self.active_BL), self.features
        self.layer_tokens_B = self.layer_tokens_B + at.count_B
        x_BTC = at.take(x_BLC)
        queries, keys, values = layer.project(x_BTC, at.position_BT)
        keys, values = features.put("keys", index, at, keys), features.put("values", index, at, values)
        x_BTC = x_BTC + layer.attend(queries, keys, values, at.position_BT)
        x_BTC = x_BTC + layer.feed_forward(x_BTC)
        x_BLC = features.put("output", index, at, x_BTC)
        self._watch(index, layer.attention(queries, keys, at.position_BT), at)
        return x_BLC

    def _watch(self, index: int, attention_BTS: Tensor, at: Gathered) -> None:
        """Compare the layer's profile with the last one; track anew where the layer computed everything."""
        sought_BTS = attention_BTS.masked_fill(~at.take(self.masks_BL)[..., None], 0.0)
        most_B = sought_BTS.sum(1).masked_fill(self.masks_BL | ~self.whole_BL, -1.0).argmax(1)
        self.tracked[index] = torch.where(self.everything_B, most_B, self.tracked[index])
        now_BL, before_BL = self._profile(self.tracked[index], attention_BTS, sought_BTS, at), self.profiles[index]
        self.profiles[index] = now_BL
        if not self.pays:
            both_BL = (now_BL > 0) & (before_BL > 0)
            now_BL, before_BL = now_BL * both_BL, before_BL * both_BL
        drifted_B = (cosine_similarity(now_BL, before_BL.to(now_BL.dtype), dim=1) < self.gam) & ~self.everything_B
        self.everything_B = self.everything_B | drifted_B
        self.active_BL = self.active_BL | (self.everything_B[:, None] & self.whole_BL)

    def _profile(self, tracked_B: Tensor, attention_BTS: Tensor, sought_BTS: Tensor, at: Gathered) -> Tensor:
        """Return what the tracked position pays to all, or gets from the masks of the window, [B, L]."""
        row_B = torch.arange(len(tracked_B), device=tracked_B.device)
        if self.pays:
            return attention_BTS[row_B, at.rank_BL[row_B, tracked_B]]
        return at.put(attention_BTS.new_zeros(self.whole_BL.shape), sought_BTS[row_B, :, tracked_B])
