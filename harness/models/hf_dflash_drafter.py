"""Assistants of transformers' DFlash: they draft blocks for a target of their own, and say nothing without it.

transformers 5.24 has the generator (`DFlashTokenCandidateGenerator`, asked for by `speculation_type="dflash"`) and one
class that fits it, `MuseGlimmerAssistantModel`. Its forward takes embeddings of the target (the last token and masks)
and hidden states of the target's layers `target_layer_ids`, as wide as its own; the target's head reads what comes out.
"""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import torch

from harness.engine.shared.model import ForwardRequest, ModelKind, ModelSpec
from harness.errors import ConfigError, DataError
from harness.models import hf_causal, hub
from harness.models.block_drafter import TokensOfTarget
from harness.models.fit import published_wants
from harness.models.pool import LoadedModel
from harness.models.public.weights import digest

LIBRARY = "transformers"
"""Whose own generation can be told to draft with models that are loaded here."""

GENERATOR, CLASS, SINCE = "DFlashTokenCandidateGenerator", "MuseGlimmerAssistantModel", (5, 24)
_NEEDED = ("target_layer_ids", "block_size", "mask_token_id")

wants = published_wants


class BlockDrafter:
    """An assistant: a module for transformers' generator to call, and nothing to decode with."""

    def __init__(self, inner: Any, spec: ModelSpec) -> None:
        self.inner, self.spec = inner, spec

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.inner.device

    def new_store(self, rows: int, slots: int) -> NoReturn:
        """Refuse: the generator keeps its own."""
        raise TypeError(f"model {self.spec.name} drafts for transformers' own generation and for nobody else")

    def forward(self, request: ForwardRequest) -> NoReturn:
        """Refuse: what it reads are states of its target."""
        raise TypeError(f"model {self.spec.name} drafts for transformers' own generation and for nobody else")


def require() -> None:
    """Raise ConfigError, with what would do, where transformers has no such generator; it is not imported for that."""
    if tuple(map(int, version("transformers").split(".")[:2])) < SINCE:
        raise ConfigError(
            f"method=hf_dflash: transformers {version('transformers')} has no {GENERATOR}; "
            f"pip install 'transformers>={'.'.join(map(str, SINCE))}'"
        )


def check(model: Mapping[str, Any]) -> None:
    """Raise ConfigError where transformers cannot draft like this, and for a checkpoint that is no such assistant."""
    require()
    config = hub.config_of(model)
    if config is not None and (absent := [name for name in _NEEDED if name not in config]):
        raise ConfigError(
            f"model={model['name']}: its {hub.CONFIG} says no {', no '.join(absent)}: it is no assistant of DFlash, "
            f"whose class is {CLASS}"
        )


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

    Raise ConfigError for a checkpoint that is not here or too short, DataError for one that transformers cannot load.
    """
    folder: Path = hub.find(name, hub_id=hub_id, path=path)
    inner = hf_causal.read(folder, "AutoModel", dtype).to(device).eval().requires_grad_(False)
    config = inner.config
    if not all(hasattr(config, one) for one in _NEEDED):
        raise DataError(f"{folder}: is a {type(inner).__name__}, and no assistant of DFlash; its class is {CLASS}")
    hf_causal.require_positions(folder, max_length, getattr(config, "max_position_embeddings", None))
    spec = ModelSpec(
        name=name,
        kind=ModelKind.ASSISTANT,
        vocab_size=config.mask_token_id + 1,
        max_length=max_length,
        layers=config.num_hidden_layers,
        stop_ids=(),
        pad_id=config.mask_token_id,
    )
    return LoadedModel(
        model=BlockDrafter(inner, spec),
        tokenizer=TokensOfTarget(),
        checkpoint_sha256=digest(folder, hub.weight_files(folder)),
        parameters=sum(p.numel() for p in inner.parameters()),
    )
