"""A published checkpoint behind the engine's interface."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from harness.engine.shared.model import ModelKind, ModelSpec
from harness.errors import ConfigError, DataError
from harness.models import hub, text
from harness.models.embedded import KIND_OF, EmbeddedModel
from harness.models.pool import LoadedModel
from harness.models.public import harmless
from harness.models.public.families import FAMILIES, Family
from harness.models.public.fields import Fields
from harness.models.public.layout import parts
from harness.models.public.weights import digest, fill
from harness.models.transformer import Transformer, TransformerConfig


def load(
    *,
    name: str,
    family: str,
    hub_id: str | None,
    kind: str,
    shift: int,
    max_length: int,
    block_length: int | None,
    mask_token: str | None,
    mask_id: int | None,
    stop_tokens: Sequence[str],
    add_bos: bool = False,
    ignored_fields: Sequence[str] = (),
    path: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> LoadedModel:
    """Load a published checkpoint from the folder `path`, or from the filled hub cache if that is None.

    `kind` is a value of `ModelKind`; `mask_token` and `stop_tokens` are texts of the published vocabulary.
    `mask_id` is taken where neither config.json nor the tokenizer knows the mask; a causal model has none.
    `add_bos` puts the begin token before plain prompts. `ignored_fields` of config.json count as absent.
    Raise ConfigError for a checkpoint that is not here and for a `max_length` beyond its positions, DataError naming
    the file for one that is not what the family says, or whose config.json holds a field that nothing here knows.
    """
    folder = hub.find(name, hub_id=hub_id, path=path)
    config, fields = read_config(folder, FAMILIES[family], ignored_fields)
    _require_block_length(fields, block_length)
    config = _fitted(config, folder, kind, max_length, block_length)
    tokenizer = text.read(folder)
    spec = ModelSpec(
        name=name,
        kind=ModelKind(kind),
        vocab_size=config.vocab_size,
        max_length=config.max_length,
        layers=config.layers,
        mask_id=None if mask_token is None else _mask_id(fields, tokenizer, mask_token, mask_id),
        stop_ids=tuple(_known_id(folder, tokenizer, token) for token in stop_tokens),
        pad_id=_pad_id(fields, tokenizer),
        shift=shift,
        block_length=config.block_length,
    )
    _require_ids(fields.path, spec)
    files = hub.weight_files(folder)
    model = Transformer.unset(config, device, dtype)
    names = FAMILIES[family].names
    copies = {f"{names.head}.weight": "embedding.weight"} if config.tied_head else {}
    fill(model, files, parts(config, names), copies=copies)
    return LoadedModel(
        model=EmbeddedModel(model.eval().requires_grad_(False), spec),
        tokenizer=text.TextTokenizer(tokenizer, where=str(folder), stop_ids=spec.stop_ids, add_bos=add_bos),
        checkpoint_sha256=digest(folder, files),
        parameters=sum(p.numel() for p in model.parameters()),
    )


def read_config(folder: Path, family: Family, ignored_fields: Sequence[str]) -> tuple[TransformerConfig, Fields]:
    """Return the shape of a checkpoint as its file gives it; raise DataError for what the family does not know."""
    fields = Fields(folder / hub.CONFIG, ignored_fields)
    fields.require("model_type", *family.model_types)
    for switch in harmless.OFF:
        fields.require(switch, False, None)
    try:
        config = family.read(fields)
    except ConfigError as error:
        raise DataError(f"{fields.path}: {error}") from None
    fields.finish(family.harmless)
    return config, fields


def _require_block_length(fields: Fields, block_length: int | None) -> None:
    """Raise DataError where the file says another block length, under whatever name, than the model is given."""
    for name in harmless.BLOCK_LENGTHS:
        published = fields.optional(name)
        if published is not None and published != block_length:
            raise fields.error(name, f"is not model.block_length={block_length}")


def _fitted(
    config: TransformerConfig, folder: Path, kind: str, max_length: int, block_length: int | None
) -> TransformerConfig:
    if max_length > config.max_length:
        raise ConfigError(
            f"model.max_length={max_length}: {folder / hub.CONFIG} gives the model {config.max_length} positions; "
            f"use model.max_length={config.max_length}"
        )
    attention = next(attention for attention, of in KIND_OF.items() if of.value == kind)
    return replace(config, attention=attention, max_length=max_length, block_length=block_length)


def _mask_id(fields: Fields, tokenizer: Any, mask_token: str, published: int | None) -> int:
    """Return the id of the mask token, on which the config and the tokenizer must agree where both know it."""
    configured, known = fields.token_id("mask_token_id"), text.token_id(tokenizer, mask_token)
    if configured is not None and known is not None and configured != known:
        raise DataError(
            f"{fields.path}: mask_token_id={configured}, but the tokenizer gives {mask_token} the id {known}"
        )
    mask_id = next((i for i in (configured, known, published) if i is not None), None)
    if mask_id is None:
        raise DataError(f"{fields.path.parent}: nothing says which token is the mask; set model.mask_id")
    return mask_id


def _known_id(folder: Path, tokenizer: Any, token: str) -> int:
    known = text.token_id(tokenizer, token)
    if known is None:
        raise DataError(f"{folder}: the tokenizer does not know {token}, which ends an answer of this model")
    return known


def _pad_id(fields: Fields, tokenizer: Any) -> int:
    configured = fields.token_id("pad_token_id")
    pad = tokenizer.pad_token_id if configured is None else configured
    if not isinstance(pad, int):
        raise DataError(f"{fields.path.parent}: neither {hub.CONFIG} nor the tokenizer names a pad token")
    return pad


def _require_ids(path: Path, spec: ModelSpec) -> None:
    if spec.pad_id == spec.mask_id:
        raise DataError(f"{path}: pad and mask are the same token, {spec.mask_id}; padding would be decoded")
    masks = () if spec.mask_id is None else (spec.mask_id,)
    for token in (*masks, spec.pad_id, *spec.stop_ids):
        if not 0 <= token < spec.vocab_size:
            raise DataError(f"{path}: token id {token} is outside of the {spec.vocab_size} rows of the vocabulary")
