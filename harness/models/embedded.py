"""The embedded models: in-tree transformers with the tokenizer of symbols, behind the engine's interface."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness import files
from harness.engine.shared.model import ForwardRequest, ModelKind, ModelSpec
from harness.errors import ConfigError, DataError
from harness.models import checkpoint
from harness.models.fit import Measures
from harness.models.key_values import KeyValueStore
from harness.models.pool import LoadedModel
from harness.models.tokenizer import SymbolTokenizer
from harness.models.transformer import Attention, Transformer, TransformerConfig

CHECKPOINTS = Path(__file__).parent / "checkpoints"

KIND_OF: dict[Attention, ModelKind] = {
    Attention.FULL: ModelKind.MASKED_DIFFUSION,
    Attention.BLOCK_CAUSAL: ModelKind.BLOCK_DIFFUSION,
    Attention.CAUSAL: ModelKind.CAUSAL,
}


class EmbeddedModel:
    """A transformer that the decode loops can call; shapes as in `harness.engine.shared.model`."""

    attention = "sdpa"
    parts = True

    def __init__(self, transformer: Transformer, spec: ModelSpec) -> None:
        self.transformer, self.spec = transformer, spec

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.transformer.embedding.weight.device

    @property
    def experts(self) -> int:
        """Among how many experts its mixtures choose, 0 without any."""
        return 0 if self.transformer.config.experts is None else self.transformer.config.experts.count

    def new_store(self, rows: int, slots: int) -> KeyValueStore:
        """Allocate an empty key/value store."""
        return self.transformer.new_store(rows, slots)

    @torch.no_grad()
    def embed(self, tokens: Tensor) -> Tensor:
        """Return the embeddings [..., C] of tokens [...]."""
        return self.transformer.embedding(tokens)

    @torch.no_grad()
    def head(self, states: Tensor) -> Tensor:
        """Return raw logits [..., V] of states [..., C] that are behind a norm."""
        return self.transformer.read_normed(states)

    # Not inference_mode: the loop goes on to write into the logits it gets.
    @torch.no_grad()
    def forward(self, request: ForwardRequest) -> Tensor:
        """Return raw logits.

        Raise DataError for a row, computed at once or against a store, that is longer than the model's context.
        """
        positions_BT = request.positions_BT
        length = request.tokens_BT.shape[1] if positions_BT is None else request.end or 0
        if positions_BT is not None and length > self.spec.max_length:
            # A tree of drafts has more slots than positions.
            length = int(positions_BT.max()) + 1
        if length > self.spec.max_length:
            raise DataError(
                f"a row of {length} tokens does not fit the {self.spec.max_length} positions of model "
                f"{self.spec.name}; shorten the prompt or lower gen_length"
            )
        return self.transformer.logits(request)


def spec_of(name: str, config: TransformerConfig) -> ModelSpec:
    """Return what decoding must know of a transformer over the symbols; its attention decides its kind."""
    kind = KIND_OF[config.attention]
    causal = kind is ModelKind.CAUSAL
    return ModelSpec(
        name=name,
        kind=kind,
        vocab_size=config.vocab_size,
        max_length=config.max_length,
        layers=config.layers,
        stop_ids=(SymbolTokenizer.eos_id,),
        pad_id=SymbolTokenizer.pad_id,
        mask_id=None if causal else SymbolTokenizer.mask_id,
        shift=1 if causal else 0,
        block_length=config.block_length,
    )


def wrap(name: str, transformer: Transformer, checkpoint_sha256: str | None) -> LoadedModel:
    """Return a transformer over the symbols as a loaded model."""
    return LoadedModel(
        model=EmbeddedModel(transformer, spec_of(name, transformer.config)),
        tokenizer=SymbolTokenizer(),
        checkpoint_sha256=checkpoint_sha256,
        parameters=sum(p.numel() for p in transformer.parameters()),
    )


def checkpoint_folder(model: Mapping[str, Any]) -> Path:
    """Return the folder that `load` reads for an option of the model group."""
    return Path(model["path"]) if model.get("path") else CHECKPOINTS / model["name"]


def check(model: Mapping[str, Any]) -> None:
    """Raise ConfigError for a folder without a checkpoint, and for other positions than this was trained with."""
    folder = checkpoint_folder(model)
    if model.get("path") and not (folder / checkpoint.CONFIG).is_file():
        raise ConfigError(
            f"model.path={model['path']}: holds no {checkpoint.CONFIG}; name a folder that `decbench train` wrote, or "
            "leave it out"
        )
    asked, there = model.get("max_length"), checkpoint.read_config(folder).max_length
    if asked is not None and asked != there:
        raise ConfigError(f"model.max_length={asked}: must be {there}, the positions of the checkpoint in {folder}")


def layers_of(model: Mapping[str, Any]) -> int:
    """Return the number of layers of an option of the model group; raise DataError as `load` does."""
    return checkpoint.read_config(checkpoint_folder(model)).layers


def measures(model: Mapping[str, Any]) -> Measures:
    """Return channels, layers and tokens of an option of the model group; raise DataError as `load` does."""
    config = checkpoint.read_config(checkpoint_folder(model))
    return Measures(width=config.width, layers=config.layers, vocabulary=config.vocab_size)


def experts_of(model: Mapping[str, Any]) -> int:
    """Return among how many experts an option's mixtures choose, 0 without any; raise DataError as `load` does."""
    experts = checkpoint.read_config(checkpoint_folder(model)).experts
    return 0 if experts is None else experts.count


def load(
    *,
    name: str,
    path: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> LoadedModel:
    """Load the embedded checkpoint `name`, or the one in the folder `path`.

    Raise DataError naming the file if it is missing, damaged, or not over the vocabulary of symbols.
    """
    folder = checkpoint_folder({"name": name, "path": path})
    vocab_size = checkpoint.read_config(folder).vocab_size
    if vocab_size != SymbolTokenizer.vocab_size:
        raise DataError(
            f"{folder / checkpoint.CONFIG}: vocab_size is {vocab_size}, the embedded models' tokenizer has "
            f"{SymbolTokenizer.vocab_size} symbols; use a checkpoint that `decbench train` wrote"
        )
    transformer = checkpoint.load(folder, dtype=dtype, device=torch.device(device))
    return wrap(name, transformer, files.sha256(folder / checkpoint.WEIGHTS))
