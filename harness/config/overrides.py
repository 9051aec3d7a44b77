"""The words of a command line, read as overrides, and refused in one line where they are none."""

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import accumulate

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from harness.config import words
from harness.errors import ConfigError

OPEN = ("model.kwargs.",)
"""Keys whose entries are somebody else's, so that none is unknown."""

TEXTS = ("task.prompt",)
"""Keys whose value is a text whatever stands in it: braces and commas, as a shell hands them over without quotes."""

_EXAMPLE = "settings are written key=value, as in task.samples=4"
_DEEPEST = 32
_PUNCTUATION = "[]{}()=,:"
_WORD = re.compile(rf"[^{re.escape(_PUNCTUATION)}]+")


def parse(overrides: Sequence[str]) -> list[Override]:
    """Parse overrides; raise ConfigError for what is none. What lies below an open key may be new."""
    return [_parsed(text) for text in overrides]


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Override:
    key, equals, value = text.partition("=")
    if key.startswith("~"):
        raise ConfigError(f"{text}: nothing can be taken out; give the setting a value, such as {key[1:]}=null")
    if key.startswith("-"):
        raise ConfigError(f"{text}: no such option; {_EXAMPLE}")
    if not equals:
        raise ConfigError(f"{text}: is no setting; {_EXAMPLE}")
    typed = _text(value) if key in TEXTS else _quoted(value)
    if _depth(value) > _DEEPEST:
        raise ConfigError(f"{key}: brackets are nested {_depth(value)} deep; {_DEEPEST} at most can be read")
    try:
        (override,) = _parser().parse_overrides([f"{'++' if text.startswith(OPEN) else ''}{key}={typed}"])
    except (HydraException, ValueError, RecursionError) as error:
        problem = f"cannot be read ({_reason(error)}); {_EXAMPLE}, and a text as key='...'"
        raise ConfigError(f"{words.short(text)}: {problem}") from error
    return override


def _depth(value: str) -> int:
    return max(accumulate((letter in "[{(") - (letter in ")}]") for letter in value), default=0)


def _text(value: str) -> str:
    """Put a text in quotes, unless it is in quotes or empty."""
    if re.match(r"""['"]|\Z""", value):
        return value
    # A backslash before a quote hides it from Hydra, and a last one would hide ours.
    escaped = re.sub(r"(\\*)('|\Z)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), value)
    return f"'{escaped}'"


def _quoted(value: str) -> str:
    """Put the words with letters beyond ASCII in quotes, without which Hydra reads none."""
    if value.isascii() or set(value) & {"'", '"'}:
        return value
    return _WORD.sub(lambda word: word[0] if word[0].isascii() else f"'{word[0]}'", value)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split("\n")[0].split()).rstrip(".")
