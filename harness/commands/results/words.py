"""The words of a command: a store, options that it knows, and the rest in order."""

import difflib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ConfigError, DataError
from harness.results.store import Store

_RESULTS = "results_dir="


@dataclass(frozen=True, kw_only=True)
class Words:
    """What was typed: `flags` without value, `options` with one, and the other words."""

    store: Store
    flags: frozenset[str]
    options: dict[str, str]
    rest: list[str]

    @property
    def filters(self) -> list[str]:
        """Words that look like filters."""
        return [word for word in self.rest if "=" in word]

    @property
    def names(self) -> list[str]:
        """Words that look like names of runs."""
        return [word for word in self.rest if "=" not in word]

    def written(self, option: str, text: str) -> bool:
        """Write `text` to the file that an option names; return whether it names one. Raises DataError if it cannot."""
        if (path := self.options.get(option)) is None:
            return False
        try:
            Path(path).write_text(text, encoding="utf-8")
        except OSError as error:
            raise DataError(f"{option}={path}: cannot be written ({error.strerror}); give another file") from error
        return True


def parse(argv: Sequence[str], *, flags: Collection[str] = (), options: Collection[str] = ()) -> Words:
    """Sort the words of a command; raise ConfigError, with the nearest one, for an option that it does not know."""
    root, found, given, rest = "results/raw", set(), {}, []
    waiting = list(argv)
    while waiting:
        word = waiting.pop(0)
        name, equals, value = word.partition("=")
        if word.startswith(_RESULTS):
            root = _unquoted(word.removeprefix(_RESULTS))
        elif name in options:
            given[name] = value if equals else _next(name, waiting)
        elif word in flags:
            found.add(word)
        elif word.startswith("-"):
            known = [*flags, *options]
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known) or 'none'}"
            raise ConfigError(f"{word}: no such option; {hint}")
        else:
            rest.append(word)
    if not root.strip():
        raise ConfigError("results_dir=: names no folder; leave it out for results/raw, or give one")
    if Path(root).exists() and not Path(root).is_dir():
        raise ConfigError(f"results_dir={root}: is no folder; give the one that holds a store")
    return Words(store=Store(root=root), flags=frozenset(found), options=given, rest=rest)


def taken_out(argv: Sequence[str], option: str) -> tuple[str | None, list[str]]:
    """Return the value of an option, written `--option VALUE` or `--option=VALUE`, and the other words."""
    value, rest, waiting = None, [], list(argv)
    while waiting:
        word = waiting.pop(0)
        name, equals, given = word.partition("=")
        if name == option:
            value = given if equals else _next(name, waiting)
        else:
            rest.append(word)
    return value, rest


def _next(option: str, waiting: list[str]) -> str:
    """Take the word behind an option, its value."""
    if not waiting:
        raise ConfigError(f"{option}: needs a value")
    return waiting.pop(0)


def settings(words: Sequence[str], known: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield keys and values of words `key=value`; raise ConfigError, with the nearest one, for a key not known."""
    from harness.config.catalogue import nearest

    for word in words:
        key, _, value = word.partition("=")
        if key not in known:
            raise ConfigError(f"{key}: no such key; {nearest(key, known)}")
        yield key, value


def _unquoted(path: str) -> str:
    """Return a path as `decbench run` reads it, which takes quotes around what holds blanks."""
    quoted = len(path) > 1 and path[0] == path[-1] and path[0] in "'\""
    return path[1:-1].replace(f"\\{path[0]}", path[0]) if quoted else path


def none_left(words: Sequence[str]) -> None:
    """Raise ConfigError if there are words that the command has no use for."""
    if words:
        raise ConfigError(f"{words[0]}: nothing is made of this; decbench results shows how it is written")
