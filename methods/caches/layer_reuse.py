"""Layer reuse: between key calls, lower layers run for changed tokens alone (after Faster Diffusion, arXiv:2312.09608).

Published for image models; this text version is a reconstruction. Symbol -> knob: layers reused -> k (default: half
of them), key calls -> every (default 2: every second call of a window, and its first two) or, with q, whenever at
least q tokens have changed; what another call does -> mode:
`recompute` runs layers 1..k for the tokens that changed, against kept keys and values of the others;
`delta` adds the change of the token's embedding to what layer k gave;
`plain` takes what layer k gave, which returns the key call's logits again: a control, not a method.
Layers above k run for all positions in every call. Use: `method=threshold method/cache=layer_reuse method.cache.k=2`.
Invariants: every = 1 equals no cache; in `plain`, calls that are no key calls return the same logits.
"""

from dataclasses import dataclass, field
from enum import Enum

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.evaluation import EvaluationRequest
from harness.engine.diffusion.reuse import (
    Features,
    Gathered,
    Past,
    features_of,
    kept,
    recall,
    remember,
    run_layer,
)
from harness.engine.shared.generation import DecodeError
from harness.engine.shared.model import Layer
from harness.engine.shared.policy import policy
from harness.errors import at_least

_KEY = "layer_reuse.key_tokens_BL"


class Mode(Enum):
    """What a call between key calls does with the lower layers."""

    recompute = "recompute"
    delta = "delta"
    plain = "plain"


@policy("method/cache", "layer_reuse")
class LayerReuse:
    """Run the lower `k` layers for everything in key calls, and otherwise as `mode` says."""

    k: int | None = None
    every: int = 2
    q: int | None = None
    mode: Mode = Mode.recompute

    def __post_init__(self) -> None:
        at_least(1, k=self.k, every=self.every, q=self.q)

    def evaluate(self, request: EvaluationRequest) -> Tensor:
        """Return aligned logits of the read positions."""
        canvas, model = request.canvas, request.model
        k = model.spec.layers // 2 if self.k is None else self.k
        if not 1 <= k < model.spec.layers:
            raise DecodeError(f"layer_reuse: k={k} leaves no layer to run of the {model.spec.layers} of the model")
        past, whole = recall(canvas), canvas.whole_BL
        key_B = (past.calls_B <= 1) | past.fresh_B | self._due_B(canvas, past)
        lower_BL = whole & key_B[:, None]
        if self.mode is Mode.recompute:
            lower_BL = lower_BL | past.changed_BL(canvas)
        features = features_of(canvas)
        plan = _Plan(features, k, Gathered.of(lower_BL), Gathered.of(whole), self.mode is Mode.delta)
        logits_NV = request.forward_whole(plan)
        canvas.memory[_KEY] = torch.where(key_B[:, None], canvas.tokens_BL, kept(canvas, _KEY, canvas.tokens_BL))
        remember(canvas, past, lower_BL)
        return logits_NV

    def _due_B(self, canvas: Canvas, past: Past) -> Tensor:
        """Return the rows whose next key call is due."""
        if self.q is None:
            return past.calls_B % self.every == 0
        return (kept(canvas, _KEY, canvas.tokens_BL) != canvas.tokens_BL).sum(1) >= self.q


@dataclass
class _Plan:
    """One call: layers below `k` at `lower`, the others everywhere."""

    features: Features
    k: int
    lower: Gathered
    whole: Gathered
    delta: bool
    layer_tokens_B: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.layer_tokens_B = torch.zeros_like(self.whole.count_B)

    def __call__(self, index: int, layer: Layer, x_BLC: Tensor) -> Tensor:
        """Run a layer; `stream` of layer k is what goes into it."""
        if index == 0 and self.delta:
            self._inject(x_BLC)
        if index == self.k:
            x_BLC = self.features.put("stream", self.k, self.lower, self.lower.take(x_BLC))
        below = index < self.k
        at = self.lower if below else self.whole
        self.layer_tokens_B = self.layer_tokens_B + at.count_B
        return run_layer(self.features if below else Features(self.features.slots), index, layer, x_BLC, at)

    def _inject(self, embedding_BLC: Tensor) -> None:
        """Add what the embeddings have changed by; where layers run, the sum is replaced anyway."""
        kept_BLC = self.features.get("embedding", 0, embedding_BLC)
        stream_BLC = self.features.get("stream", self.k, torch.zeros_like(embedding_BLC))
        moved_BLC = stream_BLC + embedding_BLC - kept_BLC
        self.features.put("stream", self.k, self.whole, self.whole.take(moved_BLC))
        self.features.put("embedding", 0, self.whole, self.whole.take(embedding_BLC))
