"""Registration of policies: a frozen dataclass that becomes a typed option of a config group.

The registry knows nothing of the config system; the run layer turns its entries into options.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, dataclass_transform

from harness.errors import ConfigError

Policy = TypeVar("Policy")
PROBABILITY = "probability"
REGISTRY: dict[tuple[str, str], type] = {}


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
