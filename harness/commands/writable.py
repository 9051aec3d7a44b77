"""Places where a command is to write, tried before it works for minutes; nothing is made or changed by trying."""

import os
import tempfile
from pathlib import Path

from harness.errors import ConfigError


def require_file(key: str, place: str) -> None:
    """Raise ConfigError if `place`, said by `key`, is no file that could be written."""
    path = Path(place)
    try:
        if not place.strip():
            raise ConfigError(f"{key}={place}: names no file; give one, such as {key}=results/raw/{key}.json")
        if path.is_dir():
            raise ConfigError(f"{key}={place}: is a folder; give a file in it, such as {path / key}.json")
        if path.exists() and not os.access(path, os.W_OK):
            raise ConfigError(f"{key}={place}: may not be written; give another file")
        if not path.exists():
            _try(path.absolute().parent)
    except OSError as error:
        raise ConfigError(f"{key}={place}: cannot be written ({_why(error)}); give another file") from error


def require_folder(key: str, place: str) -> None:
    """Raise ConfigError if nothing could be written into the folder `place`, said by `key`."""
    try:
        if not place.strip():
            raise ConfigError(f"{key}={place}: names no folder; give one")
        _try(Path(place).absolute())
    except OSError as error:
        raise ConfigError(f"{key}={place}: cannot be written ({_why(error)}); give another folder") from error


def require_drawing(folder: str) -> None:
    """Raise ConfigError if `--figure` names no folder to write, MissingDependency if nothing can be drawn."""
    from harness.results.figures.style import drawing

    require_folder("--figure", folder)
    with drawing():
        pass


def _try(folder: Path) -> None:
    """Raise OSError if nothing can be made in a folder, or in the nearest above it that is there."""
    there = next(one for one in (folder, *folder.parents) if one.exists())
    # What permissions say is not enough: some file systems let nobody make anything.
    with tempfile.TemporaryDirectory(dir=there):
        pass


def _why(error: OSError) -> str:
    return error.strerror or str(error)
