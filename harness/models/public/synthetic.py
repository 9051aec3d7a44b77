"""Checkpoints of published shapes with random weights, for measuring on machines where the real ones are not.

They are written under the published names of the tensors, in shards, and read by the loader of real checkpoints.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from harness.errors import ConfigError
from harness.models.public.families import FAMILIES
from harness.models.public.layout import Part, parts
from harness.models.public.weights import fill
from harness.models.transformer import Attention, Transformer, TransformerConfig

SHAPES: dict[str, TransformerConfig] = {
    "llada_8b_instruct": TransformerConfig(
        vocab_size=126464, width=4096, layers=32, heads=32, kv_heads=32, head_width=128, feed_forward_width=12288,
        max_length=4096, attention=Attention.FULL, rope_theta=500000.0, norm_eps=1e-5,
    ),
    "dream_7b_instruct": TransformerConfig(
        vocab_size=152064, width=3584, layers=28, heads=28, kv_heads=4, head_width=128, feed_forward_width=18944,
        max_length=131072, attention=Attention.FULL, rope_theta=1000000.0, rope_in_float32=False, norm_eps=1e-6,
        qkv_bias=True,
    ),
}  # fmt: skip
"""By the name of the model whose shape it is."""

_SHARD_BYTES = 4 << 30
_DEVIATION = 0.02


def shrunk(config: TransformerConfig, factor: int) -> TransformerConfig:
    """Return the shape with about 1/`factor` of the layers, heads and channels and the whole vocabulary."""
    if factor < 1:
        raise ConfigError(f"shrink={factor}: must be at least 1")
    kv_heads = max(1, config.kv_heads // factor)
    heads = max(1, config.heads // factor // kv_heads) * kv_heads
    return replace(
        config,
        layers=max(2, config.layers // factor),
        heads=heads,
        kv_heads=kv_heads,
        width=heads * config.head_width,
        feed_forward_width=max(2, config.feed_forward_width // factor),
    )


def write(folder: Path, config: TransformerConfig, family: str, *, dtype: torch.dtype, seed: int = 0) -> list[Path]:
    """Write random weights of a shape as safetensors files of about 4 GB and return them."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    for shard in _shards(_tensors(config, parts(config, FAMILIES[family].names), dtype, seed)):
        files.append(folder / f"model-{len(files) + 1:05}.safetensors")
        save_file(shard, files[-1])
    return files


def read(
    files: list[Path], config: TransformerConfig, family: str, *, dtype: torch.dtype, device: torch.device | str
) -> Transformer:
    """Return the transformer of files that `write` wrote, read as published checkpoints are."""
    model = Transformer.unset(config, device, dtype)
    fill(model, files, parts(config, FAMILIES[family].names), copies={})
    return model.eval().requires_grad_(False)


def _tensors(
    config: TransformerConfig, places: Mapping[str, Part], dtype: torch.dtype, seed: int
) -> Iterator[tuple[str, Tensor]]:
    """Yield named tensors as trained models begin: norms of 1, everything else small and random."""
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in Transformer(config).named_parameters()}
    generator = torch.Generator().manual_seed(seed)
    for name, part in places.items():
        made = torch.ones(part.rows, *shapes[part.parameter][1:], dtype=dtype)
        if not part.parameter.endswith("norm.weight"):
            made.normal_(0, _DEVIATION, generator=generator)
        yield name, made


def _shards(tensors: Iterator[tuple[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    for name, tensor in tensors:
        if shard and sum(t.nbytes for t in shard.values()) + tensor.nbytes > _SHARD_BYTES:
            yield shard
            shard = {}
        shard[name] = tensor
    yield shard
