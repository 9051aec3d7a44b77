"""The drafter of DFlash: layers over a block of masks, whose keys and values come from the target's states, too.

The states of chosen layers of the target, side by side, are projected to the drafter's width and normed; every layer
makes keys and values of these as it does of its own input, and of nothing else. So what it keeps of the text never
changes, and a call computes the block alone: the last token and masks, embedded by the target, each of which sees the
text and the whole block, in layers with a window no further than that. The target's head reads what comes out.
Layout: transformers 5.24, `MuseGlimmerAssistantModel`.

Shapes: B rows, N tokens of the text, T of the block, C channels.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor, nn

from harness.engine.shared.model import ForwardRequest, ModelKind, ModelSpec, Store
from harness.errors import ConfigError, FieldError, within
from harness.models.key_values import KeyValueStore
from harness.models.pool import LoadedModel
from harness.models.rotary import Rotary
from harness.models.transformer import Block, RMSNorm, TransformerConfig, unset

_MOST_DRAFTED = 4096


@dataclass(frozen=True, kw_only=True)
class BlockShape:
    """Shape of a drafter: its `layers` as those of a transformer, what it reads, and what it drafts.

    `reads` are layers of the target, from 0. A block has `block_size` tokens, all but the first of which are drafted
    in place of `mask_id`. `windows` has for each layer how far a position sees (None: all). Raises FieldError for what
    cannot be.
    """

    layers: TransformerConfig
    reads: tuple[int, ...]
    block_size: int
    mask_id: int
    windows: tuple[int | None, ...]

    def __post_init__(self) -> None:
        if not self.reads or min(self.reads) < 0:
            raise FieldError("reads", list(self.reads), "name layers of the target, from 0")
        # The last token and a mask, or many.
        within(2, _MOST_DRAFTED, block_size=self.block_size)


class BlockTransformer(nn.Module):
    """The layers; weights are for the maker to set."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        c, self.shape = shape.layers, shape
        self.project = nn.Linear(len(shape.reads) * c.width, c.width, bias=False)
        self.project_norm = RMSNorm(c.width, c.norm_eps)
        self.rotary = Rotary(c.head_width, c.rope_theta, c.max_length, in_float32=c.rope_in_float32)
        self.blocks = nn.ModuleList(Block(c, layer) for layer in range(c.layers))
        self.norm = RMSNorm(c.width, c.norm_eps)

    @classmethod
    def unset(
        cls, shape: BlockShape, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> "BlockTransformer":
        """Allocate a drafter whose weights hold garbage until they are loaded; draws no random numbers."""
        return unset(lambda: cls(shape), device, dtype)

    def forward(self, request: ForwardRequest) -> Tensor:
        """Return the states [B, T, C] of a block, which the target's head reads."""
        context, kv, own_BT = request.context, request.kv, request.places_BT()
        assert context is not None and isinstance(kv, KeyValueStore), "an assistant keeps what it has seen"
        end, width = kv.slots if request.end is None else request.end, own_BT.shape[1]
        seen_BNC = self.project_norm(self.project(context.states_BNC))
        slots = torch.cat([context.slots_BN, own_BT if request.slots_BT is None else request.slots_BT], 1)
        x = context.ends.embed(request.tokens_BT)
        tables = self.rotary.tables(torch.cat([context.positions_BN, own_BT], 1), x.dtype)
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            both = torch.cat([seen_BNC, block.attention_norm(x)], 1)
            q, k, v = block.attention.project(both, tables)
            kv.write(layer, slots, k, v)
            seen = self._seen(request, own_BT, end, self.shape.windows[layer])
            keys, values = kv.keys[layer][:, :end], kv.values[layer][:, :end]
            x = x + block.attention.attend(q[:, -width:], keys, values, seen, False)
            x = x + block.feed_forward(block.feed_forward_norm(x))
        return self.norm(x)

    @staticmethod
    def _seen(request: ForwardRequest, own_BT: Tensor, end: int, window: int | None) -> Tensor | None:
        """Return what the queries of a layer see, [B, 1, T, S]; slots are positions."""
        seen = request.visible_BTS
        if window is not None:
            near = (own_BT[..., None] - torch.arange(end, device=own_BT.device)).abs() <= window
            seen = near if seen is None else near & seen
        return None if seen is None else seen.unsqueeze(1)


class Assistant:
    """A drafter that the draft-verify loop can call, with what it is shown of its target."""

    attention = "sdpa"

    def __init__(self, inner: BlockTransformer, spec: ModelSpec) -> None:
        self.inner, self.spec = inner, spec

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.inner.norm.weight.device

    def new_store(self, rows: int, slots: int) -> Store:
        """Allocate an empty key/value store."""
        c, like = self.inner.shape.layers, self.inner.norm.weight
        shape = (rows, slots, c.kv_heads, c.head_width)
        keys, values = ([like.new_zeros(shape) for _ in range(c.layers)] for _ in range(2))
        return KeyValueStore(keys, values)

    @torch.no_grad()
    def forward(self, request: ForwardRequest) -> Tensor:
        """Return raw logits, by the target's head.

        Raise TypeError without a context, ConfigError for states of another width than those of its target.
        """
        context = request.context
        if context is None:
            raise TypeError(f"model {self.spec.name} drafts from states of its target, and from nothing else")
        shape, channels = self.inner.shape, context.states_BNC.shape[2] // len(self.inner.shape.reads)
        if channels != shape.layers.width:
            raise ConfigError(
                f"model@draft={self.spec.name}: reads states of {shape.layers.width} channels, and the target has "
                f"{channels}; use the assistant of this target"
            )
        return context.ends.head(request.selected(self.inner(request)))


class TokensOfTarget:
    """The tokenizer of a model that has none: its tokens are its target's."""

    def encode(self, text: str) -> NoReturn:
        """Refuse."""
        raise TypeError("an assistant reads no text")

    def encode_prompt(self, prompt: str | Sequence[Mapping[str, object]]) -> NoReturn:
        """Refuse."""
        raise TypeError("an assistant reads no text")

    def decode(self, ids: Iterable[int]) -> NoReturn:
        """Refuse."""
        raise TypeError("an assistant writes no text")


def assistant(name: str, inner: BlockTransformer, max_length: int, checkpoint_sha256: str | None) -> LoadedModel:
    """Return a drafter as a loaded model."""
    shape = inner.shape
    spec = ModelSpec(
        name=name,
        kind=ModelKind.ASSISTANT,
        vocab_size=shape.mask_id + 1,
        max_length=max_length,
        layers=shape.layers.layers,
        stop_ids=(),
        pad_id=shape.mask_id,
        mask_id=shape.mask_id,
        block_length=shape.block_size,
        reads=shape.reads,
    )
    return LoadedModel(
        model=Assistant(inner.eval().requires_grad_(False), spec),
        tokenizer=TokensOfTarget(),
        checkpoint_sha256=checkpoint_sha256,
        parameters=sum(p.numel() for p in inner.parameters()),
    )
