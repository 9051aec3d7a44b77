"""What the engine needs of a language model.

Shapes: B rows, T query positions, S key slots, N selected positions, V vocabulary.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from harness.engine.shared.assistant import Context
from harness.engine.shared.routing import Routing, Twins

AttentionObserver = Callable[[int, Tensor], None]
"""Is told a layer, from 0, and its attention probabilities [B, T, S], the mean over heads."""


class AttentionMean:
    """Keeps the sum of what it is shown, to give the mean over layers."""

    def __init__(self) -> None:
        self.sum_BTS, self.layers = torch.zeros(()), 0

    def __call__(self, layer: int, attention_BTS: Tensor) -> None:
        """Add one layer."""
        self.sum_BTS, self.layers = self.sum_BTS.to(attention_BTS) + attention_BTS, self.layers + 1

    def mean_BTS(self) -> Tensor:
        """Return the mean over the layers shown; at least one must have been."""
        return self.sum_BTS / self.layers


class Layer(Protocol):
    """One transformer layer in its parts, for a `LayerPlan`. Shapes: T queries of rows of S positions, C channels.

    Keys and values are rotated, [B, S, heads, width]. What queries see is fixed by the call: no padding, and what the
    model's structure allows.
    """

    def project(self, x_BTC: Tensor, positions_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of the layer's input at `positions_BT`."""
        ...

    def values(self, x_BTC: Tensor) -> Tensor:
        """Return the values alone."""
        ...

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, positions_BT: Tensor) -> Tensor:
        """Return what attention adds to the residual stream, [B, T, C]."""
        ...

    def attention(self, queries: Tensor, keys: Tensor, positions_BT: Tensor) -> Tensor:
        """Return attention probabilities [B, T, S], the mean over heads."""
        ...

    def feed_forward(self, x_BTC: Tensor) -> Tensor:
        """Return what the feed-forward part adds to the residual stream, [B, T, C]."""
        ...


class LayerPlan(Protocol):
    """Runs the layers of one call in a model's place: a part of them, for a part of the positions, or from memory."""

    @property
    def layer_tokens_B(self) -> Tensor:
        """Positions that were computed, summed over the layers run so far, per row."""
        ...

    def __call__(self, index: int, layer: Layer, x_BLC: Tensor) -> Tensor:
        """Return the residual stream behind layer `index` (from 0); `x_BLC` starts as the embeddings of whole rows."""
        ...


NORMED = -1
"""The depth of `Taps` behind the last layer that is run and the final norm: what the head reads."""


class Taps:
    """Keeps hidden states on their way through a call: `states[depth]` [B, T, C] are those behind so many layers.

    At depth 0 they are what enters the first layer, at `NORMED` what the head reads. Depths that a call does not pass
    are not kept.
    """

    def __init__(self, depths: Iterable[int]) -> None:
        self.depths, self.states = frozenset(depths), dict[int, Tensor]()

    def __call__(self, depth: int, x_BTC: Tensor) -> None:
        """Keep the states at one depth, if they are wanted."""
        if depth in self.depths:
            self.states[depth] = x_BTC


class Entering(Protocol):
    """Tokens that stand in front of the first layer as something else than each for itself."""

    def states(self, embed: Callable[[Tensor], Tensor]) -> Tensor:
        """Return what stands at every position of a call [B, T, C]; `embed` is a model's."""
        ...


@dataclass(frozen=True, kw_only=True)
class Blend:
    """Tokens whose embeddings, weighed and added, stand in place of one token's, at every position of a call."""

    tokens_BTM: Tensor
    weights_BTM: Tensor

    def states(self, embed: Callable[[Tensor], Tensor]) -> Tensor:
        """Return what stands at every position [B, T, C]; `embed` is a model's."""
        embedded_BTMC = embed(self.tokens_BTM)
        return (embedded_BTMC * self.weights_BTM[..., None].to(embedded_BTMC.dtype)).sum(2)


@dataclass(frozen=True, kw_only=True)
class Part:
    """The part of a model that a call runs: layers [`first`, `end`), to the last one where `end` is None.

    In front of layer `first` stand `states_BTC`, in place of embedded tokens, which are needed where `first` is above
    0; or a `blend` of tokens stands in front of the first one. Behind the last layer that is run come the final norm
    and the head. `skipped` are halves of layers that leave the states as they are and store nothing: 2l is the
    attention of layer l, 2l + 1 its feed-forward part. Of `abreast` inner layers at a time, the attention of all reads
    the states in front of the first one (the first and the last layer of a model stand alone). Mixtures of experts
    choose by `routing`, or None: for themselves. `taps` are shown the states on their way.
    """

    first: int = 0
    end: int | None = None
    states_BTC: Tensor | None = None
    blend: Entering | None = None
    skipped: frozenset[int] = frozenset()
    abreast: int = 1
    routing: Routing | Twins | None = None
    taps: Taps = field(default_factory=lambda: Taps(()))

    def __post_init__(self) -> None:
        assert self.first == 0 or self.states_BTC is not None, "states stand in front of an inner layer"
        assert self.states_BTC is None or self.blend is None, "states or tokens stand in front of a layer"
        assert self.abreast >= 1, f"at least one layer at a time, got {self.abreast}"

    def ends(self, layers: int) -> int:
        """Return the end of the layers that are run, of so many."""
        return layers if self.end is None else self.end

    def loads(self, layers: int) -> float:
        """Return how many layers are run, of so many; half of a layer counts as half."""
        inside = sum(2 * self.first <= half < 2 * self.ends(layers) for half in self.skipped)
        return self.ends(layers) - self.first - inside / 2

    def depth(self, layers: int) -> float:
        """Return how many of the layers that are run, of so many, follow one another: the attention of some does not.

        Where several are run abreast, their attention counts as that of one, half of a layer.
        """
        if self.abreast == 1:
            return self.loads(layers)
        abreast = sum(not self.begins_abreast(one, layers) for one in range(self.first, self.ends(layers)))
        return self.loads(layers) - abreast / 2

    def begins_abreast(self, layer: int, layers: int) -> bool:
        """Say whether a layer, of so many, is the first of some that are run abreast, or stands alone."""
        return layer in (0, layers - 1) or (layer - 1) % self.abreast == 0


class ModelKind(Enum):
    """How a model generates, which decides the methods that can run on it.

    A black box decodes by itself, an assistant not at all: it drafts for the one target that it was made for.
    """

    MASKED_DIFFUSION = "masked_diffusion"
    BLOCK_DIFFUSION = "block_diffusion"
    CAUSAL = "causal"
    UNIFORM_DIFFUSION = "uniform_diffusion"
    BLACK_BOX = "black_box"
    ASSISTANT = "assistant"


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Facts of a model that decoding depends on.

    `shift` is 1 if the raw logits of position i predict token i+1 (Dream, and every causal model), else 0.
    `stop_ids` end an answer; `mask_id` is None for models without a mask token. `block_length` is that of a
    block-diffusion model, counted from absolute position 0, or of an assistant, which `reads` the states behind these
    layers of its target, from 0.
    """

    name: str
    kind: ModelKind
    vocab_size: int
    max_length: int
    layers: int
    stop_ids: tuple[int, ...]
    pad_id: int
    mask_id: int | None = None
    shift: int = 0
    block_length: int | None = None
    reads: tuple[int, ...] = ()

    def sources(self, position_N: Tensor) -> Tensor:
        """Return the positions whose raw logits predict `position_N`: one before, for shifted models."""
        return (position_N - self.shift).clamp(min=0) if self.shift else position_N


class Store(Protocol):
    """Keys and values of every layer; slots are absolute positions, but of drafted trees and shared slots."""

    @property
    def slots(self) -> int:
        """Number of positions that fit."""
        ...

    def rows(self, index_B: Tensor) -> "Store":
        """Return a copy with the rows of `index_B`, in that order, repeats allowed."""
        ...

    def grown(self, slots: int) -> "Store":
        """Return a copy with more slots, which hold nothing yet."""
        ...

    def extended(self, rows: int) -> "Store":
        """Return a copy with so many more rows behind its own, which hold nothing yet."""
        ...


@runtime_checkable
class DroppingStore(Store, Protocol):
    """Keys and values that can drop rows without a second copy of the others."""

    def keep(self, index_B: Tensor) -> "Store":
        """Drop all rows but those of `index_B`, layer by layer, and return this store."""
        ...


RowsOf = Callable[[Store, Tensor], Store]
"""Return a store with the rows of an index."""


def keep_rows(store: Store, index_B: Tensor) -> Store:
    """Return the rows of a store that go on, `index_B`; `store` itself is used no more."""
    return store.keep(index_B) if isinstance(store, DroppingStore) else store.rows(index_B)


@runtime_checkable
class JoinableStore(Store, Protocol):
    """Keys and values to which rows of another store of the model can be added."""

    def joined(self, other: Any) -> "Store":
        """Return a copy with the rows of another store of this kind, of as many slots, behind its own."""
        ...


@dataclass(frozen=True)
class ForwardRequest:
    """What one call of a model is asked: T tokens of each of B rows, and what they see.

    Without a store `kv` the tokens attend to each other, at `positions_BT` (default: from 0). With one, their keys and
    values replace the slots `slots_BT` (default: the positions) in place, and they attend to slots [0, `end`) (default:
    all). `visible_BTS`, True = visible, narrows what they see ([B, T, S], broadcastable). `structured=False` leaves out
    the model's own causal or block mask, for windows that may see every visible key; windows whose slots are not their
    positions need it, since the own mask takes the slots of stored keys for positions.

    `select_N` are the flat positions of B*T whose logits are wanted (default: all). `decided_at_BT` tells at which step
    each token was committed (-1: given); networks ignore it, the oracle reads the order from it. `observe` is shown the
    attention of every layer, computed beside the fused kernel; `plan` runs the layers of whole rows, without a store;
    `part` says which layers are run (default: all), tokens then giving no more than the shape where it has states.
    Models without attention or layers refuse them; what runs parts says so (`runs_parts`). Assistants need a `context`.
    """

    tokens_BT: Tensor
    _: KW_ONLY
    positions_BT: Tensor | None = None
    slots_BT: Tensor | None = None
    kv: Store | None = None
    end: int | None = None
    visible_BTS: Tensor | None = None
    structured: bool = True
    select_N: Tensor | None = None
    decided_at_BT: Tensor | None = None
    observe: AttentionObserver | None = None
    plan: LayerPlan | None = None
    part: Part | None = None
    context: Context | None = None

    def places_BT(self) -> Tensor:
        """Return the positions of the tokens, also where none are given."""
        if self.positions_BT is not None:
            return self.positions_BT
        return torch.arange(self.tokens_BT.shape[1], device=self.tokens_BT.device).expand_as(self.tokens_BT)

    def selected(self, x_BTX: Tensor) -> Tensor:
        """Return the entries [N, ...] of the positions that are selected, or [B, T, ...] where all are."""
        return x_BTX if self.select_N is None else x_BTX.flatten(0, 1).index_select(0, self.select_N)


class LanguageModel(Protocol):
    """A model as the loops see it; called through `Ledger.call` and nowhere else."""

    spec: ModelSpec

    @property
    def device(self) -> torch.device:
        """Where tokens have to be."""
        ...

    def new_store(self, rows: int, slots: int) -> Store:
        """Allocate an empty key/value store."""
        ...

    def forward(self, request: ForwardRequest) -> Tensor:
        """Return raw logits [N, V] of the positions that are selected, or of all, [B, T, V]."""
        ...


def computed_size(model: LanguageModel, request: ForwardRequest) -> tuple[int, int]:
    """Return how many rows a model computes for a request, and how many positions wide, padding of its own included.

    Models that pad requests have a method `padded_size` that says so.
    """
    padded_size = getattr(model, "padded_size", None)
    rows, width = request.tokens_BT.shape if padded_size is None else padded_size(request)
    return rows, width


def runs_parts(model: LanguageModel) -> bool:
    """Say whether a model runs parts of itself: most transformers do, a law in closed form has none."""
    return bool(getattr(model, "parts", False))


def experts_of(model: LanguageModel) -> int:
    """Return among how many experts each mixture of a model chooses, 0 where it has none to route."""
    return int(getattr(model, "experts", 0))


class Models:
    """A target, the model that drafts for it, if one does, and `others` by the names of their roles (a judge).

    To whoever asks one model it is the target, its logits and keys. `spec` is the target's, but for the positions,
    which all must have.
    """

    def __init__(
        self,
        target: LanguageModel,
        draft: LanguageModel | None = None,
        others: Mapping[str, LanguageModel] = MappingProxyType({}),
    ) -> None:
        self.target, self._draft, self.others = target, draft, others
        every = (target, *(() if draft is None else (draft,)), *others.values())
        self.spec = replace(target.spec, max_length=min(one.spec.max_length for one in every))

    @property
    def draft(self) -> LanguageModel:
        """The model that drafts, which there must be."""
        assert self._draft is not None, "there is no model that drafts"
        return self._draft

    @property
    def device(self) -> torch.device:
        """Where tokens have to be."""
        return self.target.device

    @property
    def attention(self) -> str | None:
        """Name of the attention that the target computes with, None where it does not say."""
        return getattr(self.target, "attention", None)

    def new_store(self, rows: int, slots: int) -> Store:
        """Allocate an empty key/value store of the target."""
        return self.target.new_store(rows, slots)

    def padded_size(self, request: ForwardRequest) -> tuple[int, int]:
        """Return how many rows the target computes, and how many positions wide."""
        return computed_size(self.target, request)

    def forward(self, request: ForwardRequest) -> Tensor:
        """Return raw logits of the target."""
        return self.target.forward(request)
