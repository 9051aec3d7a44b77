"""Typed options of config groups, derived from policies: names, types and defaults exist once, in the class."""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, field, fields, is_dataclass, make_dataclass
from functools import cache
from types import ModuleType
from typing import Any, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.engine.policy import REGISTRY

_PACKAGES = ("harness.engine", "methods")


@cache
def register() -> None:
    """Import every module that may define a policy and store one typed option for each policy."""
    for package in _PACKAGES:
        for name in _modules(importlib.import_module(package)):
            importlib.import_module(name)
    for (group, name), cls in REGISTRY.items():
        ConfigStore.instance().store(group=group, name=name, node=schema(cls), provider="decbench")


def option_of(group: str, target: str) -> str:
    """Return the name under which the class with the dotted path `target` is an option of `group`."""
    return next(name for (of, name), cls in REGISTRY.items() if of == group and path_of(cls) == target)


def path_of(cls: type) -> str:
    """Return the dotted path by which the config system finds a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def changed_fields(group: str, name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a policy's values that are not its class's defaults."""
    node = OmegaConf.structured(schema(REGISTRY[group, name]))
    known = OmegaConf.to_container(node, enum_to_str=True)
    assert isinstance(known, dict)
    return {key: value for key, value in values.items() if known[key] != value}


def _modules(package: ModuleType) -> Iterator[str]:
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        yield module.name


@cache
def schema(cls: type) -> type:
    """Return a dataclass with the fields of `cls` as the config system can hold them, and `_target_`.

    Nested dataclasses become schemas themselves; a type that the config system does not know (a protocol) is left
    open. Enum values are given by the name of a member or of an alias.
    """
    hints = get_type_hints(cls)
    columns: list[tuple[str, Any, Any]] = [("_target_", str, path_of(cls))]
    for item in fields(cls):
        columns.append((item.name, _hint(hints[item.name]), _default(item)))
    return make_dataclass(f"{cls.__name__}Conf", columns, kw_only=True)


def _hint(hint: Any) -> Any:
    if is_dataclass(hint):
        return schema(hint)  # type: ignore[arg-type]
    try:
        OmegaConf.structured(make_dataclass("Probe", [("probe", hint, field(default="???"))]))
    except OmegaConfBaseException:
        return Any
    return hint


def _default(item: Field[Any]) -> Any:
    if item.default is MISSING and item.default_factory is MISSING:
        return field(default="???")
    make = item.default_factory if item.default is MISSING else lambda: item.default
    return field(default_factory=lambda: _plain(make()))  # type: ignore[misc]


def _plain(value: Any) -> Any:
    if not is_dataclass(value):
        return value
    return schema(type(value))(**{f.name: _plain(getattr(value, f.name)) for f in fields(value)})
