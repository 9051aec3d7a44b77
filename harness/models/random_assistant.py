"""Untrained assistants of DFlash of any shape, for tests and for timing without weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from harness.errors import ConfigError, FieldError
from harness.models.block_drafter import BlockShape, BlockTransformer, assistant
from harness.models.fit import Wants
from harness.models.pool import LoadedModel
from harness.models.tokenizer import SymbolTokenizer
from harness.models.transformer import Attention, TransformerConfig

_NO_SHAPE = {"_target_", "seed", "dtype", "device"}
"""Of a loader's arguments, those that tell nothing of an assistant's shape."""


def wants(model: Mapping[str, Any]) -> Wants | None:
    """Return what an option of the model group reads of its target, None where its arguments are none of a model's."""
    told = model["loader"]
    width, reads, mask_id = told["width"], told["reads"], told.get("mask_id", SymbolTokenizer.mask_id)
    if not _are_whole(reads) or not reads or not _are_whole([width, mask_id]):
        return None
    return Wants(width=width, last_layer=max(reads), mask_id=mask_id)


def check(model: Mapping[str, Any]) -> None:
    """Raise ConfigError for arguments of an option of the model group that no assistant can have."""
    told = {**(load.__kwdefaults__ or {}), **model["loader"]}
    told = {name: value for name, value in told.items() if name not in _NO_SHAPE}
    if not _are_whole(told["reads"]):
        raise ConfigError(f"model.loader.reads={told['reads']}: must be a list of whole numbers, written [a,b]")
    try:
        _shape(**told)
    except FieldError as error:
        raise ConfigError(f"model.loader.{error}") from None
    except ConfigError as error:
        raise ConfigError(f"model.loader: {error}") from None


def _are_whole(values: object) -> bool:
    return isinstance(values, list | tuple) and all(type(one) is int for one in values)


def load(
    *,
    name: str,
    width: int,
    reads: Sequence[int],
    block_size: int,
    max_length: int,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    feed_forward_width: int = 64,
    mask_id: int = SymbolTokenizer.mask_id,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> LoadedModel:
    """Return an assistant with random weights that depend on the arguments only.

    `width` is that of its target, whose layers `reads` it looks at, from 0. Raise ConfigError or FieldError for a
    shape that cannot be.
    """
    shape = _shape(width, reads, block_size, max_length, layers, heads, kv_heads, feed_forward_width, mask_id)
    inner, generator = BlockTransformer.unset(shape), torch.Generator().manual_seed(seed)
    for weight in inner.parameters():
        if weight.ndim < 2:
            torch.nn.init.ones_(weight)
        else:
            torch.nn.init.normal_(weight, std=weight.shape[-1] ** -0.5, generator=generator)
    return assistant(name, inner.to(device=device, dtype=dtype), max_length, None)


def _shape(
    width: int,
    reads: Sequence[int],
    block_size: int,
    max_length: int,
    layers: int,
    heads: int,
    kv_heads: int,
    feed_forward_width: int,
    mask_id: int,
) -> BlockShape:
    return BlockShape(
        layers=TransformerConfig(
            vocab_size=mask_id + 1,
            width=width,
            layers=layers,
            heads=heads,
            kv_heads=kv_heads,
            head_width=width // heads,
            feed_forward_width=feed_forward_width,
            # The last block may begin at the last position.
            max_length=max_length + block_size,
            attention=Attention.FULL,
            qk_norm=True,
        ),
        reads=tuple(reads),
        block_size=block_size,
        mask_id=mask_id,
        windows=(None,) * layers,
    )
