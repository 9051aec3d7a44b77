"""Classes and functions that configs name by a dotted path, and what the engine needs of them."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from harness.config import plugins
from harness.config.catalogue import nearest
from harness.errors import ConfigError


def class_at(key: str, node: Mapping[str, Any]) -> type:
    """Return the class that `_target_` of the config node `key` names; raise ConfigError for what is none."""
    found = _located(key, node)
    if not isinstance(found, type):
        raise ConfigError(f"{key}._target_={node['_target_']}: is no class")
    return found


def function_at(key: str, node: Mapping[str, Any]) -> Callable[..., Any]:
    """Return the function or class that `_target_` of the config node `key` names; raise ConfigError likewise."""
    found = _located(key, node)
    if not callable(found):
        raise ConfigError(f"{key}._target_={node['_target_']}: cannot be called")
    return found


def loader_module(model: Mapping[str, Any]) -> Any:
    """Return the module of the loader of an option of the model group, which may say more of its models."""
    return sys.modules[function_at("model.loader", model["loader"]).__module__]


def _located(key: str, node: Mapping[str, Any]) -> object:
    target = str(node["_target_"])
    what, (top, *inner) = f"{key}._target_={target}", target.split(".")
    found = _module(what, top)
    for depth, name in enumerate(inner, 1):
        if not hasattr(found, name):
            try:
                _module(what, ".".join([top, *inner[:depth]]))
            except ConfigError as error:
                if not isinstance(error.__cause__, ModuleNotFoundError):
                    raise
                raise ConfigError(f"{what}: {_name(found)} has no {name}; {nearest(name, _public(found))}") from None
        found = getattr(found, name)
    return found


def _module(what: str, name: str) -> object:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            raise ConfigError(f"{what}: there is no module {name}; is its folder in {plugins.VARIABLE}?") from error
        raise _unusable(what, error) from None
    except (Exception, SystemExit) as error:
        raise _unusable(what, error) from None


def _unusable(what: str, error: BaseException) -> ConfigError:
    file, reason = plugins.explained(error, Path(what))
    return ConfigError(f"{what}: {file}: {reason}")


def _name(found: object) -> str:
    return str(getattr(found, "__file__", None) or getattr(found, "__name__", found))


def _public(found: object) -> list[str]:
    """Return the names that are defined there, none that it only imports."""
    home = getattr(found, "__name__", "")
    defined = [name for name, value in vars(found).items() if getattr(value, "__module__", home) == home]
    return [name for name in defined if not name.startswith("_") and name not in sys.modules]


def refuse_lacking(what: str, made: object, interface: type) -> None:
    """Raise ConfigError for an object without a method or property of the protocol `interface`."""
    needed = [name for name, value in vars(interface).items() if callable(value) or isinstance(value, property)]
    needed = [name for name in needed if name == "__call__" or not name.startswith("_")]
    if lacking := [name for name in needed if not hasattr(made, name)]:
        cls = type(made)
        where = getattr(sys.modules.get(cls.__module__), "__file__", cls.__module__)
        said = f"{cls.__qualname__} lacks {', '.join(lacking)} of {interface.__name__}"
        raise ConfigError(f"{what}: {said} ({where}); see docs/plugins.md")
