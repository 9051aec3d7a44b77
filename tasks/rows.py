"""Rows of task data: shipped with the package, from a file of the user's, or from a filled hub cache."""

import csv
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from harness import files
from harness.errors import DataError, MissingDependency

Row = Mapping[str, Any]
Fields = Mapping[str, type]
"""Name and type of every field that a row must have; further fields are left alone."""

HUB = "hub"
SOURCES = "sources.json"


@cache
def shipped(folder: Path, name: str) -> tuple[Row, ...]:
    """Return the rows of a compressed file of the package, after comparing its content with the digest on record.

    `sources.json` beside it states origin, licence, number of rows and sha256. Raises DataError naming the file.
    """
    file, remedy = folder / name, "; install decbench again"
    known = json.loads((folder / SOURCES).read_text(encoding="utf-8"))[name]
    content = _content(file, remedy)
    digest = hashlib.sha256(content).hexdigest()
    rows = _parsed(file, content)
    if len(rows) != known["rows"]:
        raise DataError(f"{file}: {len(rows)} rows instead of {known['rows']}{remedy}")
    if digest != known["sha256"]:
        raise DataError(f"{file}: sha256 {digest} instead of {known['sha256']}{remedy}")
    return tuple(rows)


def from_file(path: str | Path, fields: Fields) -> tuple[Row, ...]:
    """Return the rows of a file of JSON lines, which may end in .gz, with these fields.

    Raises DataError naming file, row (from 1), field and what would do; also for a file that ends too early.
    """
    file = Path(path)
    return _checked(str(file), _parsed(file, _content(file, "; give the path of a UTF-8 file of JSON lines")), fields)


def from_hub(
    repository: str, config: str | None, split: str, fields: Fields, *, download: bool = False
) -> tuple[Row, ...]:
    """Return the rows of a data set of the hub: those in the local cache, unless `download` lets them be fetched.

    Raises MissingDependency without the package datasets, DataError where the cache lacks the data set.
    """
    _datasets("task.data=hub")
    where = f"data set {repository}, split {split}"
    try:
        with nullcontext() if download else offline():
            table = _loaded(repository, config, split, download=download)
    # The library raises whatever its readers raise: no class covers a cache that is empty, old or damaged.
    except Exception as error:
        raise DataError(f"{where}: {absent(repository, error, download=download)}, or give task.data=FILE") from error
    return _checked(where, [dict(row) for row in table], fields)


def absent(repository: str, error: Exception, *, download: bool) -> str:
    """Return why a data set of the hub could not be had, and how to get it."""
    missing = "could not be fetched" if download else "not in the cache of this machine"
    command = f"hf download --repo-type dataset {repository}"
    return f"{missing} ({_one_line(error)}); fill the cache where there is a network ({command}, or task.download=true)"


def _loaded(repository: str, config: str | None, split: str, *, download: bool) -> Iterable[Any]:
    """Load a data set that the library has prepared, or may fetch; else from the files that `hf download` left."""
    import datasets

    try:
        return datasets.load_dataset(repository, config, split=split)
    except Exception:
        folder = None if download else downloaded(repository)
        if folder is None:
            raise
        return datasets.load_dataset(folder, config, split=split)


def downloaded(repository: str) -> str | None:
    """Return the folder of a data set that `hf download` left in the cache of the hub, or None; needs no network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return str(snapshot_download(repository, repo_type="dataset", local_files_only=True))
    except (OSError, HFValidationError):
        return None


@contextmanager
def offline() -> Iterator[None]:
    """Keep the libraries of the hub from asking it for anything."""
    from datasets import config as switches
    from huggingface_hub import constants

    before = switches.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    switches.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        switches.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def from_folder(path: str | Path, split: str, fields: Fields) -> tuple[Row, ...]:
    """Return the rows of a data set that the package datasets saved in a folder (save_to_disk), of its split if any.

    Raises MissingDependency without the package, DataError naming folder, row, field and what would do.
    """
    datasets, where = _datasets(f"task.data={path}"), f"{path}, split {split}"
    try:
        loaded = datasets.load_from_disk(str(path))
        table = loaded[split] if isinstance(loaded, datasets.DatasetDict) else loaded
        found = [dict(row) for row in table]
    # As above: whatever a damaged file makes the readers raise.
    except Exception as error:
        remedy = "give a folder that was written by save_to_disk, or a file of JSON lines"
        raise DataError(f"{where}: cannot be read ({_one_line(error)}); {remedy}") from error
    return _checked(where, found, fields)


def _datasets(what: str) -> ModuleType:
    try:
        import datasets
    except ImportError as error:
        raise MissingDependency(f"{what} needs the package datasets: pip install 'decbench[hub]'") from error
    return datasets


def by_digest(ids: list[str], count: int) -> list[int]:
    """Return the places of the `count` ids with the smallest sha256, in order; a smaller count is a part of it."""
    ranked = sorted(range(len(ids)), key=lambda i: hashlib.sha256(ids[i].encode()).digest())
    return sorted(ranked[:count])


def _content(file: Path, remedy: str) -> bytes:
    try:
        return gzip.decompress(files.content(file)) if file.suffix == ".gz" else files.content(file)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file}: cannot be read ({_one_line(error)}){remedy}") from error


def _parsed(file: Path, content: bytes) -> list[Row]:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        raise DataError(f"{file}, row {number}: not UTF-8 ({error.reason}); write the file in UTF-8") from error
    if ".csv" in file.suffixes:
        return list(csv.DictReader(io.StringIO(text)))
    return [_row(file, number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _row(file: Path, number: int, line: str) -> Row:
    try:
        row = files.parsed(line)
    except ValueError as error:
        raise DataError(f"{file}, row {number}: not JSON ({error}); write one object per line") from error
    if not isinstance(row, dict):
        raise DataError(f"{file}, row {number}: {type(row).__name__} instead of an object")
    return row


def _checked(where: str, rows: Sequence[Row], fields: Fields) -> tuple[Row, ...]:
    if not rows:
        raise DataError(f"{where}: no rows; write one object per line with the fields {', '.join(fields)}")
    for number, row in enumerate(rows, start=1):
        _check(f"{where}, row {number}", row, fields)
    return tuple(rows)


def _check(where: str, row: Row, fields: Fields) -> None:
    for name, kind in fields.items():
        if name not in row:
            raise DataError(f"{where}: field {name!r} is missing; a row has {', '.join(fields)}")
        if not isinstance(row[name], kind):
            raise DataError(f"{where}: field {name!r}: {row[name]!r} must be of type {kind.__name__}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
