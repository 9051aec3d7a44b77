"""A published config.json, read field by field: what is not understood is refused, not guessed."""

import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

from harness import files
from harness.errors import DataError

T = TypeVar("T", bound=int | float | str | bool | dict | list)


class Fields:
    """The fields of one file; every access marks its field as understood."""

    def __init__(self, path: Path, ignored: Collection[str] = ()) -> None:
        """Read the file, as if the `ignored` fields were not in it; raise DataError if it is no JSON object."""
        self.path = path
        try:
            values = files.parsed(files.text(path))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: not a readable config ({error}); download it again") from None
        if not isinstance(values, dict):
            raise DataError(f"{path}: not a JSON object; download it again")
        self.values: dict[str, Any] = {name: value for name, value in values.items() if name not in ignored}
        self._seen: set[str] = set()

    def take(self, name: str, kind: type[T], default: T | None = None, *, null: T | None = None, least: int = 1) -> T:
        """Return the value of a field.

        `default` stands for a field that is absent or null, `null` for one that is there and null; without them it
        must be there. A whole number is at least `least`, any other number finite and above 0.
        """
        value = self.optional(name)
        if value is None:
            value = null if name in self.values and null is not None else default
        if value is None:
            raise self.error(name, "is missing")
        return self.checked(name, value, kind, least=least)

    def checked(self, name: str, value: Any, kind: type[T], *, least: int = 1) -> T:
        """Return `value`, given for the field `name`; raise DataError unless it is of the kind and in its range."""
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise self.error(name, f"must be of type {kind.__name__}")
        if isinstance(value, int) and kind is int and value < least:
            raise self.error(name, f"must be at least {least}")
        if isinstance(value, float) and not 0 < value < math.inf:
            raise self.error(name, "must be a finite number above 0")
        return value

    def optional(self, name: str) -> Any:
        """Return the value of a field of any type, or None."""
        self._seen.add(name)
        return self.values.get(name)

    def token_id(self, name: str) -> int | None:
        """Return the token id that a field holds, or None where it is absent or null."""
        return None if self.optional(name) is None else self.take(name, int, least=0)

    def require(self, name: str, *allowed: object) -> None:
        """Raise DataError unless a field has one of the `allowed` values (None: absent or null)."""
        value = self.optional(name)
        if not any(type(value) is type(one) and value == one for one in allowed):
            shown = " or ".join("nothing" if one is None else repr(one) for one in allowed)
            raise self.error(name, f"the loader knows {shown} only")

    def finish(self, harmless: Collection[str]) -> None:
        """Raise DataError for fields that nobody has looked at and that `harmless` does not name; null is nothing."""
        left = [n for n, value in self.values.items() if value is not None and n not in self._seen | {*harmless}]
        if not left:
            return
        given = ", ".join(f"{name}={json.dumps(self.values[name])}" for name in left)
        raise DataError(
            f"{self.path}: {given}: not known to the loader, which would compute without; where that changes no "
            f"forward pass, say so with model.ignored_fields=[{','.join(left)}]"
        )

    def error(self, name: str, problem: str) -> DataError:
        """Return the error for one field, naming file, field and value."""
        value = f"={json.dumps(self.values[name])}" if name in self.values else ""
        return DataError(f"{self.path}: {name}{value}: {problem}")
