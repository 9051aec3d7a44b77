"""Errors that a user can act on; each message is one line naming file or key, value, and what would do."""

from collections.abc import Sequence


class ConfigError(ValueError):
    """A setting cannot be used: names the key, the value and what would do."""


class DataError(ValueError):
    """A file or its content cannot be used: names the file, the place in it and what would do."""


class RunFailed(Exception):
    """A run that was possible ended without a result: names the run and what happened."""


class MissingDependency(ImportError):
    """An optional package is not installed: names it and the command that installs it."""


def one_line(error: BaseException) -> str:
    """Return what went wrong as one line; errors for users speak for themselves, others are named."""
    text = " ".join(str(error).split())
    told = isinstance(error, ConfigError | DataError | MissingDependency | RunFailed)
    return text if told else f"{type(error).__name__}: {text}"


def listed(values: Sequence[object], most: int) -> str:
    """Return values beside each other, of which only the first `most` are named where there are more."""
    more = f" and {len(values) - most} more" if len(values) > most else ""
    return ", ".join(map(str, values[:most])) + more


class FieldError(ValueError):
    """A part has a value that it cannot have: `field` of the part, `value`, and what it `must` be.

    A part does not know under which key a user sets its field; whoever does says so (`harness.config.words`).
    """

    def __init__(self, field: str, value: object, must: str) -> None:
        """Keep all three as data; as text, they are for someone who builds parts without a config."""
        super().__init__(field, value, must)
        self.field, self.value, self.must = field, value, must

    def __str__(self) -> str:
        """Return the three in one line."""
        return f"{self.field}={self.value}: must {self.must}"


def at_least(least: int, **fields: float | None) -> None:
    """Raise FieldError for the first of a part's fields, given with their values, that is there and below `least`."""
    for field, value in fields.items():
        if value is not None and value < least:
            raise FieldError(field, value, f"be at least {least}")


def within(least: float, most: float, **fields: float) -> None:
    """Raise FieldError for the first of a part's fields, given with their values, that does not lie in these bounds."""
    for field, value in fields.items():
        if not least <= value <= most:
            raise FieldError(field, value, f"be from {least} to {most}")
