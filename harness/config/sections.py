"""Configs put together from sections that were composed once: what the jobs of a sweep have in common.

A section is what stands below a key of the root. An option is composed apart if it and all that it is made of are about
its own section: then nothing that is chosen for another section changes it. Everything else, experiments before all,
is composed with the root, as Hydra does it.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

if TYPE_CHECKING:
    from harness.config.loader import Loader


@dataclass(frozen=True)
class Whole:
    """A config without its `hydra` node, never written to, and the files that it is made of, in order.

    `options` are those chosen, by group; `fixed` those that files have put in place of others.
    """

    cfg: DictConfig
    files: Sequence[ResultDefault]
    options: Mapping[str, str | None]
    fixed: Mapping[str, Any]


def assembled(loader: "Loader", choices: Sequence[Override]) -> DictConfig:
    """Return the config of some choices, which may be written to."""
    whole, apart = _parts(loader, choices)
    return copied(whole.cfg, instead=apart)


def copied(node: Any, parent: Any = None, instead: Mapping[Any, DictConfig] = MappingProxyType({})) -> Any:
    """Return a copy of a config's node and all below it, as deepcopy makes it in ten times the time.

    What `instead` has by key takes the place of the node's own.
    """
    made = object.__new__(type(node))
    made.__dict__.update(node.__dict__, _parent=parent, _metadata=_metadata(node._metadata), _flags_cache=None)
    content = node.__dict__.get("_content")
    if isinstance(content, dict):
        made.__dict__["_content"] = {key: copied(instead.get(key, one), made) for key, one in content.items()}
    elif isinstance(content, list):
        made.__dict__["_content"] = [copied(one, made) for one in content]
    return made


def _metadata(metadata: Any) -> Any:
    made = object.__new__(type(metadata))
    flags, resolved = metadata.flags, metadata.resolver_cache
    resolved = copy.deepcopy(resolved) if resolved else resolved.copy()
    made.__dict__.update(metadata.__dict__, flags=flags and dict(flags), resolver_cache=resolved)
    return made


def chosen(loader: "Loader", choices: Sequence[Override]) -> Mapping[str, str | None]:
    """Return the options of some choices by group; of a section, those that it has beside the others."""
    return _parts(loader, choices)[0].options


def _parts(loader: "Loader", choices: Sequence[Override]) -> tuple[Whole, dict[str, DictConfig]]:
    """Return what is composed with the root, and the sections that take the place of its own."""
    inner: dict[str, dict[str, str]] = {}
    rest: list[str] = []
    for one in choices:
        if loader.is_inner(one):
            inner.setdefault(one.key_or_group.partition("/")[0], {})[one.key_or_group] = str(one.value())
        else:
            rest.append(str(one.input_line))
    try:
        whole = _whole(loader, *rest)
        found = {name: _apart(loader, name, tuple(given.items()), tuple(rest)) for name, given in inner.items()}
    except (HydraException, OmegaConfBaseException):
        # An experiment may rest on what is chosen beside it; what is wrong with the choices is said of the whole.
        whole, found = None, {}
    apart = {name: section for name, section in found.items() if section is not None}
    if whole is None or len(apart) < len(inner):
        return _whole(loader, *(str(one.input_line) for one in choices)), {}
    return whole, apart


@lru_cache(maxsize=64)
def _whole(loader: "Loader", *choices: str) -> Whole:
    return loader.whole(choices)


@lru_cache(maxsize=256)
def _apart(
    loader: "Loader", section: str, choices: tuple[tuple[str, str], ...], rest: tuple[str, ...]
) -> DictConfig | None:
    """Return a section under what is chosen for it, beside `rest`; None where others have a say in it."""
    place, given = _place(loader, section, rest), dict(choices)
    if place is None:
        return None
    option = {section: given.pop(section)} if section in given else {}
    files = loader.files_of(f"{section}/{option.get(section, place.option)}", {**place.slots, **given})
    if files is None:
        return None
    if given and not place.said & {slot.partition("/")[2] for slot in given}:
        base = _apart(loader, section, tuple(option.items()), rest)
        if base is not None and (made := _exchanged(loader, section, base, given, files)) is not None:
            return made
    return loader.merged(section, [*place.before, *files, *place.behind])


def _exchanged(
    loader: "Loader", section: str, base: DictConfig, slots: Mapping[str, str], files: Sequence[ResultDefault]
) -> DictConfig | None:
    """Return a section like `base` but for some slots, about which nothing says anything but the files of these.

    Merging all files anew takes twenty times as long. None where a slot has no file of its own.
    """
    own = {str(file.config_path): file for file in files}
    made = copied(base)
    for slot, name in slots.items():
        key, file = slot.partition("/")[2], own.get(f"{slot}/{name}")
        if file is None or key not in made:
            return None
        content = made.__dict__["_content"]
        node = loader.merged(section, [file]).__dict__["_content"][key]
        if node._metadata.object_type is not content[key]._metadata.object_type:
            content[key] = copied(node, made)
    return made


@dataclass(frozen=True)
class _Place:
    """Where the files of a section's option stand: between others of the root; `slots` are fixed for any option.

    `said` are the keys of the section that those others have something to say about.
    """

    option: str | None
    slots: Mapping[str, Any]
    before: Sequence[ResultDefault]
    behind: Sequence[ResultDefault]
    said: frozenset[str]


@lru_cache(maxsize=256)
def _place(loader: "Loader", section: str, rest: tuple[str, ...]) -> _Place | None:
    """Return the place of a section beside `rest`; None if what is put below it is not its option's alone."""
    whole = _whole(loader, *rest)
    slots = {key: value for key, value in whole.fixed.items() if key.startswith(f"{section}/")}
    expected = loader.files_of(f"{section}/{whole.options[section]}", slots)
    own = [file for file in whole.files if is_in(section, file)]
    if expected is None or list(map(_named, expected)) != list(map(_named, own)):
        return None
    first = whole.files.index(own[0])
    before = [file for file in whole.files[:first] if not file.package]
    behind = [file for file in whole.files[first:] if not file.package]
    return _Place(whole.options[section], slots, before, behind, loader.said(section, [*before, *behind]))


def is_in(section: str, file: ResultDefault) -> bool:
    """Say whether a file is put below a section."""
    return str(file.package).partition(".")[0] == section


def _named(file: ResultDefault) -> tuple[str | None, str | None]:
    return file.config_path, file.package
