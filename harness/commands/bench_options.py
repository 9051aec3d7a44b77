"""What the commands of `decbench bench` may be asked: one reading and one look for all, before anything is made.

What an option holds is told by its default: a whole number, names, text, or, in `batches`, whole numbers.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import Field
from typing import Any

from harness.errors import ConfigError

_MOST = 1 << 20
_MOST_ROWS = 1 << 16
_DIGITS = 9


def parsed(words: Sequence[str], fields: dict[str, Field[Any]]) -> dict[str, Any]:
    """Return the values of words, by the fields of a dataclass; raise ConfigError for what no machine could measure."""
    from harness.commands.results.words import settings

    return {key: _value(key, text, fields[key].default) for key, text in settings(words, fields)}


def _value(key: str, text: str, default: object) -> Any:
    from harness.config.compatibility import DTYPES

    listed = [*filter(None, text.split(","))]
    if isinstance(default, tuple) and not listed:
        raise ConfigError(f"{key}={text}: names nothing to measure; give some with commas between, or leave it out")
    if key == "batches":
        return tuple(_whole(key, text, one) for one in listed)
    if isinstance(default, tuple):
        return tuple(listed)
    if isinstance(default, int):
        return _whole(key, text, text)
    if key == "device" and not re.fullmatch(r"cpu|cuda(:\d{1,3})?", text):
        raise ConfigError(f"device={text}: must be cpu or cuda, or cuda:N for one of several")
    if key == "dtype" and text not in DTYPES:
        raise ConfigError(f"dtype={text}: must be one of {', '.join(DTYPES)}")
    return text


def _whole(key: str, text: str, number: str) -> int:
    from harness.config.compatibility import MOST_THREADS

    most = {"batches": _MOST_ROWS, "threads": MOST_THREADS}.get(key, _MOST)
    if number.isdecimal() and len(number) <= _DIGITS and 1 <= int(number) <= most:
        return int(number)
    raise ConfigError(f"{key}={text}: must be a whole number of at least 1, at most {most}")


def require_known(key: str, names: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raise ConfigError, with the nearest one, for a name of `key` that is not known."""
    from harness.config.catalogue import nearest

    known = [*known]
    for name in names:
        if name not in known:
            raise ConfigError(f"{key}={name}: {what}; {nearest(name, known)}")


def require_device(device: str) -> None:
    """Raise ConfigError for a CUDA device that this machine does not have."""
    if device != "cpu":
        from harness.config.hardware import require

        require(device, key="device")


def require_memory(asked: str, needed: float, device: str = "cpu") -> None:
    """Raise ConfigError for what no call can have: more bytes than this machine has for its processor.

    A GPU says so itself, and goes on; a machine may end the program instead.
    """
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if device == "cpu" and needed > there:
        raise ConfigError(
            f"{asked}: takes at least {needed / 1e9:.3g} GB of memory, this machine has {there / 1e9:.3g}; choose less"
        )


@contextmanager
def memory_for(asked: str) -> Iterator[None]:
    """Have what runs out of memory end as a refusal of what was asked."""
    from harness.engine.shared.shortage import out_of_memory

    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise ConfigError(f"{asked}: there was not enough memory; choose less") from error
