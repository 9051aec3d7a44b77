"""dLLM-Cache: layer features of prompt and response, refreshed at intervals and by change (arXiv:2506.06295).

Symbol -> knob: prompt interval -> Kp (default 50), response interval -> Kr (default 7), share of response tokens
that are computed between refreshes -> rho (default 0.25). Every layer keeps keys, values, and what its two parts add
to the residual stream, of every position. Layer 0 is always computed; in layers above, a segment whose refresh is due
(calls of the row % interval == 0) is. Of another response, unless rho is 0, all values are replaced, and the
int(rho * G) tokens (which may be none) whose values turned most, by cosine against the kept ones, are computed;
everything else adds what was kept to a stream that starts from present embeddings. Values that have not turned, as in
finished blocks of a block-causal model, are equal, the lowest position first, however rounding has them.
Use: `method=threshold method/cache=dllm_cache method.cache.Kr=4`.
Deviations from the authors' code: keys are kept rotated, which is the same while positions stay; padding is masked;
no cache for classifier-free guidance. Layer tokens do not count the projection to values alone.
Invariants: Kp = Kr = 1 equals no cache, and so does rho = 1 with Kp = 1.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import normalize

from harness.engine.diffusion.evaluation import EvaluationRequest
from harness.engine.diffusion.reuse import (
    Features,
    Gathered,
    features_of,
    recall,
    remember,
)
from harness.engine.shared.model import Layer
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import top
from harness.errors import FieldError, at_least

_ROUNDING = 8
"""Units in the last place of 1 by which vectors that are computed twice may differ in another batch."""


@policy("method/cache", "dllm_cache")
class FeatureCache:
    """Refresh the prompt every `Kp` calls and the response every `Kr`; between, the share `rho` that turned most."""

    Kp: int = 50
    Kr: int = 7
    rho: float = 0.25

    def __post_init__(self) -> None:
        at_least(1, Kp=self.Kp, Kr=self.Kr)
        if not 0 <= self.rho <= 1:
            raise FieldError("rho", self.rho, "be between 0 and 1")

    def evaluate(self, request: EvaluationRequest) -> Tensor:
        """Return aligned logits of the read positions."""
        canvas = request.canvas
        past, whole, response_BL = recall(canvas), canvas.whole_BL, canvas.response_BL
        prompt_due_B = past.fresh_B | (canvas.calls_B % self.Kp == 0)
        response_due_B = past.fresh_B | (canvas.calls_B % self.Kr == 0)
        refresh_BL = whole & torch.where(response_BL, response_due_B[:, None], prompt_due_B[:, None])
        features = features_of(canvas)
        plan = _Plan(
            features=features,
            whole=Gathered.of(whole),
            refresh_BL=refresh_BL,
            waiting_BL=response_BL & ~refresh_BL,
            share_B=(self.rho * response_BL.sum(1).double()).long(),
            looks=self.rho > 0,
        )
        logits_NV = request.forward_whole(plan)
        remember(canvas, past, whole)
        return logits_NV


@dataclass(kw_only=True)
class _Plan:
    """One call: layers compute `refresh_BL` and the `share_B` positions of `waiting_BL` that turned most.

    If it `looks`, the values of all that wait are replaced, even where the share is none.
    """

    features: Features
    whole: Gathered
    refresh_BL: Tensor
    waiting_BL: Tensor
    share_B: Tensor
    looks: bool
    layer_tokens_B: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.layer_tokens_B = torch.zeros_like(self.share_B)

    def __call__(self, index: int, layer: Layer, x_BLC: Tensor) -> Tensor:
        """Run a layer for the chosen positions, and add what is kept of the others."""
        at = self.whole if index == 0 else Gathered.of(self.refresh_BL | self._turned_BL(index, layer, x_BLC))
        self.layer_tokens_B = self.layer_tokens_B + at.count_B
        features, computes = self.features, at.position_BT.shape[1] > 0
        if computes:
            queries, keys, values = layer.project(at.take(x_BLC), at.position_BT)
            keys, values = features.put("keys", index, at, keys), features.put("values", index, at, values)
            features.put("attention", index, at, layer.attend(queries, keys, values, at.position_BT))
        x_BLC = x_BLC + features.get("attention", index)
        if computes:
            features.put("feed_forward", index, at, layer.feed_forward(at.take(x_BLC)))
        return x_BLC + features.get("feed_forward", index)

    def _turned_BL(self, index: int, layer: Layer, x_BLC: Tensor) -> Tensor:
        """Return the positions to compute, and keep the new values of all that wait."""
        waiting = Gathered.of(self.waiting_BL)
        if not (self.looks and waiting.position_BT.shape[1]):
            return torch.zeros_like(self.waiting_BL)
        values_BTX = layer.values(waiting.take(x_BLC))
        kept_BTX = waiting.take(self.features.get("values", index))
        turn_BT = turn(values_BTX.flatten(2), kept_BTX.flatten(2))
        turned_BL = waiting.put(turn_BT.new_zeros(self.waiting_BL.shape), turn_BT)
        self.features.put("values", index, waiting, values_BTX)
        return top(turned_BL, self.waiting_BL, self.share_B)


def turn(new_BTX: Tensor, old_BTX: Tensor) -> Tensor:
    """Return how far vectors turned, [B, T], from 0 to 2: the distance of the unit vectors, 0 if it may be rounding.

    It orders as 1 - cosine, of which it is sqrt(2 * (1 - cosine)), but small turns keep their order: 1 - cosine is of
    second order, and drowns in rounding.
    """
    dtype = torch.promote_types(new_BTX.dtype, torch.float32)
    distance_BT = (normalize(new_BTX.to(dtype), dim=-1) - normalize(old_BTX.to(dtype), dim=-1)).norm(dim=-1)
    return distance_BT.masked_fill(distance_BT <= _ROUNDING * torch.finfo(dtype).eps, 0)
