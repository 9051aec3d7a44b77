"""What an assistant reads of its target, beside what the target has; told by files, before either is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.models import hub

_WIDTH, _LAYERS, _VOCABULARY = ("hidden_size", "n_embd"), ("num_hidden_layers", "n_layer"), ("vocab_size",)


@dataclass(frozen=True, kw_only=True)
class Measures:
    """Channels, layers and tokens of a target; None is what nobody tells."""

    width: int | None = None
    layers: int | None = None
    vocabulary: int | None = None


@dataclass(frozen=True, kw_only=True)
class Wants:
    """The channels that an assistant reads, the last of its target's layers that it reads, from 0, and its mask."""

    width: int
    last_layer: int
    mask_id: int


def misfit(wants: Wants, name: str, target: Measures) -> str | None:
    """Return why an assistant cannot draft for the target `name`, None where nothing that is told is against it."""
    if target.width is not None and wants.width != target.width:
        return f"reads states of {wants.width} channels, and {name} has {target.width}"
    if target.layers is not None and wants.last_layer >= target.layers:
        return f"reads layer {wants.last_layer} (target_layer_ids), and {name} has {target.layers}, from 0"
    if target.vocabulary is not None and wants.mask_id >= target.vocabulary:
        return f"masks with token {wants.mask_id} (mask_token_id), and {name} has {target.vocabulary}"
    return None


def published_measures(model: Mapping[str, Any]) -> Measures:
    """Return what config.json of a model option's checkpoint says, in any of its families' words."""
    config = hub.config_of(model) or {}
    told = {
        field: next((config[one] for one in names if isinstance(config.get(one), int)), None)
        for field, names in {"width": _WIDTH, "layers": _LAYERS, "vocabulary": _VOCABULARY}.items()
    }
    return Measures(**told)


def published_wants(model: Mapping[str, Any]) -> Wants | None:
    """Return what config.json of an assistant's checkpoint says, None where it does not."""
    config = hub.config_of(model) or {}
    width, layers, mask_id = (config.get(name) for name in ("hidden_size", "target_layer_ids", "mask_token_id"))
    numbers = layers if isinstance(layers, list) and layers else [None]
    if not all(isinstance(one, int) for one in (width, mask_id, *numbers)):
        return None
    return Wants(width=width, last_layer=max(numbers), mask_id=mask_id)  # type: ignore[arg-type]
