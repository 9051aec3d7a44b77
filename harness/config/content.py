"""Digests of what lies at a path: files of data and checkpoints, whatever the path is called."""

import gzip
import hashlib
import sys
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness import files
from harness.config.located import function_at
from harness.config.remembered import remembered
from harness.errors import DataError
from harness.models import hub, packaged

_HEX = 64
_SIDECAR = "training.json"


def file_digest(file: Path) -> str:
    """Return the sha256 of a file's content, of the unpacked content where it ends in .gz.

    A file of the hub cache is a link to a blob that is named by its sha256, which is taken instead of reading it.
    Raises DataError naming a file that cannot be read.
    """
    blob = file.resolve()
    if blob.parent.name == "blobs" and len(blob.name) == _HEX:
        return blob.name
    try:
        return remembered("sha256 of content", file, _sha256)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file}: cannot be read ({error})") from error


def data_digest(sources: Iterable[Path | str]) -> str | None:
    """Return one digest over contents, in order: of files, of the files of folders, and of digests as they are.

    None where there are no sources. Raises DataError naming a file that cannot be read.
    """
    digests = [digest for source in sources for digest in _digests(source)]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest() if digests else None


def checkpoint_folder(model: dict[str, Any]) -> Path | None:
    """Return the folder that a model's loader reads, or None for a model without a checkpoint.

    It is `model.path`, or where the hub's cache has `model.hub_id`; a loader with a place of its own has a function
    `checkpoint_folder(model)` beside it. Raises ConfigError for a published model that is not on this machine.
    """
    module = sys.modules[function_at("model.loader", model["loader"]).__module__]
    if find := getattr(module, "checkpoint_folder", None):
        return find(model)
    return hub.find_of(model) or (Path(model["path"]) if model.get("path") else None)


def tokenizer_folder(model: Mapping[str, Any]) -> Path | None:
    """Return the folder with the tokenizer of text of a model's config, or None where it has none of its own.

    Raises ConfigError for a model that is not on this machine.
    """
    if "package" in model:
        return packaged.made(model)
    path = model.get("path")
    return hub.find_of(model) or (Path(path) if path else None)


def checkpoint_digest(folder: Path) -> str:
    """Return one digest over all that a loader may read of a checkpoint: weights, config and tokenizer, by name.

    A checkpoint that is a single file has the digest of its content.
    """
    if folder.is_file():
        return file_digest(folder)
    kinds = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken")
    found = sorted(file for kind in kinds for file in folder.glob(kind) if file.is_file() and file.name != _SIDECAR)
    lines = [f"{file.name} {file_digest(file)}" for file in found]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _digests(source: Path | str) -> list[str]:
    if isinstance(source, str):
        return [source]
    inside = sorted(file for file in source.rglob("*") if file.is_file()) if source.is_dir() else [source]
    return [file_digest(file) for file in inside]


def _sha256(file: Path) -> str:
    if file.suffix == ".gz":
        return hashlib.sha256(gzip.decompress(files.content(file))).hexdigest()
    files.require(file)
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
