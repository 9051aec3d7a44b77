"""What a figure was drawn from, so that one which shows it already is left as it is.

Drawing takes longer than reading the runs of a sweep. Beside the files of a figure lies a note: the digest of what was
drawn and of the code that drew it, and those of the files. Data, code, library or files that differ are drawn anew.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_DRAWING = ("figures.py", "parallelism.py", "convergence.py")
_SUFFIXES = (".svg", ".png", ".csv")


def origin_of(data: object) -> str:
    """Return a digest of values that a figure shows, in full, and of all that draws them."""
    told = hashlib.sha256(repr(data).encode())
    for name in _DRAWING:
        told.update(Path(__file__).with_name(name).read_bytes())
    with suppress(PackageNotFoundError):  # whoever draws says so
        told.update(version("matplotlib").encode())
    return told.hexdigest()


def current(figure: Path, origin: str) -> list[Path]:
    """Return the files of a figure if they are what was drawn from `origin`; none otherwise."""
    files = [figure.with_suffix(suffix) for suffix in _SUFFIXES]
    try:
        same = json.loads(_note(figure).read_text()) == _told(origin, files)
    except (OSError, ValueError):
        return []
    return files if same else []


def note(figure: Path, origin: str, files: Sequence[Path]) -> None:
    """Keep what files were drawn from."""
    _note(figure).write_text(json.dumps(_told(origin, files)))


def _told(origin: str, files: Sequence[Path]) -> dict[str, str]:
    return {"drawn from": origin} | {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _note(figure: Path) -> Path:
    return figure.with_name(f".{figure.stem}.drawn.json")
