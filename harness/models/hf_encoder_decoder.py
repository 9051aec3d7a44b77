"""Encoder-decoder checkpoints of transformers as causal models: the prompt is encoded, the answer decoded.

The draft-verify loop knows one sequence. Its prompt of P tokens goes to the encoder, and the decoder's start token
stands for the prompt's last position, from which the first token of the answer is predicted; the token at absolute
position p is then the decoder's number p - P + 1. Shapes: B rows, P prompt positions, T fed positions, S decoder
slots, K heads, D head width, C channels, N selected positions, V vocabulary.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.engine.shared.model import ForwardRequest, ModelKind, ModelSpec
from harness.engine.shared.positional import behind, levelled
from harness.errors import DataError
from harness.models import hf_causal, hub, text
from harness.models.pool import LoadedModel

_PROMPT, _ANSWER = 5, 6

Layers = tuple[tuple[Tensor, Tensor], ...]
"""Keys and values [B, K, positions, D] of every layer."""


@dataclass
class EncodedStore:
    """What was encoded of the prompts, and the decoder's keys and values by decoder position; empty before a prefill.

    `crossed` are keys and values of the prompt, `own` those of the decoder's tokens.
    """

    slots: int
    prompt_length_B: Tensor | None = None
    encoded_BPC: Tensor | None = None
    crossed: Layers = ()
    own: Layers = ()

    @staticmethod
    def each(change: Callable[[Tensor], Tensor], layers: Layers) -> Layers:
        """Return `layers` with every tensor changed."""
        return tuple((change(keys), change(values)) for keys, values in layers)

    def rows(self, index_B: Tensor) -> "EncodedStore":
        """Return a copy with the rows of `index_B`, in that order, repeats allowed."""
        return self._with_rows(lambda kept: kept.index_select(0, index_B))

    def extended(self, rows: int) -> "EncodedStore":
        """Return a copy with so many more rows behind its own, of which nothing is encoded."""
        return self._with_rows(lambda kept: torch.cat([kept, kept.new_zeros(rows, *kept.shape[1:])]))

    def joined(self, other: "EncodedStore") -> "EncodedStore":
        """Return a copy with the rows of another store, of as many slots, behind its own; both are past their prefill.

        The shorter prompts get padding behind, which `prompt_length_B` hides.
        """
        assert self.prompt_length_B is not None and other.prompt_length_B is not None
        assert self.encoded_BPC is not None and other.encoded_BPC is not None
        encoded = levelled([self.encoded_BPC, other.encoded_BPC])
        return EncodedStore(
            slots=self.slots,
            prompt_length_B=torch.cat([self.prompt_length_B, other.prompt_length_B]),
            encoded_BPC=torch.cat(encoded),
            crossed=_behind(self.crossed, other.crossed, encoded[0].shape[1]),
            own=_behind(self.own, other.own, self.slots),
        )

    def _with_rows(self, change: Callable[[Tensor], Tensor]) -> "EncodedStore":
        """Return a copy whose tensors have other rows."""
        if self.prompt_length_B is None or self.encoded_BPC is None:
            return replace(self)
        return EncodedStore(
            slots=self.slots,
            prompt_length_B=change(self.prompt_length_B),
            encoded_BPC=change(self.encoded_BPC),
            crossed=self.each(change, self.crossed),
            own=self.each(change, self.own),
        )

    def grown(self, slots: int) -> "EncodedStore":
        """Return a copy with more slots, which hold nothing yet."""
        extra = slots - self.slots
        return replace(self, slots=slots, own=self.each(lambda kept: F.pad(kept, (0, 0, 0, extra)), self.own))


def _behind(some: Layers, others: Layers, width: int) -> Layers:
    """Return layers with the rows of both, zeros behind the shorter ones so that they have `width` positions."""
    return tuple(
        (
            torch.cat([behind(one, 2, width) for one in (keys, more_keys)]),
            torch.cat([behind(one, 2, width) for one in (values, more_values)]),
        )
        for (keys, values), (more_keys, more_values) in zip(some, others, strict=True)
    )


class EncoderDecoderModel:
    """A transformers model that the draft-verify loop can call; shapes as in `harness.engine.shared.model`."""

    def __init__(self, inner: Any, spec: ModelSpec, start_id: int) -> None:
        self.inner, self.spec, self.start_id = inner, spec, start_id
        # Renamed in transformers 5.24.
        self._cache = "cache" if "cache" in inspect.signature(inner.forward).parameters else "past_key_values"

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.inner.device

    @property
    def attention(self) -> str | None:
        """Name of the attention that the class computes with, as it says."""
        return getattr(self.inner.config, "_attn_implementation", None)

    def new_store(self, rows: int, slots: int) -> EncodedStore:
        """Return an empty store, which takes its memory and the number of its rows with the prefill."""
        return EncodedStore(slots=slots)

    @torch.no_grad()
    def forward(self, request: ForwardRequest) -> Tensor:
        """Return raw logits [N, V] (default: [B, T, V]), over a store.

        The first call on a store is the prefill, whole prompts from position 0, of which only the last position has
        logits; the others' are 0. Later calls take tokens of the answer, each row's from where it goes on. Raise
        TypeError for what an encoder-decoder class cannot be asked: no store, a mask of one's own, `observe`, `plan`,
        `part`.
        """
        kv, tokens_BT, positions_BT = request.kv, request.tokens_BT, request.places_BT()
        if request.observe is not None or request.plan is not None or request.part is not None:
            raise TypeError(f"model {self.spec.name} does not show its attention and layers")
        if not isinstance(kv, EncodedStore) or request.visible_BTS is not None or not request.structured:
            raise TypeError(f"model {self.spec.name} decodes in order over a store of its own, and no other way")
        if kv.prompt_length_B is None:
            logits_BTV = self._prefill(tokens_BT, positions_BT, kv)
        else:
            logits_BTV = self._go_on(tokens_BT, positions_BT, kv, kv.prompt_length_B)
        return request.selected(logits_BTV)

    def _prefill(self, tokens_BT: Tensor, positions_BT: Tensor, store: EncodedStore) -> Tensor:
        last_B = positions_BT.amax(1)
        store.prompt_length_B = last_B + 1
        shown_BP = _shown(store.prompt_length_B, tokens_BT.shape[1])
        store.encoded_BPC = self.inner.get_encoder()(input_ids=tokens_BT, attention_mask=shown_BP).last_hidden_state
        start_B1 = torch.full_like(tokens_BT[:, :1], self.start_id)
        logits_B1V, store.own, store.crossed = self._decode(start_B1, store, 0)
        store.own = store.each(lambda new: F.pad(new, (0, 0, 0, store.slots - 1)), store.own)
        logits_BTV = logits_B1V.new_zeros(*tokens_BT.shape, logits_B1V.shape[-1])
        return logits_BTV.scatter(1, last_B[:, None, None].expand_as(logits_B1V), logits_B1V)

    def _go_on(self, tokens_BT: Tensor, positions_BT: Tensor, store: EncodedStore, prompt_length_B: Tensor) -> Tensor:
        """Decode rows that go on from the same decoder position together: classes know one position for a batch."""
        first_B = positions_BT[:, 0] - prompt_length_B + 1
        # What pads a window stands at a position of the prompt.
        fed_B = (positions_BT >= prompt_length_B[:, None]).sum(1)
        assert bool((first_B > 0).all()), "tokens of a prompt after its prefill"
        logits_BTV = torch.zeros(())
        for first in first_B.unique().tolist():
            row_G = (first_B == first).nonzero().squeeze(1)
            width = int(fed_B[row_G].max())
            shared = store if len(row_G) == len(first_B) else store.rows(row_G)
            logits_GTV, own, _ = self._decode(tokens_BT[row_G, :width], shared, first)
            for kept, new in zip(store.own, own, strict=True):
                for buffer, made in zip(kept, new, strict=True):
                    buffer[row_G, :, first : first + width] = made
            if not logits_BTV.dim():
                logits_BTV = logits_GTV.new_zeros(*tokens_BT.shape, logits_GTV.shape[-1])
            logits_BTV[row_G, :width] = logits_GTV
        return logits_BTV

    def _decode(self, tokens_BT: Tensor, store: EncodedStore, first: int) -> tuple[Tensor, Layers, Layers]:
        """Return logits, the new tokens' keys and values, and those of the prompt."""
        from transformers import DynamicCache, EncoderDecoderCache
        from transformers.modeling_outputs import BaseModelOutput

        assert store.encoded_BPC is not None and store.prompt_length_B is not None
        before = [(keys[:, :, :first], values[:, :, :first]) for keys, values in store.own]
        cache = EncoderDecoderCache(DynamicCache(before or None), DynamicCache(store.crossed or None))
        logits_BTV = self.inner(
            encoder_outputs=BaseModelOutput(last_hidden_state=store.encoded_BPC),  # type: ignore[arg-type]
            attention_mask=_shown(store.prompt_length_B, store.encoded_BPC.shape[1]),
            decoder_input_ids=tokens_BT,
            use_cache=True,
            **{self._cache: cache},
        ).logits
        own = _layers(cache.self_attention_cache)
        return logits_BTV, store.each(lambda kept: kept[:, :, first:], own), _layers(cache.cross_attention_cache)


def _layers(cache: Any) -> Layers:
    return tuple((layer.keys, layer.values) for layer in cache.layers)


def _shown(length_B: Tensor, width: int) -> Tensor:
    return (torch.arange(width, device=length_B.device) < length_B[:, None]).long()


def load(
    *,
    name: str,
    hub_id: str | None,
    max_length: int,
    path: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> LoadedModel:
    """Load an encoder-decoder checkpoint from the folder `path`, or from the filled hub cache if that is None.

    `max_length` bounds prompt and answer together. Raise ConfigError for a checkpoint that is not here or has fewer
    positions, DataError for one that transformers cannot load without remote code, or that does not say how its
    decoder starts and ends, or whose class computes something else token by token than at once.
    """
    folder = hub.find(name, hub_id=hub_id, path=path)
    inner = hf_causal.read(folder, "AutoModelForSeq2SeqLM", dtype).to(device).eval().requires_grad_(False)
    config, tokenizer = inner.config, text.read(folder)
    hf_causal.require_positions(folder, max_length, getattr(config, "max_position_embeddings", None))
    start_id = getattr(inner.generation_config, "decoder_start_token_id", None)
    if start_id is None:
        raise DataError(f"{folder}: neither generation_config.json nor config.json names decoder_start_token_id")
    stop_ids = hf_causal.stops(folder, inner, tokenizer)
    spec = ModelSpec(
        name=name,
        kind=ModelKind.CAUSAL,
        vocab_size=inner.get_output_embeddings().weight.shape[0],
        max_length=max_length,
        layers=getattr(config, "num_decoder_layers", None) or config.num_hidden_layers,
        stop_ids=stop_ids,
        pad_id=stop_ids[0] if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
        shift=1,
    )
    model = EncoderDecoderModel(inner, spec, start_id)
    _require_own_logits(model, folder)
    return hf_causal.loaded(folder, model, inner, tokenizer, add_eos=text.ends_with_eos(tokenizer))


@torch.no_grad()
def _require_own_logits(model: EncoderDecoderModel, folder: Path) -> None:
    """Compare an answer decoded token by token and in a window with the class's own plain forward."""
    length = _PROMPT + _ANSWER
    tokens_1L = (torch.arange(length, device=model.device) * 7 % model.spec.vocab_size)[None]
    prompt_1P, answer_1T = tokens_1L[:, :_PROMPT], tokens_1L[:, _PROMPT:]
    start_11 = torch.full_like(tokens_1L[:, :1], model.start_id)
    plain = model.inner(input_ids=prompt_1P, decoder_input_ids=torch.cat([start_11, answer_1T], 1), use_cache=False)
    store, parts = model.new_store(1, length + 1), []
    for first, last in ((0, _PROMPT), (_PROMPT, _PROMPT + 1), (_PROMPT + 1, length)):
        places = torch.arange(first, last, device=model.device)[None]
        logits_1TV = model.forward(ForwardRequest(tokens_1L[:, first:last], positions_BT=places, kv=store, end=last))
        parts.append(logits_1TV[0, -1:] if not first else logits_1TV[0])
    hf_causal.require_close(folder, model.inner, torch.cat(parts).float(), plain.logits[0].float())
