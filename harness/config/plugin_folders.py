"""Which folders are plug-ins: installed packages, those of a variable, and those that a command line names."""

import os
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from harness.errors import ConfigError

VARIABLE = "DECBENCH_PATH"
ENTRY_POINTS = "decbench.plugins"
_FLAGS = ("--config-dir", "-cd")
_SEARCH_PATH = "hydra.searchpath"


def folders(path: str) -> Iterator[tuple[str, Path]]:
    """Yield how people know it, and where it is, of installed packages and of what the variable's value names.

    The folder need not exist.
    """
    for origin, package in _entries():
        yield origin, _package_folder(package.partition(":")[0]) or Path(package)
    for text in filter(None, path.split(os.pathsep)):
        yield text, Path(text).expanduser().resolve()


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the folders that a command line names, absolute, and its other arguments.

    Raise ConfigError for a folder that is none.
    """
    named: list[str] = []
    rest: list[str] = []
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        key, given, value = argument.partition("=")
        if key in _FLAGS:
            if not given and not waiting:
                raise ConfigError(f"{key}: names no folder; write --config-dir DIR")
            named.append(_folder(key, value if given else waiting.pop(0)))
        elif given and key == _SEARCH_PATH:
            named += [_folder(key, one) for one in _listed(value)]
        else:
            rest.append(argument)
    return named, rest


def _listed(value: str) -> list[str]:
    import yaml

    try:
        listed = yaml.safe_load(value)
    except yaml.YAMLError:
        listed = None
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise ConfigError(f"{_SEARCH_PATH}={value}: must be a list of folders; write {_SEARCH_PATH}=[DIR]")
    return listed


def _folder(key: str, text: str) -> str:
    """Return the folder that is meant: a path, `file://PATH` or `pkg://PACKAGE`."""
    if text.startswith("pkg://"):
        folder = _package_folder(text.removeprefix("pkg://"))
    else:
        folder = Path(text.removeprefix("file://")).expanduser().resolve()
    if folder is None or not folder.is_dir():
        raise ConfigError(f"{key}={text}: no such folder; give one that holds conf/method, conf/task, ... or modules")
    if os.pathsep in str(folder):
        raise ConfigError(f"{key}={text}: {VARIABLE} cannot hold a name with {os.pathsep!r} in it; rename the folder")
    return str(folder)


@cache
def _entries() -> tuple[tuple[str, str], ...]:
    found = entry_points(group=ENTRY_POINTS)
    return tuple((f"{one.dist.name} {one.dist.version}" if one.dist else one.name, one.value) for one in found)


def _package_folder(package: str) -> Path | None:
    """Return the folder of an installed package, or of one inside of it; imports nothing."""
    top, *inner = package.split(".")
    try:
        spec = find_spec(top)
    except ValueError:
        return None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (found := Path(folder).joinpath(*inner)).is_dir():
            return found.resolve()
    return None
