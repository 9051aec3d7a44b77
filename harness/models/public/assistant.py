"""A published assistant of DFlash, read strictly by key into the in-tree drafter; no code of transformers is run.

The one class whose checkpoints these are is `MuseGlimmerAssistantModel` of transformers 5.24.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from harness.errors import ConfigError, DataError, FieldError
from harness.models import hub
from harness.models.block_drafter import BlockShape, BlockTransformer, assistant
from harness.models.fit import published_wants
from harness.models.pool import LoadedModel
from harness.models.public import harmless
from harness.models.public.families import read_rope
from harness.models.public.fields import Fields
from harness.models.public.layout import QWEN, Names, Part, layer_parts
from harness.models.public.weights import digest, fill
from harness.models.transformer import Attention, TransformerConfig

MODEL_TYPE = "muse_glimmer_assistant"
_NAMES: Names = replace(
    QWEN,
    norm="norm",
    attention_norm="layers.{i}.input_layernorm",
    query="layers.{i}.self_attn.q_proj",
    key="layers.{i}.self_attn.k_proj",
    value="layers.{i}.self_attn.v_proj",
    out="layers.{i}.self_attn.o_proj",
    feed_forward_norm="layers.{i}.post_attention_layernorm",
    feed_forward="layers.{i}.mlp",
    query_norm="layers.{i}.self_attn.q_norm",
    key_norm="layers.{i}.self_attn.k_norm",
)
_KINDS = {"full_attention", "sliding_attention"}

wants = published_wants


def check(model: Mapping[str, Any]) -> None:
    """Raise DataError for a checkpoint that is no such assistant, or says what nothing here knows."""
    read_shape(hub.find(str(model["name"]), hub_id=model["hub_id"], path=model.get("path")), int(model["max_length"]))


def load(
    *,
    name: str,
    hub_id: str | None,
    max_length: int,
    path: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> LoadedModel:
    """Load an assistant from the folder `path`, or from the filled hub cache if that is None.

    Raise ConfigError for a checkpoint that is not here or too short, DataError for one that is another model.
    """
    folder = hub.find(name, hub_id=hub_id, path=path)
    shape = read_shape(folder, max_length)
    inner, files = BlockTransformer.unset(shape, device, dtype), hub.weight_files(folder)
    fill(inner, files, dict(_parts(shape)), copies={})
    return assistant(name, inner, max_length, digest(folder, files))


def read_shape(folder: Path, max_length: int) -> BlockShape:
    """Return the shape that config.json gives, for texts of `max_length`; raise DataError and ConfigError likewise."""
    f = Fields(folder / hub.CONFIG)
    f.require("model_type", MODEL_TYPE)
    f.require("hidden_act", "silu")
    f.require("attention_bias", None, False)
    for switch in harmless.OFF:
        f.require(switch, False, None)
    layers, reads = f.take("num_hidden_layers", int), f.take("target_layer_ids", list)
    kinds, window = f.take("layer_types", list, ["sliding_attention"] * layers), f.take("sliding_window", int)
    if len(kinds) != layers or {*map(str, kinds)} - _KINDS:
        raise f.error("layer_types", f"must name {' or '.join(sorted(_KINDS))} for each of {layers} layers")
    for one in reads:
        f.checked("target_layer_ids", one, int, least=0)
    block_size, heads = f.take("block_size", int), f.take("num_attention_heads", int)
    positions = f.take("max_position_embeddings", int)
    if max_length > positions:
        raise ConfigError(f"model.max_length={max_length}: {folder} has {positions} positions; use {positions} or less")
    try:
        config = TransformerConfig(
            vocab_size=f.take("mask_token_id", int, least=0) + 1,
            width=f.take("hidden_size", int),
            layers=layers,
            heads=heads,
            kv_heads=f.take("num_key_value_heads", int, null=heads),
            head_width=f.take("head_dim", int),
            feed_forward_width=f.take("intermediate_size", int),
            # The last block may begin at the last position.
            max_length=max_length + block_size,
            attention=Attention.FULL,
            rope_theta=read_rope(f)["rope_theta"],
            rope_in_float32=False,
            norm_eps=f.take("rms_norm_eps", float),
            qk_norm=True,
        )
        shape = BlockShape(
            layers=config,
            reads=tuple(reads),
            block_size=block_size,
            mask_id=config.vocab_size - 1,
            windows=tuple(window if kind == "sliding_attention" else None for kind in kinds),
        )
    except FieldError as error:
        raise f.error({"reads": "target_layer_ids"}.get(error.field, error.field), f"must {error.must}") from None
    except ConfigError as error:
        raise DataError(f"{f.path}: {error}") from None
    f.finish(harmless.ASSISTANT)
    return shape


def _parts(shape: BlockShape) -> Iterator[tuple[str, Part]]:
    """Yield, for every tensor of a checkpoint, the rows that it fills."""
    named = {"encoder.fc": "project", "encoder.output_norm_enc": "project_norm", _NAMES.norm: "norm"}
    for theirs, ours in named.items():
        yield f"{theirs}.weight", Part(parameter=f"{ours}.weight", start=0, rows=shape.layers.width)
    for layer in range(shape.layers.layers):
        yield from layer_parts(shape.layers, _NAMES, layer)
