"""Where a published checkpoint lies on this machine: a folder that was named, or the filled hub cache; no network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import files
from harness.errors import ConfigError

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"


def find(name: str, *, hub_id: str | None, path: str | None) -> Path:
    """Return the folder of model `name`, complete as far as file names tell.

    Raise ConfigError, in one line with the command that would get it, where it is not here. Imports no framework.
    """
    remedy = _remedy(hub_id)
    if path is not None:
        _require_complete(Path(path), f"model.path={path}", remedy)
        return Path(path)
    if hub_id is None:
        raise ConfigError(f"model={name}: no checkpoint is named; {remedy}")
    folder = _cached(hub_id)
    if folder is None:
        raise ConfigError(f"model={name}: {hub_id} is not in the hub cache of this machine; {remedy}")
    _require_complete(folder, f"model={name}: {folder}", remedy)
    return folder


def find_of(model: Mapping[str, object]) -> Path | None:
    """Return the folder of a model option as its YAML gives it, or None for a model that is not published."""
    if "hub_id" not in model:
        return None
    hub_id, path = model["hub_id"], model.get("path")
    return find(str(model["name"]), hub_id=hub_id and str(hub_id), path=path and str(path))  # type: ignore[arg-type]


def config_of(model: Mapping[str, object]) -> Mapping[str, Any] | None:
    """Return the config of a model option's checkpoint, None where no file here says it."""
    try:
        folder = find_of(model)
        config = None if folder is None else files.parsed(files.text(folder / CONFIG))
    except (ConfigError, OSError, ValueError):
        return None
    return config if isinstance(config, dict) else None


def download_command(hub_id: str) -> str:
    """Return the command that fills the hub cache with a checkpoint."""
    return f"hf download {hub_id}"


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint, those of the index or the single one, whether they exist or not.

    Raise ConfigError for an index that cannot be read.
    """
    index = folder / INDEX
    if not index.is_file():
        return [folder / WEIGHTS]
    try:
        names = {str(name) for name in files.parsed(files.text(index))["weight_map"].values()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConfigError(f"{index}: not an index of safetensors files ({error!r}); download it again") from None
    return [folder / name for name in sorted(names)]


def _remedy(hub_id: str | None) -> str:
    if hub_id is None:
        return "name a folder with model.path=FOLDER, or a downloaded model with model.hub_id=OWNER/NAME"
    return f"get it with `{download_command(hub_id)}`, or name a folder with model.path=FOLDER"


def _cached(hub_id: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(hub_id, CONFIG)
    except HFValidationError as error:
        raise ConfigError(f"model.hub_id={hub_id}: {str(error).splitlines()[0]}; write OWNER/NAME") from None
    return Path(config).parent if isinstance(config, str) else None


def _require_complete(folder: Path, what: str, remedy: str) -> None:
    if not folder.is_dir():
        raise ConfigError(f"{what}: no such folder; {remedy}")
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"{what}: holds no {CONFIG}; {remedy}")
    missing = [file.name for file in weight_files(folder) if not file.is_file()]
    if missing:
        raise ConfigError(f"{what}: {len(missing)} files of weights are missing, {missing[0]} first; {remedy}")
