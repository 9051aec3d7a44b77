"""Refusals in words, all of them: which key, which value, and what would do."""

import re
from enum import Enum

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from harness.errors import ConfigError, FieldError

_LONGEST = 120
_OMEGACONF = {
    r"Value '(.*)' of type '\w+' could not be converted to Integer": "must be a whole number",
    r"Value '(.*)' of type '\w+' could not be converted to Float": "must be a number",
    r"Value '(.*)' is not a valid bool.*": "must be true or false",
    r"Incompatible value 'None' for field of type 'int'": "must be a whole number",
    r"Incompatible value 'None' for field of type 'float'": "must be a number",
    r"Incompatible value 'None' for field of type 'bool'": "must be true or false",
    r"Incompatible value 'None' for field of type '.*'": "must have a value",
    r".*is not a ListConfig.*": "must be a list, written [a,b], without quotes around it",
    r".*is not a DictConfig.*": "must be a mapping, written {{a:1}}",
    r"Interpolation key '(.*)' not found": "refers to {0}, which is not there",
}
"""What OmegaConf says, and how it is said here; {0} is what the brackets caught."""


def refused_field(key: str, error: FieldError) -> ConfigError:
    """Return the refusal of a part's value, under the key by which a user sets it."""
    return refused(key, error.value, f"must {error.must}")


def refused(key: str, value: object, what_would_do: str) -> ConfigError:
    """Return the refusal of the value of a key."""
    return ConfigError(f"{key}={short(value.name if isinstance(value, Enum) else value)}: {what_would_do}")


def short(value: object) -> str:
    """Return a value as text that leaves room for what is said about it."""
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}...{text[-_LONGEST // 4 :]}"


def unreadable(group: DictConfig, key: str, error: BaseException) -> ConfigError:
    """Return the refusal of a value of a group that OmegaConf cannot give; `key` begins with the group's name."""
    typed = OmegaConf.to_container(group, resolve=False)
    for name in key.split(".")[1:]:
        typed = typed.get(name) if isinstance(typed, dict) else None
    if isinstance(error, MissingMandatoryValue):
        return ConfigError(f"{key}: {reason(error)}")
    return refused(key, "null" if typed is None else typed, reason(error))


def reason(error: BaseException) -> str:
    """Return what OmegaConf found wrong with a value, as one line that names no type of its own."""
    if isinstance(error, MissingMandatoryValue):
        return "needs a value"
    line = re.sub(r"^While dereferencing interpolation '[^']*': ", "", str(error).partition("\n")[0])
    line = line.removeprefix("Invalid value assigned: ")
    for pattern, words in _OMEGACONF.items():
        if match := re.fullmatch(pattern, line):
            return words.format(*match.groups())
    return line
