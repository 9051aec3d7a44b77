"""Registration of policies: a frozen dataclass that becomes a typed option of a config group.

The registry knows nothing of the config system; the run layer turns its entries into options.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeGuard, TypeVar, dataclass_transform

from harness.errors import ConfigError

Policy = TypeVar("Policy")
P = TypeVar("P")
PROBABILITY = "probability"
REGISTRY: dict[tuple[str, str], type] = {}
_FOUND: dict[tuple[type, type], bool] = {}


def probability(default: float) -> Any:
    """Return a field that predictions have to exceed: a value above 1 is allowed, and lets none pass."""
    return field(default=default, metadata={PROBABILITY: True})


@dataclass_transform(frozen_default=True, kw_only_default=True)
def policy(group: str, name: str) -> Callable[[type[Policy]], type[Policy]]:
    """Make a class a frozen keyword-only dataclass and register it as option `name` of `group`.

    Raises ConfigError for a name that another class has.
    """

    def wrap(cls: type[Policy]) -> type[Policy]:
        made = dataclass(frozen=True, kw_only=True)(cls)
        taken = REGISTRY.get((group, name), made)
        if (taken.__module__, taken.__qualname__) != (made.__module__, made.__qualname__):
            raise ConfigError(
                f"{made.__module__}.{made.__qualname__}: {group}={name} is {taken.__module__}.{taken.__qualname__}"
                f" already; give the policy another name"
            )
        REGISTRY[group, name] = made
        return made

    return wrap


def acts_as(one: object, protocol: type[P]) -> TypeGuard[P]:
    """Say whether an object is of a protocol, as its class was found to be by `isinstance`.

    That looks up every member anew, which in each round takes as long as a layer of a small model.
    """
    key = type(one), protocol
    if key not in _FOUND:
        _FOUND[key] = isinstance(one, protocol)
    return _FOUND[key]
