"""Refusal of a task's settings: what all kinds of tasks check alike."""

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from harness.errors import ConfigError

Problems = Iterable[tuple[str, str]]
"""Keys of settings that cannot be, each with what would do."""


def refuse(task: object, problems: Problems) -> None:
    """Raise ConfigError for the first problem, naming key, value and what would do."""
    for key, problem in problems:
        raise ConfigError(f"task.{key}={getattr(task, key)}: {problem}")


def unknown(task: object, choices: Mapping[str, Collection[str]]) -> Iterator[tuple[str, str]]:
    """Yield the settings whose value is none of the choices, with the nearest one."""
    for key, known in choices.items():
        if (value := getattr(task, key)) not in known:
            near = difflib.get_close_matches(str(value), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield key, f"must be one of {', '.join(known)}{hint}"


MOST_SAMPLES = 100_000
"""Of a task that makes its problems up: more would fill memory before the first is decoded."""


def too_many(task: Any) -> Iterator[tuple[str, str]]:
    """Yield `samples` if a task is asked to make up more problems than memory should hold."""
    if (samples := task.samples) is not None and samples > MOST_SAMPLES:
        yield "samples", f"must be at most {MOST_SAMPLES}"


def below_one(task: object, *keys: str) -> Iterator[tuple[str, str]]:
    """Yield the settings that are below 1; those that are None are left to the data."""
    for key in keys:
        if (value := getattr(task, key)) is not None and value < 1:
            yield key, "must be at least 1"
