"""The plug-ins in use, and what is wrong with them.

A plug-in is a folder (`harness.config.plugin`): an installed package that names itself by an entry point of the group
`decbench.plugins`, or one in the environment variable DECBENCH_PATH, to which a command line adds by `--config-dir DIR`
and `hydra.searchpath=[DIR]`. The variable is all that a worker process has to be given.

What is wrong with a file is one line, and harms nothing else. Imports no framework, and no module of a plug-in.
"""

import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from harness import references
from harness.config.interface import INTERFACE, mismatch, moved
from harness.config.plugin import GROUPS, Plugin
from harness.config.plugin_folders import VARIABLE, folders, split
from harness.engine.shared.policy import REGISTRY
from harness.errors import ConfigError


@dataclass
class _Held:
    """The plug-ins of this process, and what is wrong with folders that are none, and with modules.

    `path` is the variable's value, `rooted` the folders that were made importable, `told` what the present command has
    said of problems.
    """

    path: str | None = None
    plugins: tuple[Plugin, ...] = ()
    folders: dict[Path, str] = field(default_factory=dict)
    modules: dict[Path, str] = field(default_factory=dict)
    rooted: list[str] = field(default_factory=list)
    told: set[Path] = field(default_factory=set)


_HELD = _Held()


@cache
def ours() -> Plugin:
    """Return this package's own parts, which are found as everybody's are."""
    # By its place and not by its name: a folder of the user's may hold one of that name, too.
    folder = Path(__file__).parents[2] / "conf"
    return Plugin(origin="decbench", conf=folder, code=folder)


def current() -> tuple[Plugin, ...]:
    """Return the plug-ins in use; equal ones have equal content, so that this is a key for what follows from them."""
    if _HELD.path != os.environ.get(VARIABLE, ""):
        refresh()
    return _HELD.plugins


def sources() -> tuple[Plugin, ...]:
    """Return where parts come from, ours first."""
    return (ours(), *current())


def refresh() -> None:
    """Look for plug-ins anew; where one has changed, what was imported from any is forgotten."""
    path = os.environ.get(VARIABLE, "")
    problems: dict[Path, str] = {}
    found: dict[Path, Plugin] = {}
    for origin, folder in folders(path):
        if not folder.is_dir():
            problems[folder] = f"no such folder; {VARIABLE if origin in path else origin} names it"
            continue
        plugin = Plugin.of(origin, folder)
        if plugin.interface != INTERFACE:
            problems[plugin.code] = mismatch(plugin.interface)
        elif plugin.conf is None and not plugin.policy_modules:
            problems[folder] = f"holds no conf, no {GROUPS[0]}/ or other group, and no module with a policy"
        else:
            found.setdefault(plugin.code, plugin)
    plugins = tuple(found.values())
    _HELD.path, _HELD.folders = path, problems
    if plugins != _HELD.plugins:
        _forget()
        _HELD.plugins = plugins
        for plugin in plugins:
            _make_importable(plugin.root)


def note(file: Path, problem: str) -> None:
    """Keep what is wrong with a module."""
    _HELD.modules[file] = problem


def problems() -> dict[Path, str]:
    """Return what is wrong with which folder, or with which module of those that were imported."""
    current()
    return _HELD.folders | _HELD.modules


def untold(file: Path) -> bool:
    """Say whether the present command has not said what is wrong with a file; from now on it has."""
    told = file in _HELD.told
    _HELD.told.add(file)
    return not told


def explained(error: BaseException, file: Path) -> tuple[Path, str]:
    """Return the file of a plug-in that an error arose in, and what it says; `file` where nothing tells."""
    if isinstance(error, SyntaxError) and error.filename:
        return Path(error.filename), f"{type(error).__name__}: {error.msg} (line {error.lineno})"
    text = str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}{moved(error)}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if owner(frame.filename):
            return Path(frame.filename), f"{text} (line {frame.lineno})"
    return file, text


def owner(file: str | Path | None) -> Plugin | None:
    """Return the plug-in that a file lies in."""
    return next((plugin for plugin in current() if plugin.owns(file)), None)


@contextmanager
def commanded(arguments: Sequence[str]) -> Iterator[list[str]]:
    """Add the folders that a command line names to the variable while it runs; yield the other arguments.

    Raise ConfigError for a folder that is none.
    """
    before, (named, rest) = os.environ.get(VARIABLE), split(arguments)
    if named:
        os.environ[VARIABLE] = os.pathsep.join([*filter(None, [before]), *named])
    refresh()
    _HELD.told.clear()
    try:
        yield rest
    finally:
        if before is not None:
            os.environ[VARIABLE] = before
        else:
            os.environ.pop(VARIABLE, None)


def _make_importable(folder: Path) -> None:
    """Have modules of a folder found, behind everything that is found already."""
    if references.make_importable(str(folder)):
        _HELD.rooted.append(str(folder))


def _forget() -> None:
    """Undo what the plug-ins in use have left in this process, so that changed modules are imported anew."""
    for name, module in list(sys.modules.items()):
        if any(plugin.owns(getattr(module, "__file__", None)) for plugin in _HELD.plugins):
            del sys.modules[name]
    for key, cls in list(REGISTRY.items()):
        if cls.__module__ not in sys.modules:
            del REGISTRY[key]
    for folder in _HELD.rooted:
        sys.path.remove(folder)
    _HELD.rooted.clear()
    _HELD.modules.clear()
