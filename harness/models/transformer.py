"""The transformer of every in-tree model: one module, switches for LLaDA, Dream, SDAR and the embedded models.

Shapes: B rows, T query positions, S key slots, H query heads, K key/value heads, D head width, N selected
positions, V vocabulary. Equations: pre-norm decoder with RMSNorm, rotary positions, grouped-query attention and
SwiGLU, as Llama, Qwen2 and Qwen3 publish them.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import Enum
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.engine.shared.model import NORMED, AttentionObserver, ForwardRequest, Part
from harness.engine.shared.routing import Routing, Twins
from harness.errors import ConfigError
from harness.models.feed_forward import Experts, FeedForward, MixtureOfExperts, Router
from harness.models.key_values import KeyValueStore
from harness.models.rotary import Rotary, rotate


class Attention(Enum):
    """Which positions a query sees: all, those up to itself, or those of its own and earlier blocks."""

    FULL = "full"
    CAUSAL = "causal"
    BLOCK_CAUSAL = "block_causal"


Pick = Callable[[Tensor], Tensor]
"""Returns the entries [N, ...] of some positions of [B, T, ...]."""

_Made = TypeVar("_Made", bound=nn.Module)
_WHOLE = Part()
_SIZES = ("vocab_size", "width", "layers", "heads", "kv_heads", "head_width", "feed_forward_width", "max_length")


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Shape and switches of a transformer.

    `rope_in_float32` rotates in float32 and casts back (LLaDA); otherwise in the model's dtype (Dream, SDAR).
    `block_length` is read for block-causal attention only; blocks count from absolute position 0. `rotary_width` is
    the number of channels of a head that are rotated, its first ones (None: all). With `experts` layers have a
    mixture of experts for their feed-forward part.
    """

    vocab_size: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    feed_forward_width: int
    max_length: int
    attention: Attention
    block_length: int | None = None
    rope_theta: float = 10000.0
    rope_in_float32: bool = True
    norm_eps: float = 1e-5
    qkv_bias: bool = False
    qk_norm: bool = False
    tied_head: bool = False
    rotary_width: int | None = None
    experts: Experts | None = None

    def __post_init__(self) -> None:
        for name in _SIZES:
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} must be a whole number of at least 1, got {value!r}")
        for name in ("rope_theta", "norm_eps"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ConfigError(f"{name} must be a finite number above 0, got {value!r}")
        if self.head_width % 2:
            raise ConfigError(f"head_width must be even (rotary positions turn pairs), got {self.head_width}")
        if self.rotary_width is not None and not (
            0 < self.rotary_width <= self.head_width and not self.rotary_width % 2
        ):
            raise ConfigError(f"rotary_width must be even and from 2 to {self.head_width}, got {self.rotary_width}")
        if self.heads % self.kv_heads:
            raise ConfigError(f"heads must be a multiple of kv_heads, got {self.heads} and {self.kv_heads}")
        if (self.attention is Attention.BLOCK_CAUSAL) != (self.block_length is not None) or self.block_length == 0:
            raise ConfigError(
                f"block_length goes with block_causal attention only, got attention={self.attention.value}, "
                f"block_length={self.block_length}"
            )

    def to_dict(self) -> dict[str, object]:
        """Return plain values, as stored beside a checkpoint."""
        plain = {**asdict(self), "attention": self.attention.value}
        if self.experts is not None:
            plain["experts"] |= {"router": self.experts.router.value}
        return plain

    @classmethod
    def from_dict(cls, values: dict) -> "TransformerConfig":
        """Rebuild a config from `to_dict`; an unknown or missing key is a TypeError naming it."""
        values = {**values}
        experts = values.get("experts")
        if experts is not None:
            lists = {"router": Router(experts["router"]), "dense_layers": tuple(experts.get("dense_layers", ()))}
            experts = Experts(**{**experts, **lists})
        return cls(**{**values, "attention": Attention(values["attention"]), "experts": experts})


class RMSNorm(nn.Module):
    """Root-mean-square norm that casts to the model's dtype before it scales (bit-equal to the public models)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        if x.dtype not in (torch.float16, torch.bfloat16):
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        y = x.float()
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * y.to(x.dtype)


class SelfAttention(nn.Module):
    """Grouped-query attention over the window itself or over a key/value store."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        rows = (config.heads + 2 * config.kv_heads) * config.head_width
        self.qkv = nn.Linear(config.width, rows, bias=config.qkv_bias)
        self.out = nn.Linear(config.heads * config.head_width, config.width, bias=False)
        norm = RMSNorm if config.qk_norm else lambda *_: nn.Identity()
        self.query_norm = norm(config.head_width, config.norm_eps)
        self.key_norm = norm(config.head_width, config.norm_eps)

    def forward(
        self,
        x_BTC: Tensor,
        tables: tuple[Tensor, Tensor],
        kv: KeyValueStore | None,
        slots_BT: Tensor,
        end: int,
        visible: Tensor | None,
        causal: bool,
        observe: AttentionObserver | None,
        wanted: Pick | None = None,
    ) -> Tensor:
        """Return the attention output, of all or of `wanted` positions [..., width].

        With `kv` write this window and attend to slots [0, end).
        """
        q, k, v = self.project(x_BTC, tables)
        if kv is not None:
            kv.write(self.layer, slots_BT, k, v)
            k, v = kv.keys[self.layer][:, :end], kv.values[self.layer][:, :end]
        if observe is not None:
            observe(self.layer, self.probabilities(q, k, visible, causal))
        return self.attend(q, k, v, visible, causal, wanted)

    def project(self, x_BTC: Tensor, tables: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries [B, T, H, D], keys and values [B, T, K, D], rotated."""
        c = self.config
        both, v = self.qkv(x_BTC).unflatten(-1, (-1, c.head_width)).split([c.heads + c.kv_heads, c.kv_heads], dim=2)
        if c.qk_norm:
            q, k = both.split([c.heads, c.kv_heads], dim=2)
            both = torch.cat([self.query_norm(q), self.key_norm(k)], dim=2)
        q, k = rotate(both, *tables).split([c.heads, c.kv_heads], dim=2)
        return q, k, v

    def values(self, x_BTC: Tensor) -> Tensor:
        """Return values [B, T, K, D] alone."""
        rows = -self.config.kv_heads * self.config.head_width
        bias = None if self.qkv.bias is None else self.qkv.bias[rows:]
        return F.linear(x_BTC, self.qkv.weight[rows:], bias).unflatten(-1, (-1, self.config.head_width))

    def attend(
        self,
        q_BTHD: Tensor,
        k_BSKD: Tensor,
        v_BSKD: Tensor,
        visible: Tensor | None,
        causal: bool,
        wanted: Pick | None = None,
    ) -> Tensor:
        """Return the attention output, of all or of `wanted` positions [..., width]."""
        q, k, v = q_BTHD.transpose(1, 2), k_BSKD.transpose(1, 2), v_BSKD.transpose(1, 2)
        grouped = self.config.heads != self.config.kv_heads
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, is_causal=causal, enable_gqa=grouped)
        mixed_BTX = mixed.transpose(1, 2).flatten(2)
        return self.out(mixed_BTX if wanted is None else wanted(mixed_BTX))

    def probabilities(self, q_BTHD: Tensor, k_BSKD: Tensor, visible: Tensor | None, causal: bool) -> Tensor:
        """Return attention [B, T, S], the mean over heads."""
        k_BSHD = k_BSKD.repeat_interleave(self.config.heads // self.config.kv_heads, 2)
        scores_BHTS = q_BTHD.transpose(1, 2) @ k_BSHD.permute(0, 2, 3, 1) * self.config.head_width**-0.5
        if causal:
            visible = torch.ones_like(scores_BHTS[0, 0], dtype=torch.bool).tril()
        scores_BHTS = scores_BHTS if visible is None else scores_BHTS.masked_fill(~visible, -torch.inf)
        return scores_BHTS.softmax(-1).mean(1)


class Block(nn.Module):
    """One pre-norm layer."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width, config.norm_eps)
        self.attention = SelfAttention(config, layer)
        self.feed_forward_norm = RMSNorm(config.width, config.norm_eps)
        experts = config.experts
        if experts is None or layer in experts.dense_layers:
            self.feed_forward = FeedForward(config.width, config.feed_forward_width)
        else:
            self.feed_forward = MixtureOfExperts(config.width, experts)

    def forward(
        self,
        x: Tensor,
        *attention_arguments: object,
        read: Tensor | None = None,
        halves: tuple[bool, bool] = (True, True),
        routing: Routing | Twins | None = None,
        wanted: Pick | None = None,
    ) -> Tensor:
        """Add attention and feed-forward output to the residual stream, or one of these `halves`.

        Attention reads the states `read` (default: the stream itself); a mixture of experts chooses by `routing`. What
        no other position reads is computed of those alone that `wanted` picks (default: of all).
        """
        attends, feeds = halves
        entered, x = x, x if wanted is None else wanted(x)
        if attends:
            normed = self.attention_norm(entered if read is None else read)
            x = x + self.attention(normed, *attention_arguments, wanted)
        if not feeds:
            return x
        fed = self.feed_forward_norm(x)
        if routing is None or not isinstance(self.feed_forward, MixtureOfExperts):
            return x + self.feed_forward(fed)
        return x + self.feed_forward(fed, routing)


@dataclass(frozen=True)
class PlannedLayer:
    """A block as a plan sees it (`harness.engine.shared.model.Layer`); `mask` is [B, 1, S or 1, S], or None."""

    block: Block
    rotary: Rotary
    mask: Tensor | None

    def project(self, x_BTC: Tensor, positions_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values behind the norm."""
        tables = self.rotary.tables(positions_BT, x_BTC.dtype)
        return self.block.attention.project(self.block.attention_norm(x_BTC), tables)

    def values(self, x_BTC: Tensor) -> Tensor:
        """Return values behind the norm."""
        return self.block.attention.values(self.block.attention_norm(x_BTC))

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, positions_BT: Tensor) -> Tensor:
        """Return the attention output."""
        return self.block.attention.attend(queries, keys, values, self._seen(positions_BT), False)

    def attention(self, queries: Tensor, keys: Tensor, positions_BT: Tensor) -> Tensor:
        """Return attention probabilities."""
        return self.block.attention.probabilities(queries, keys, self._seen(positions_BT), False)

    def feed_forward(self, x_BTC: Tensor) -> Tensor:
        """Return the feed-forward output behind the norm."""
        return self.block.feed_forward(self.block.feed_forward_norm(x_BTC))

    def _seen(self, positions_BT: Tensor) -> Tensor | None:
        if self.mask is None or self.mask.shape[2] == 1:
            return self.mask
        rows, keys = positions_BT.shape[0], self.mask.shape[3]
        index = positions_BT[:, None, :, None].expand(-1, 1, -1, keys)
        return self.mask.expand(rows, -1, -1, -1).gather(2, index)


def unset(make: Callable[[], _Made], device: torch.device | str, dtype: torch.dtype) -> _Made:
    """Return what `make` makes, with weights that hold garbage until they are loaded; draws no random numbers."""
    with torch.device("meta"):
        model = make()
    # Not to_empty(), which like normal_() on the meta device imports torch's compiler: a second for every command.
    return model.to(dtype)._apply(lambda t: torch.empty(t.shape, dtype=t.dtype, device=device))


class Transformer(nn.Module):
    """Token ids to raw logits, for the positions somebody reads and no others; weights are for the maker to set.

    A tied head has no tensor of its own: `head` is then None and the embedding is used.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding.from_pretrained(torch.empty(config.vocab_size, config.width), freeze=False)
        width = config.rotary_width or config.head_width
        self.rotary = Rotary(width, config.rope_theta, config.max_length, in_float32=config.rope_in_float32)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        self.norm = RMSNorm(config.width, config.norm_eps)
        self.head = None if config.tied_head else nn.Linear(config.width, config.vocab_size, bias=False)

    @classmethod
    def unset(
        cls, config: TransformerConfig, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> "Transformer":
        """Allocate a transformer whose weights hold garbage until they are loaded; draws no random numbers."""
        return unset(lambda: cls(config), device, dtype)

    def new_store(self, rows: int, slots: int) -> KeyValueStore:
        """Allocate an empty key/value store for `rows` sequences of up to `slots` positions."""
        c, like = self.config, self.embedding.weight
        shape = (rows, slots, c.kv_heads, c.head_width)
        return KeyValueStore(
            [like.new_zeros(shape) for _ in range(c.layers)], [like.new_zeros(shape) for _ in range(c.layers)]
        )

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Return raw logits [B, T, V] of whole rows without padding, as a module that others call."""
        return self.logits(ForwardRequest(tokens_BT))

    def logits(self, request: ForwardRequest) -> Tensor:
        """Return raw logits [N, V] of the positions that are selected, or of all, [B, T, V]."""
        kv, plan = request.kv, request.plan
        part = _WHOLE if request.part is None else request.part
        assert kv is None or isinstance(kv, KeyValueStore)
        whole = kv is None and request.positions_BT is None and request.observe is None and request.part is None
        assert plan is None or whole, "a plan runs whole rows"
        positions_BT = request.places_BT()
        slots_BT = positions_BT if request.slots_BT is None else request.slots_BT
        end = kv.slots if kv is not None and request.end is None else request.end or request.tokens_BT.shape[1]
        mask, causal = self._mask(request, positions_BT, end)
        x = read = self._entering(request.tokens_BT, part)
        tables, layers = self.rotary.tables(positions_BT, x.dtype), len(self.blocks)
        end_layer, narrows = part.ends(layers), self._narrows(request, part)
        part.taps(part.first, x)
        for index in range(part.first, end_layer):
            block = self.blocks[index]
            assert isinstance(block, Block)
            if plan is not None:
                x = plan(index, PlannedLayer(block, self.rotary, mask), x)
                continue
            read = x if part.begins_abreast(index, layers) else read
            halves = (2 * index not in part.skipped, 2 * index + 1 not in part.skipped)
            told = {"read": read, "halves": halves, "routing": part.routing and part.routing.at(index)}
            told["wanted"] = request.selected if narrows and index == end_layer - 1 else None
            x = block(x, tables, kv, slots_BT, end, mask, causal, request.observe, **told)
            part.taps(index + 1, x)
        if NORMED in part.taps.depths:
            part.taps(NORMED, self.norm(x))
        return self.read(x if narrows else request.selected(x))

    def _narrows(self, request: ForwardRequest, part: Part) -> bool:
        """Say whether the last layer that is run is computed, behind its keys, of selected positions alone.

        Nobody reads the others: no layer follows, and no tap asks for them. A routing tells positions by their place.
        """
        end = part.ends(len(self.blocks))
        tapped = not part.taps.depths.isdisjoint({end, NORMED})
        if request.select_N is None or request.plan is not None or part.routing is not None or tapped:
            return False
        return part.first < end and len(request.select_N) < request.tokens_BT.numel()

    def _entering(self, tokens_BT: Tensor, part: Part) -> Tensor:
        """Return what stands in front of the first layer that a part runs."""
        if part.states_BTC is not None:
            return part.states_BTC
        return self.embedding(tokens_BT) if part.blend is None else part.blend.states(self.embedding)

    def read(self, x: Tensor) -> Tensor:
        """Return raw logits of hidden states, those behind the last layer or an earlier one."""
        return self.read_normed(self.norm(x))

    def read_normed(self, x: Tensor) -> Tensor:
        """Return raw logits of hidden states that are behind a norm."""
        return F.linear(x, self.embedding.weight) if self.head is None else self.head(x)

    def _mask(self, request: ForwardRequest, positions_BT: Tensor, end: int) -> tuple[Tensor | None, bool]:
        """Return what queries see, [B, 1, T or 1, S] or None, and whether they see what is before them instead."""
        visible, own = request.visible_BTS, self.config.attention
        if request.structured and own is not Attention.FULL:
            if own is Attention.CAUSAL and request.kv is None and visible is None and request.plan is None:
                return None, True
            keys_BS = positions_BT if request.kv is None else torch.arange(end, device=positions_BT.device)[None]
            own_BTS = self._structure(positions_BT, keys_BS)
            visible = own_BTS if visible is None else own_BTS & visible
        return None if visible is None else visible.unsqueeze(1), False

    def _structure(self, queries_BT: Tensor, keys_BS: Tensor) -> Tensor:
        block = self.config.block_length or 1
        return keys_BS[:, None, :] // block <= queries_BT[:, :, None] // block
