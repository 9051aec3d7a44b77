"""A published config.json, read field by field: what is not understood is refused, not guessed."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

from harness.errors import DataError

T = TypeVar("T", bound=int | float | str | bool | dict | list)

_HARMLESS = frozenset(
    {
        "use_cache",
        "layer_norm_with_affine",
        "attention_layer_norm_with_affine",
        "flash_attention",
        "fuse_cross_entropy",
        "output_router_logits",
        "router_aux_loss",
        "tie_encoder_decoder",
        "is_encoder_decoder",
        "return_dict",
    }
)
"""Switches that do not change a forward pass here: memory, training and output formats."""


class Fields:
    """The fields of one file; every access marks its field as understood."""

    def __init__(self, path: Path) -> None:
        """Read the file; raise DataError if it is no JSON object."""
        self.path = path
        try:
            values = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: not a readable config ({error}); download it again") from None
        if not isinstance(values, dict):
            raise DataError(f"{path}: not a JSON object; download it again")
        self.values: dict[str, Any] = values
        self._seen: set[str] = set()

    def take(self, name: str, kind: type[T], default: T | None = None) -> T:
        """Return the value of a field, or `default` where it is absent or null; None as default: it must be there."""
        self._seen.add(name)
        value = self.values.get(name)
        value = default if value is None else value
        if value is None:
            raise self.error(name, "is missing")
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise self.error(name, f"must be of type {kind.__name__}")
        return value  # type: ignore[return-value]

    def optional(self, name: str) -> Any:
        """Return the value of a field of any type, or None."""
        self._seen.add(name)
        return self.values.get(name)

    def require(self, name: str, *allowed: object) -> None:
        """Raise DataError unless a field has one of the `allowed` values (None: absent or null)."""
        value = self.optional(name)
        if not any(type(value) is type(one) and value == one for one in allowed):
            shown = " or ".join("nothing" if one is None else repr(one) for one in allowed)
            raise self.error(name, f"the loader knows {shown} only")

    def finish(self, ignored: Collection[str] = ()) -> None:
        """Raise DataError for a switch that is on and that nobody has looked at."""
        for name, value in self.values.items():
            if value is True and name not in self._seen | _HARMLESS | {*ignored}:
                raise self.error(
                    name,
                    "a switch that the loader does not know; if it changes no forward pass, "
                    f"say so with model.ignored_fields=[{name}]",
                )

    def error(self, name: str, problem: str) -> DataError:
        """Return the error for one field, naming file, field and value."""
        value = f"={json.dumps(self.values[name])}" if name in self.values else ""
        return DataError(f"{self.path}: {name}{value}: {problem}")
