"""What a figure was drawn from, so that one which shows it already is left as it is.

Drawing takes longer than reading the runs of a sweep. Beside the files of a figure lies a note: the digest of what was
drawn and of the code that drew it, and those of the files. Runs, code, library or files that differ are drawn anew.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harness.results.figures.making import files_of
from harness.results.figures.scatter import TheoryPoint
from harness.results.figures.selected import Selected

_CODE = Path(__file__).parents[1]
_PACKAGES = ("decbench", "matplotlib", "pandas")


def origin_of(selected: Selected, theory: Sequence[TheoryPoint]) -> str:
    """Return a digest of a figure's definition and runs, what theory says of them, and all that draws them.

    Samples and steps of an attempt at a run never change.
    """
    values = [selected.definition, selected.runs, theory]
    told = hashlib.sha256(json.dumps(values, default=_plain, sort_keys=True).encode())
    for file in sorted(_CODE.rglob("*.py")):
        told.update(file.read_bytes())
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):  # whoever draws says so
            told.update(version(package).encode())
    return told.hexdigest()


def current(figure: Path, origin: str) -> list[Path]:
    """Return the files of a figure if they are what was drawn from `origin`; none otherwise."""
    files = files_of(figure)
    try:
        same = json.loads(_note(figure).read_text()) == _told(origin, files)
    except (OSError, ValueError):
        return []
    return files if same else []


def note(figure: Path, origin: str, files: Sequence[Path]) -> None:
    """Keep what files were drawn from."""
    _note(figure).write_text(json.dumps(_told(origin, files)))


def _plain(value: object) -> object:
    """Return what JSON can hold: fields of definitions, sets in order, times as texts."""
    if is_dataclass(value):
        return vars(value)
    return sorted(value) if isinstance(value, frozenset) else str(value)


def _told(origin: str, files: Sequence[Path]) -> dict[str, str]:
    return {"drawn from": origin} | {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _note(figure: Path) -> Path:
    return figure.with_name(f".{figure.name}.drawn.json")
