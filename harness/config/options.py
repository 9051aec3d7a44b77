"""Typed options of config groups, derived from policies: names, types and defaults exist once, in the class."""

import copyreg
import importlib
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, field, fields, is_dataclass, make_dataclass
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.config import plugins
from harness.config.catalogue import nearest
from harness.config.plugin import Plugin
from harness.engine.families import METHOD_CLASSES
from harness.engine.shared.policy import REGISTRY
from harness.errors import ConfigError

_PACKAGES = ("harness.engine.diffusion", "harness.engine.autoregressive", "methods")
_OURS: dict[tuple[str, str], type] = {}
_STORED: set[tuple[str, str]] = set()

# Results of worker processes hold schemas, whose fields would come back with another "missing" than the one there is.
copyreg.pickle(type(MISSING), lambda missing: "MISSING")


def register() -> None:
    """Import every module that may define a policy, so that each is a typed option."""
    _register_ours()
    _register_others(plugins.current())


def provide(path: str) -> None:
    """Store the option that a config path names, if it is a policy of ours: a run reads few of the hundred."""
    group, _, name = path.removesuffix(".yaml").rpartition("/")
    key = (group, name)
    if key in _OURS and key not in _STORED:
        _store(*key, _OURS[key])


def is_slot(group: str) -> bool:
    """Say whether the options of a group are policies."""
    return any(of == group for of, _ in REGISTRY)


@cache
def _register_ours() -> None:
    for package in _PACKAGES:
        for name in _modules(importlib.import_module(package)):
            importlib.import_module(name)
    _OURS.update(REGISTRY)


@lru_cache(maxsize=1)
def _register_others(others: tuple[Plugin, ...]) -> None:
    """Register the policies of plug-ins, and nothing of a module that cannot be used."""
    for group, name in _STORED - _OURS.keys():
        ConfigStore.instance().repo["method"][group.partition("/")[2]].pop(f"{name}.yaml")
        _STORED.discard((group, name))
    for module, file in (one for plugin in others for one in plugin.policy_modules.items()):
        try:
            _import(module, file)
            for key, cls in _of_module(module):
                _store(*key, cls)
        except (Exception, SystemExit) as error:
            plugins.note(*plugins.explained(error, file))
            for key, _ in _of_module(module):
                del REGISTRY[key]


def _import(module: str, file: Path) -> None:
    """Import a module of a plug-in; raise ConfigError where another one has its name, or a slot is unknown."""
    imported = importlib.import_module(module)
    if Path(str(imported.__file__)).resolve() != file:
        raise ConfigError(f"another module {module} is imported in its place ({imported.__file__}); rename the file")
    slots = {group for group, _ in _OURS}
    for (group, name), cls in _of_module(module):
        if group not in slots:
            raise ConfigError(f"{cls.__name__}: policy {group}={name}: no such slot; {nearest(group, slots)}")


def _of_module(module: str) -> list[tuple[tuple[str, str], type]]:
    return [(key, cls) for key, cls in REGISTRY.items() if cls.__module__ == module]


def _store(group: str, name: str, cls: type) -> None:
    ConfigStore.instance().store(group=group, name=name, node=schema(cls), provider="decbench")
    _STORED.add((group, name))


@cache
def _default_parts(family: str) -> dict[str, str]:
    """Return the policies that a family's methods have where a file chooses none, by slot."""
    made = [
        (slot.name, slot.default_factory()) for slot in fields(METHOD_CLASSES[family]) if callable(slot.default_factory)
    ]
    return {slot: option_of(f"method/{slot}", path_of(type(part))) for slot, part in made}


def parts_of(method: Mapping[str, Any]) -> dict[str, str]:
    """Return the policy that a method's option chooses for each slot, by itself or by its family's defaults."""
    chosen = {slot: name for part in method["defaults"] for slot, name in part.items()}
    return chosen | {slot: name for slot, name in _default_parts(method["family"]).items() if slot not in chosen}


def names_of(group: str) -> list[str]:
    """Return the names of the policies of a slot, `method/SLOT`."""
    return sorted(name for of, name in REGISTRY if of == group)


def option_of(group: str, target: str) -> str:
    """Return the name under which the class with the dotted path `target` is an option of `group`.

    A class that is no option, but was put there by its path, is known by that.
    """
    return next((name for (of, name), cls in REGISTRY.items() if of == group and path_of(cls) == target), target)


def origin(cls: type) -> str | None:
    """Return the plug-in that a class comes from, as people know it; None for ours."""
    plugin = plugins.owner(getattr(sys.modules.get(cls.__module__), "__file__", None))
    return plugin.origin if plugin else None


def needs_values(cls: type) -> bool:
    """Say whether a policy has a field without a default."""
    return any(item.init and item.default is MISSING and item.default_factory is MISSING for item in fields(cls))


def path_of(cls: type) -> str:
    """Return the dotted path by which the config system finds a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def changed_fields(group: str, name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a policy's values that are not its class's defaults; all, of one that is no option."""
    if (group, name) not in REGISTRY:
        return {key: value for key, value in values.items() if key != "_target_"}
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


@cache
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
