"""Layers of a transformers causal model one by one, for calls that run a part of it (`harness.engine.shared.model`).

Known are two ways to build a decoder: that of Llama, which Mistral, Qwen2, Qwen3 and others share, and that of GPT-2.
Both add attention and then the feed-forward part to the residual stream, each behind a norm of its own. Modules are
told by their names; whether they add up to the class's own forward is for the loader to compare, as some classes scale
what they add. Shapes: B rows, T query positions, S key slots, C channels, V vocabulary.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from harness.engine.shared.model import NORMED, Part
from harness.engine.shared.routing import Routing, Twins
from harness.models.slots import SlotCache


@dataclass(frozen=True, kw_only=True)
class Names:
    """What the modules of a class are called; `angles` and `places` turn positions into what its layers read."""

    embedding: str
    layers: str
    norm: str
    angles: str | None
    places: str | None
    attention_norm: str
    attention: str
    feed_forward_norm: str
    feed_forward: str

    def fit(self, modules: Mapping[str, Any]) -> bool:
        """Say whether a class has these modules, and nothing with weights beside them in a layer."""
        whole = (self.embedding, self.layers, self.norm, self.angles, self.places)
        if any(name not in modules for name in whole if name is not None):
            return False
        halves = {self.attention_norm, self.attention, self.feed_forward_norm, self.feed_forward}
        return all(
            halves == {name for name, part in layer.named_children() if any(True for _ in part.parameters())}
            for layer in modules[self.layers]
        )


LLAMA = Names(
    embedding="model.embed_tokens",
    layers="model.layers",
    norm="model.norm",
    angles="model.rotary_emb",
    places=None,
    attention_norm="input_layernorm",
    attention="self_attn",
    feed_forward_norm="post_attention_layernorm",
    feed_forward="mlp",
)
GPT2 = Names(
    embedding="transformer.wte",
    layers="transformer.h",
    norm="transformer.ln_f",
    angles=None,
    places="transformer.wpe",
    attention_norm="ln_1",
    attention="attn",
    feed_forward_norm="ln_2",
    feed_forward="mlp",
)


class LayerByLayer:
    """A class's modules, called in the order of its own forward, or some of them."""

    def __init__(self, inner: Any, names: Names) -> None:
        modules = dict(inner.named_modules())
        self.embedding, self.norm, self.head = (
            modules[names.embedding],
            modules[names.norm],
            inner.get_output_embeddings(),
        )
        self.angles = None if names.angles is None else modules[names.angles]
        self.places = None if names.places is None else modules[names.places]
        self.halves = [
            (
                (getattr(layer, names.attention_norm), getattr(layer, names.attention)),
                (getattr(layer, names.feed_forward_norm), getattr(layer, names.feed_forward)),
            )
            for layer in modules[names.layers]
        ]
        self.routers = [one for one in modules.values() if _is_router(one)]
        arguments = inspect.signature(self.halves[0][0][1].forward).parameters
        # Renamed in transformers 5.24.
        self._cache = "cache" if "cache" in arguments else "past_key_values"

    def states(
        self, part: Part, tokens_BT: Tensor, positions_BT: Tensor, mask_B1TS: Tensor, cache: SlotCache
    ) -> Tensor:
        """Return the residual stream [B, T, C] behind the last layer that is run; what runs writes to the cache."""
        x, layers = self._entering(part, tokens_BT, positions_BT), len(self.halves)
        told = {"attention_mask": mask_B1TS, "position_ids": positions_BT, "use_cache": True, self._cache: cache}
        if self.angles is not None:
            told["position_embeddings"] = self.angles(x, position_ids=positions_BT)
        part.taps(part.first, x)
        read = x
        with nullcontext() if part.routing is None else routed(self.routers, part.routing):
            for index in range(part.first, part.ends(layers)):
                (attention_norm, attention), (feed_forward_norm, feed_forward) = self.halves[index]
                read = x if part.begins_abreast(index, layers) else read
                if 2 * index not in part.skipped:
                    x = x + attention(attention_norm(read), **told)[0]
                if 2 * index + 1 not in part.skipped:
                    x = x + feed_forward(feed_forward_norm(x))
                part.taps(index + 1, x)
        if NORMED in part.taps.depths:
            part.taps(NORMED, self.norm(x))
        return x

    def _entering(self, part: Part, tokens_BT: Tensor, positions_BT: Tensor) -> Tensor:
        """Return what stands in front of the first layer that a part runs."""
        if part.states_BTC is not None:
            return part.states_BTC
        x = self.embedding(tokens_BT) if part.blend is None else part.blend.states(self.embedding)
        return x if self.places is None else x + self.places(positions_BT)

    def read(self, x: Tensor) -> Tensor:
        """Return raw logits [..., V] of hidden states [..., C], those behind the last layer or an earlier one."""
        return self.head(self.norm(x))


def _is_router(module: Any) -> bool:
    return type(module).__name__.endswith("TopKRouter") and hasattr(module, "top_k") and hasattr(module, "num_experts")


@contextmanager
def routed(routers: Sequence[Any], routing: Routing | Twins) -> Iterator[None]:
    """Have routers, one for each layer that has experts, in their order, choose as a routing says.

    They return logits, weights and numbers of the experts, the best first; asked for all of them, they show every rank.
    Classes normalise the weights of what is chosen unless they have a `norm_topk_prob` that says otherwise.
    """

    def choose(router: Any, arguments: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        logits, weights_NE, experts_NE = output
        layer = layer_of[id(router)]
        weights_NK, ranks_NK = routing.at(layer).among(weights_NE, active[layer])
        if getattr(router, "norm_topk_prob", True):
            weights_NK = weights_NK / weights_NK.sum(-1, keepdim=True)
        return logits, weights_NK, experts_NE.gather(1, ranks_NK)

    layer_of = {id(router): layer for layer, router in enumerate(routers)}

    active, hooks = [router.top_k for router in routers], [router.register_forward_hook(choose) for router in routers]
    try:
        for router in routers:
            router.top_k = router.num_experts
        yield
    finally:
        for router, top_k, hook in zip(routers, active, hooks, strict=True):
            router.top_k = top_k
            hook.remove()


def layer_by_layer(inner: Any) -> LayerByLayer | None:
    """Return the layers of a model whose class is built in a way that is known, None for others."""
    modules = dict(inner.named_modules())
    return next((LayerByLayer(inner, names) for names in (LLAMA, GPT2) if names.fit(modules)), None)
