"""What exists: options of the config groups, read from their YAML files alone, so that listing is quick."""

import copy
import difflib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.config import plugins
from harness.config.option_files import OptionFiles, option_files, read_option

GROUPS = {
    "methods": "method",
    "models": "model",
    "tasks": "task",
    "protocols": "protocol",
    "experiments": "experiment",
    "figures": "figure",
}
METADATA = tuple(
    "name family summary paper lossless models needs shown_by kind license defaults notes closed_form".split()
)


NEAR = 0.5
"""How much of a word must be right to be taken for a mistyped one."""


def names(group: str) -> tuple[str, ...]:
    """Return the option names of a config group, in alphabetical order."""
    return tuple(sorted(_files(group).usable))


def read(group: str, name: str) -> dict[str, Any]:
    """Return the YAML of one option as plain values, interpolations unresolved."""
    return copy.deepcopy(read_option(file_of(group, name), plugins.sources()))


def file_of(group: str, name: str) -> Path:
    """Return the file of an option."""
    return _files(group).usable[name]


def origin(group: str, name: str) -> str | None:
    """Return the plug-in that an option comes from, as people know it; None for ours."""
    plugin = plugins.owner(file_of(group, name))
    return plugin.origin if plugin else None


def marked(group: str, name: str) -> str:
    """Return what a Markdown table adds to the name of an option: the plug-in that it is from; nothing for ours."""
    plugin = origin(group, name)
    return f" ({plugin})" if plugin else ""


def refused(group: str, name: str) -> str | None:
    """Return why a name that a plug-in gives cannot be used, with the file; None if nothing is against it."""
    file, reason = _files(group).refused.get(name, (None, None))
    return f"{reason} ({file})" if file else None


def problems() -> dict[Path, str]:
    """Return what is wrong with which file of a plug-in, as far as it was looked at."""
    groups = plugins.GROUPS if plugins.current() else ()
    return plugins.problems() | {file: wrong for group in groups for file, wrong in _files(group).refused.values()}


def tell_problems(said: str = "") -> None:
    """Write a line for each problem to stderr, once for a command; none for files that were `said` something of."""
    for file, problem in problems().items():
        if plugins.untold(file) and str(file) not in said:
            sys.stderr.write(f"decbench: left out: {file}: {' '.join(problem.split())}\n")


def _files(group: str) -> OptionFiles:
    return option_files(group, plugins.sources())


def knobs(option: dict) -> dict[str, object]:
    """Return the published knobs of a method: everything flat that is no metadata."""
    return {k: v for k, v in option.items() if k not in METADATA and not isinstance(v, dict)}


def describe(group: str) -> list[dict[str, object]]:
    """Return one JSON-able entry per option of a group."""
    return [_entry(group, name, read(group, name)) | _from(origin(group, name)) for name in names(group)]


def _from(plugin: str | None) -> dict[str, str]:
    return {"from": plugin} if plugin else {}


def _entry(group: str, name: str, option: dict) -> dict[str, object]:
    entry: dict[str, object] = {"name": name, "summary": option.get("summary", "")}
    if group == "method":
        keys = ("family", "paper", "lossless", "models")
        return entry | {key: option[key] for key in keys} | {"knobs": knobs(option)}
    if group == "protocol":
        ours = [task for task, preset in option["tasks"].items() if preset.get("wording") == "reconstruction"]
        return entry | {"paper": option["paper"], "tasks": list(option["tasks"]), "reconstructed": ours}
    if group == "figure":
        return entry | {"kind": option["kind"]}
    if group == "model":
        return entry | {"kind": option["kind"], "license": option.get("license")}
    return entry


def nearest(name: str, known: Iterable[str]) -> str:
    """Return how to go on after an unknown name: the nearest known one, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=NEAR)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
