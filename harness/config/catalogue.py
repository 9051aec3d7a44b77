"""What exists: options of the config groups, read from their YAML files alone, so that listing is quick."""

import difflib
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

GROUPS = {
    "methods": "method",
    "models": "model",
    "tasks": "task",
    "protocols": "protocol",
    "experiments": "experiment",
}
METADATA = tuple("name family summary paper lossless models needs shown_by kind license defaults notes".split())


NEAR = 0.5
"""How much of a word must be right to be taken for a mistyped one."""


@cache
def names(group: str) -> tuple[str, ...]:
    """Return the option names of a config group, in alphabetical order."""
    folder = files("conf").joinpath(group)
    return tuple(sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")))


def read(group: str, name: str) -> dict:
    """Return the YAML of one option as plain values, interpolations unresolved."""
    import yaml

    return yaml.safe_load(files("conf").joinpath(group, f"{name}.yaml").read_text())


def knobs(option: dict) -> dict[str, object]:
    """Return the published knobs of a method: everything flat that is no metadata."""
    return {k: v for k, v in option.items() if k not in METADATA and not isinstance(v, dict)}


def describe(group: str) -> list[dict[str, object]]:
    """Return one JSON-able entry per option of a group."""
    return [_entry(group, name, read(group, name)) for name in names(group)]


def _entry(group: str, name: str, option: dict) -> dict[str, object]:
    entry: dict[str, object] = {"name": name, "summary": option.get("summary", "")}
    if group == "method":
        keys = ("family", "paper", "lossless", "models")
        return entry | {k: option[k] for k in keys} | {"knobs": knobs(option)}
    if group == "protocol":
        ours = [task for task, preset in option["tasks"].items() if preset.get("wording") == "reconstruction"]
        return entry | {"paper": option["paper"], "tasks": list(option["tasks"]), "reconstructed": ours}
    if group == "model":
        return entry | {"kind": option["kind"], "license": option.get("license")}
    return entry


def nearest(name: str, known: Iterable[str]) -> str:
    """Return how to go on after an unknown name: the nearest known one, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=NEAR)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
