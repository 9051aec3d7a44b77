"""Checkpoints of in-tree models: `model.safetensors` and `config.json` in one folder, loaded strictly."""

import json
import os
from pathlib import Path

import torch

from harness import files
from harness.errors import DataError
from harness.models.transformer import Transformer, TransformerConfig

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def save(model: Transformer, folder: Path) -> str:
    """Write weights and config atomically; return the sha256 of the weights file."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config, weights = folder / f"{CONFIG}.tmp", folder / f"{WEIGHTS}.tmp"
    config.write_text(json.dumps(model.config.to_dict(), indent=1) + "\n")
    save_file({name: p.contiguous() for name, p in model.state_dict().items()}, weights)
    os.replace(config, folder / CONFIG)
    os.replace(weights, folder / WEIGHTS)
    return files.sha256(folder / WEIGHTS)


def read_config(folder: Path) -> TransformerConfig:
    """Read the shape of a checkpoint; raise DataError naming the file and what is wrong with it."""
    path = folder / CONFIG
    try:
        return TransformerConfig.from_dict(files.parsed(files.text(path)))
    except FileNotFoundError:
        raise DataError(f"{path}: no such checkpoint; train it with `decbench train {folder.name}`") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: not a transformer config ({error}); restore it with git or train again") from None


def load(folder: Path, *, dtype: torch.dtype, device: torch.device) -> Transformer:
    """Load a checkpoint; every tensor must be there, with its name and shape, and none besides.

    Raise DataError naming the file for a missing, truncated or corrupt file and for tensors that do not fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    model = Transformer.unset(read_config(folder))
    if not path.is_file():
        raise DataError(f"{path}: no such file; train it with `decbench train {folder.name}`")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"{path}: not a readable safetensors file ({error}); restore it with git or train it again"
        ) from None
    _require_fit(path, tensors, model)
    model.load_state_dict(tensors)
    return model.to(device=device, dtype=dtype).eval()


def _require_fit(path: Path, tensors: dict[str, torch.Tensor], model: Transformer) -> None:
    wanted = {name: tuple(p.shape) for name, p in model.state_dict().items()}
    for name in sorted(wanted.keys() | tensors.keys()):
        if name not in tensors:
            raise DataError(f"{path}: tensor {name} of shape {wanted[name]} is missing")
        if name not in wanted:
            raise DataError(f"{path}: tensor {name} is not part of the model that {CONFIG} describes")
        if tuple(tensors[name].shape) != wanted[name]:
            raise DataError(
                f"{path}: tensor {name} has shape {tuple(tensors[name].shape)}, {CONFIG} asks for {wanted[name]}"
            )
        if not tensors[name].isfinite().all():
            raise DataError(f"{path}: tensor {name} holds values that are not finite")
