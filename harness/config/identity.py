"""The two names of a run: `setting_id`, what was asked, and `run_id`, what produced the numbers.

A setting is told by the objects that a config builds: their classes and the fields that differ from their defaults,
so that neither a new knob at its default nor the way something was written changes it. Paths are replaced by digests
of what lies there. Device, threads, batch size and measurement are no part of it: it joins results across machines,
versions and time. A run is a setting together with all that may change its numbers: batch size, measurement, device
kind, code and versions; for timed runs also hardware and threads. Only an equal run is taken from the store.
"""

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from harness.config.content import file_digest
from harness.config.source_digest import Code
from harness.errors import ConfigError
from harness.results.canonical import canonical_json

DESCRIPTIVE = frozenset({"summary", "paper", "notes", "license", "download"})
"""Fields that change no output: words about a thing, and permission to fetch it."""

PLACES = frozenset({"data", "wording", "include_path"})
"""Fields of tasks that say where something is read; what is read is told by its digest."""

_LENGTH = 12


def setting_id(setting: Mapping[str, object]) -> str:
    """Return the 12 hex digits that name what was asked, as `setting_of` tells it."""
    return _name_of(setting)


def run_id(setting: str, producer: Mapping[str, object], code: Code) -> str:
    """Return the 12 hex digits that name a run: its setting, what decoded it besides code, and the code."""
    return _name_of({"setting": setting, **producer, "modules": dict(code.modules), "versions": dict(code.versions)})


def setting_of(
    *,
    models: Mapping[str, Mapping[str, object]],
    method: object,
    task: object,
    data: str | None,
    seed: int,
    gen_length: int,
    dtype: str,
) -> dict[str, object]:
    """Return what was asked as plain values: `models` are told by role, `data` is the digest of the task's data."""
    return {
        "models": models,
        "method": describe(method),
        "task": task_of(task, data),
        "seed": plain_number(seed),
        "gen_length": plain_number(gen_length),
        "dtype": dtype,
    }


def task_of(task: object, data: str | None) -> dict[str, Any]:
    """Return what a setting says of its task: `data` is the digest of its data."""
    told = describe(task)
    assert isinstance(told, dict)
    return {key: value for key, value in told.items() if key not in PLACES} | ({"data": data} if data else {})


def described_call(function: Callable[..., object], arguments: Mapping[str, object]) -> dict[str, object]:
    """Return the name of a function and those of its arguments that differ from its signature's defaults."""
    given = inspect.signature(function).parameters
    module = function.__module__.split(".")
    told: dict[str, object] = {"class": ".".join([module[0], *module[-1:], function.__qualname__])}
    for name, value in arguments.items():
        described, default = describe(value), given[name].default if name in given else None
        if described != (None if default is inspect.Parameter.empty else describe(default)):
            told[name] = described
    return told


def describe(value: object) -> object:
    """Return a value as plain JSON: an object as its class and the fields that differ from their defaults.

    Numbers that are equal are told alike (0, 0.0, -0.0); members of enums by name, paths by the digest of the file.
    """
    if is_dataclass(value) and not isinstance(value, type):
        own = {item.name: describe(getattr(value, item.name)) for item in fields(value) if _told(item, value)}
        return {"class": _class_name(type(value))} | own
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Path):
        return file_digest(value)
    if isinstance(value, Mapping):
        return {str(key): describe(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = [describe(inner) for inner in value]
        return sorted(items, key=canonical_json) if isinstance(value, set | frozenset) else items
    return plain_number(value) if isinstance(value, float | int) else value


def _told(item: "Field[Any]", owner: object) -> bool:
    """Say whether a field is part of its object's description: one that differs from its default, None without one."""
    default = None
    if item.default is not MISSING:
        default = item.default
    elif item.default_factory is not MISSING:
        default = item.default_factory()
    return item.name not in DESCRIPTIVE and describe(getattr(owner, item.name)) != describe(default)


def _class_name(cls: type) -> str:
    """Return a class's name after its top-level package, so that it may move within that."""
    return f"{cls.__module__.partition('.')[0]}.{cls.__qualname__}"


def plain_number(value: object) -> object:
    """Return a whole number as int whatever its type, -0.0 included; refuse nan and infinities."""
    if isinstance(value, bool) or not isinstance(value, float):
        return value
    if value != value or value in (float("inf"), float("-inf")):
        raise ConfigError(f"{value} is no value that a setting can have; give a finite number")
    return int(value) if value.is_integer() else value


def _name_of(value: object) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:_LENGTH]
