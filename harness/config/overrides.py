"""The words of a command line, read as overrides, and refused in one line where they are none."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache, wraps
from itertools import accumulate
from typing import Concatenate, ParamSpec, TypeVar

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig

from harness.config import words
from harness.errors import ConfigError

OPEN = ("model.kwargs.",)
"""Keys whose entries are somebody else's, so that none is unknown."""

_ADDABLE = ("method.", "method@", "model.", "draft.", "judge.", "task.", "hydra.", "hydra/")
"""Where a key may be added: the parts that are built say whether they read it."""

TEXTS = ("task.prompt",)
"""Keys whose value is a text whatever stands in it: braces and commas, as a shell hands them over without quotes."""

_EXAMPLE = "settings are written key=value, as in task.samples=4"
_DEEPEST = 32
_PUNCTUATION = "[]{}()=,:"
_WORD = re.compile(rf"[^{re.escape(_PUNCTUATION)}]+")
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_NUMBERS = re.compile(rf"{_NUMBER}|\[\s*{_NUMBER}(?:\s*,\s*{_NUMBER})*\s*\]", re.IGNORECASE)

Made = TypeVar("Made")
Given = ParamSpec("Given")


def parse(overrides: Sequence[str]) -> list[Override]:
    """Parse overrides; raise ConfigError for what is none. What lies below an open key may be new."""
    return [_parsed(text) for text in overrides]


def numbers_typed(overrides: Sequence[str]) -> dict[str, str]:
    """Return the values that are numbers or lists of them as they were typed, blanks aside, by key.

    Reading makes 0.9 of 0.90 and 0.001 of 1e-3, which is for computing; people are shown what they wrote.
    """
    given = (text.lstrip("+").partition("=") for text in overrides)
    return {key: re.sub(r"\s", "", value) for key, _, value in given if _NUMBERS.fullmatch(value.strip())}


@contextmanager
def shown_as_typed(overrides: Sequence[str]) -> Iterator[None]:
    """Have a refusal that begins with a setting show its number as it was typed."""
    try:
        yield
    except ConfigError as error:
        text = str(error)
        for key, typed in numbers_typed(overrides).items():
            read = f"{key}={_parsed(f'{key}={typed}').value()}"
            if text.startswith(f"{read}:"):
                error.args = (f"{key}={typed}{text[len(read) :]}",)
        raise


def tells_as_typed(
    function: Callable[Concatenate[DictConfig, Given], Made],
) -> Callable[Concatenate[DictConfig, Given], Made]:
    """Have the refusals of a function of a config show numbers as they were typed."""

    @wraps(function)
    def telling(cfg: DictConfig, *given: Given.args, **named: Given.kwargs) -> Made:
        with shown_as_typed(cfg.overrides):
            return function(cfg, *given, **named)

    return telling


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Override:
    key, equals, value = text.partition("=")
    if key.startswith("~"):
        raise ConfigError(f"{text}: nothing can be taken out; give {key[1:]} a value, such as none or null")
    if key.startswith("-"):
        raise ConfigError(f"{text}: no such option; {_EXAMPLE}")
    if not equals or not key.strip("+"):
        raise ConfigError(f"{text}: is no setting; {_EXAMPLE}")
    if key.startswith("+") and not key.lstrip("+").startswith(_ADDABLE):
        raise ConfigError(f"{text}: nothing would read a new key; what is there is set without +")
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
