"""Files of config options: what they say, and what is wrong with those of plug-ins."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from harness.config.plugin import Plugin
from harness.errors import ConfigError

NEEDED = {
    "method": {"family": str, "models": list},
    "model": {"kind": str, "loader": dict, "tokenizer": str, "max_length": int},
    "task": {"_target_": str, "gen_length": object},
    "protocol": {"tasks": dict},
    "figure": {"kind": str},
}
"""Keys without which an option means nothing; what its `defaults` begin with may have them in its place."""

_LIKE_OURS = {"method": ("family", "models"), "model": ("kind", "tokenizer")}
"""Keys whose values are among those of our own options."""


ASSUMED: dict[str, dict[str, Any]] = {
    "method": {"summary": "", "paper": None, "lossless": False},
    "model": {"summary": "", "block_length": None, "max_items": None, "license": None},
    "task": {"summary": ""},
    "protocol": {"summary": "", "paper": None, "wording": None},
}
"""What an option says that does not say otherwise; its name is that of its file."""

_A = {str: "a word", list: "a list", dict: "a mapping", int: "a whole number"}


@dataclass(frozen=True, kw_only=True)
class OptionFiles:
    """The files of a group by name, and of plug-ins those that cannot be used, with the reason."""

    usable: Mapping[str, Path]
    refused: Mapping[str, tuple[Path, str]]


@cache
def option_files(group: str, sources: tuple[Plugin, ...]) -> OptionFiles:
    """Return the files of a group; of one name, the first source's."""
    own, *others = sources
    usable = dict(own.options.get(group, {}))
    refused: dict[str, tuple[Path, str]] = {}
    for name, file in ((name, file) for plugin in others for name, file in plugin.options.get(group, {}).items()):
        if name in usable:
            wrong = f"the name is taken by {usable[name]}; rename the file"
        else:
            wrong = "; ".join(_problems(group, name, file, sources))
        if wrong:
            refused[name] = (file, wrong)
        else:
            usable[name] = file
    return OptionFiles(usable=usable, refused=refused)


def _problems(group: str, name: str, file: Path, sources: tuple[Plugin, ...]) -> Iterator[str]:
    """Yield what a plug-in's file lacks."""
    try:
        option = read_option(file, sources)
    except ConfigError as error:
        yield str(error)
        return
    if group != "experiment" and option.get("name", name) != name and "${" not in str(option["name"]):
        yield f"name: {option['name']}: the file's name says {name}; leave it out"
    for key, kind in NEEDED.get(group, {}).items():
        if key not in option:
            yield f"lacks {key}"
        elif not isinstance(option[key], kind) and "${" not in str(option[key]) and option[key] != "???":
            yield f"{key}: {option[key]}: must be {_A[kind]}"
        elif key in _LIKE_OURS.get(group, ()):
            known = _values(group, key, sources[0])
            given = option[key] if isinstance(option[key], list) else [option[key]]
            yield from (f"{key}: {one}: must be one of {', '.join(known)}" for one in given if one not in known)


@cache
def _values(group: str, key: str, own: Plugin) -> list[str]:
    """Return the values that our options have for a key."""
    found = [read_option(file, (own,)).get(key, []) for file in own.options[group].values()]
    return sorted({one for values in found for one in (values if isinstance(values, list) else [values])})


@cache
def read_option(file: Path, sources: tuple[Plugin, ...]) -> dict[str, Any]:
    """Return a file's keys over those of the files that its `defaults` name, and over what is assumed.

    `defaults` then holds the parts alone, a mapping each, those of the other files first.

    Raise ConfigError saying what is wrong with it.
    """
    import yaml

    try:
        option = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(option, dict) or not isinstance(option.get("defaults", []), list):
        raise ConfigError("holds no keys; an option is a mapping, its defaults a list")
    whole: dict[str, Any] = {}
    parts: list[dict[str, Any]] = []
    for part in option.get("defaults", []):
        if isinstance(part, str) and part != "_self_":
            found = _base(part.removesuffix("@_here_"), file, sources)
            whole |= {key: value for key, value in found.items() if key != "name"}
            parts += found.get("defaults", [])
        elif isinstance(part, dict):
            parts.append({str(slot).removeprefix("override ").rpartition("/")[2]: name for slot, name in part.items()})
    named = {"name": file.stem, "defaults": parts} if file.parent.name in ASSUMED else {}
    return ASSUMED.get(file.parent.name, {}) | whole | named | {k: v for k, v in option.items() if k != "defaults"}


def written(file: Path, key: str) -> dict[str, list[str]]:
    """Return the lists of single values below a key of a file, as they are written there."""
    import yaml

    lists = {}
    for name, node in (yaml.compose(file.read_text()) or yaml.MappingNode("", [])).value:
        if name.value == key and isinstance(node, yaml.MappingNode):
            for axis, values in node.value:
                if isinstance(values, yaml.SequenceNode):
                    lists[axis.value] = [str(one.value) for one in values.value]
    return lists


def _base(base: str, file: Path, sources: tuple[Plugin, ...]) -> dict[str, Any]:
    inner = Path(f"{base.lstrip('/')}.yaml") if base.startswith("/") else Path(file.parent.name, f"{base}.yaml")
    for source in sources:
        if source.conf is not None and (source.conf / inner).is_file() and source.conf / inner != file:
            return read_option(source.conf / inner, sources)
    raise ConfigError(f"defaults: {base}: there is no {inner}")
