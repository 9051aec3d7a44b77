"""Where a task of lm-evaluation-harness is defined, and what its definition says; no data set is opened.

The library's own index parses every one of its files, which takes half a minute. Here one pass over their text finds
the file, and the library parses the files of its folder.
"""

import difflib
import importlib.util
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import ConfigError

UNNAMED = "lm_eval"
"""The name where the user gave none."""

INSTALL = "pip install 'decbench[lm-eval]'"
_NAMED = re.compile(r"""^(task|group|tag):[ \t]+["']?([^"'\[\]{}|>#\n]+?)["']?[ \t]*(?:#.*)?$""", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A task by its name: the index that can load it, and its YAML with includes merged and functions unresolved."""

    name: str
    manager: Any
    config: Mapping[str, Any]

    @property
    def generation(self) -> Mapping[str, Any]:
        """What the task asks of every generation."""
        return self.config.get("generation_kwargs") or {}


def find(name: str, include_path: str | None) -> Definition:
    """Return the definition of a task from a folder of the user's or from the package, the folder first.

    Raise ConfigError naming the key for a missing package, an unknown name, and a task that cannot be measured here.
    """
    if name in ("", UNNAMED):
        raise ConfigError(f"task.name={name}: say which task of lm-evaluation-harness, as in task.name=gsm8k")
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError(f"task=lm_eval: needs the package lm_eval: {INSTALL}")
    found = _own(name, include_path) if include_path is not None else None
    definition = found or _shipped(name, include_path)
    if reason := _against(definition.config):
        raise ConfigError(f"task.name={name}: {reason}")
    return definition


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the library's advice to its own users."""
    log = logging.getLogger("lm_eval")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _own(name: str, include_path: str) -> Definition | None:
    if not Path(include_path).is_dir():
        raise ConfigError(f"task.include_path={include_path}: no such folder; give one with YAML files of tasks")
    return _parsed(name, Path(include_path))


def _shipped(name: str, include_path: str | None) -> Definition:
    known = _known()
    kind, file = known.get(name, ("", None))
    if file is None:
        near = difflib.get_close_matches(name, known, n=1)
        where = f"lm-evaluation-harness or {include_path}" if include_path else "lm-evaluation-harness"
        hint = f"did you mean {near[0]}?" if near else "task.include_path=FOLDER adds a folder of your own"
        raise ConfigError(f"task.name={name}: no such task in {where}; {hint}")
    if kind != "task":
        raise ConfigError(f"task.name={name}: is a {kind} of tasks; name one of them, or several with commas")
    definition = _parsed(name, file.parent)
    if definition is None:
        raise ConfigError(f"task.name={name}: {file} cannot be read; install lm_eval again")
    return definition


def _parsed(name: str, folder: Path) -> Definition | None:
    from lm_eval.tasks import TaskManager

    with quiet():
        manager = TaskManager(include_defaults=False, include_path=str(folder))
    entry = manager.task_index.get(name)
    return None if entry is None or entry.cfg is None else Definition(name=name, manager=manager, config=entry.cfg)


@cache
def _known() -> Mapping[str, tuple[str, Path]]:
    """Return kind and file of everything that the package names; a task wins over a group of its name."""
    spec = importlib.util.find_spec("lm_eval")
    assert spec is not None and spec.origin is not None
    found: dict[str, tuple[str, Path]] = {}
    for file in sorted((Path(spec.origin).parent / "tasks").rglob("*.yaml")):
        for kind, name in _NAMED.findall(file.read_text(encoding="utf-8", errors="replace")):
            if kind == "task" or name not in found:
                found[name] = (kind, file)
    return found


def _against(config: Mapping[str, Any]) -> str:
    """Return why a task cannot be measured here, and what would do, or nothing."""
    if isinstance(config.get("task"), list):
        return "is a group of tasks; name one of them, or several with commas"
    if (kind := config.get("output_type", "generate_until")) != "generate_until" and "class" not in config:
        return f"asks for {kind}, and decoding is what is measured here; choose a task of generate_until"
    if config.get("unsafe_code"):
        return "runs programs of the model outside a sandbox; use task=humaneval, task=mbpp or task=mbpp_sanitized"
    if config.get("doc_to_image") or config.get("doc_to_audio"):
        return "asks about images or sound, and models here read text; choose a task of text"
    if (repeats := config.get("repeats", 1)) != 1:
        return f"asks for {repeats} answers per question, and here every answer is scored; choose one without repeats"
    return ""
