"""Untrained transformers of any kind and shape, for tests and for timing without weights."""

from collections.abc import Mapping
from typing import Any

import torch

from harness.engine.shared.model import ModelKind
from harness.models.embedded import KIND_OF, wrap
from harness.models.feed_forward import Experts, Router
from harness.models.pool import LoadedModel
from harness.models.tokenizer import SymbolTokenizer
from harness.models.training import initialise
from harness.models.transformer import Transformer, TransformerConfig

_LAYERS = 2
_ACTIVE = 2


def layers_of(model: Mapping[str, Any]) -> int:
    """Return the number of layers of an option of the model group."""
    return int(model["loader"].get("layers", _LAYERS))


def experts_of(model: Mapping[str, Any]) -> int:
    """Return among how many experts an option's mixtures choose, 0 without any."""
    return int(model["loader"].get("experts", 0))


def load(
    *,
    name: str,
    kind: str,
    seed: int = 0,
    layers: int = _LAYERS,
    width: int = 32,
    heads: int = 4,
    kv_heads: int = 2,
    feed_forward_width: int = 64,
    experts: int = 0,
    max_length: int = 128,
    block_length: int | None = None,
    logit_deviation: float = 2.0,
    vocab_size: int = SymbolTokenizer.vocab_size,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> LoadedModel:
    """Return a transformer with random weights that depend on the arguments only.

    `kind` is a value of `ModelKind`; `block_length` goes with block diffusion. `logit_deviation` is about the
    standard deviation of its logits: 0 makes every token equally likely, 5 makes it nearly certain. Tokens of a larger
    `vocab_size` than that of the symbols have no text. With `experts` layers have mixtures of so many, 2 per position.
    """
    attention_of = {kind: attention for attention, kind in KIND_OF.items()}
    config = TransformerConfig(
        vocab_size=vocab_size,
        width=width,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_width=width // heads,
        feed_forward_width=feed_forward_width,
        max_length=max_length,
        attention=attention_of[ModelKind(kind)],
        block_length=block_length,
        experts=_mixture(experts, feed_forward_width) if experts else None,
    )
    model = initialise(config, seed).requires_grad_(False)
    _sharpen(model, logit_deviation, torch.Generator().manual_seed(seed + 1))
    return wrap(name, model.to(device=device, dtype=dtype).eval(), checkpoint_sha256=None)


def _mixture(experts: int, width: int) -> Experts:
    return Experts(count=experts, active=_ACTIVE, width=width // _ACTIVE, router=Router.SOFTMAX, normalised=True)


def _sharpen(model: Transformer, logit_deviation: float, generator: torch.Generator) -> None:
    """Make logits differ between tokens and between positions, which the initialisation for training does not.

    Queries and keys three times as large give attention that picks; otherwise all masks see the same average.
    """
    assert model.head is not None
    c = model.config
    for name, weight in model.named_parameters():
        if name.endswith("attention.qkv.weight"):
            weight[: (c.heads + c.kv_heads) * c.head_width] *= 3
    torch.nn.init.normal_(model.head.weight, std=logit_deviation * c.width**-0.5, generator=generator)
