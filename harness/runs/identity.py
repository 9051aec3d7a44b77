"""The name of a run: a hash of everything that can change its outputs, and of nothing else.

Two runs with one id have the same outputs, so a stored one need not be run again. The hash covers the canonical JSON
(sorted keys, no blanks) of the resolved config, the sha256 of the checkpoint, the version of the task and ID_VERSION.
Left out are `UNRELATED` keys of the root, `DESCRIPTIVE` keys at any depth, the path of a checkpoint whose digest is
known, and that of a checkout whose sentences ask: the version of the task has their digest. A protocol is part through
the task, which has its name and every value that it gave. `measure` and `batch_size` are part: a timed run stores other
columns than a counted one, and a latency depends on the rows beside the sample.
"""

import hashlib
import json
from collections.abc import Mapping

ID_VERSION = 1
"""Raise this when a change of the harness gives old settings new outputs."""

UNRELATED = frozenset(
    {
        "tracker",
        "launch",
        "results_dir",
        "resume",
        "on_error",
        "name",
        "figure",
        "points",
        "axes",
        "hydra",
        "progress",
        "protocol",
        "sandbox",
    }
)
DESCRIPTIVE = frozenset({"summary", "paper", "notes", "license"})

_LENGTH = 12


def run_id(config: Mapping[str, object], *, checkpoint_sha256: str | None, task_version: int | str) -> str:
    """Return the 12 hex digits that name a run with this resolved config."""
    parts = {
        "config": _relevant({k: v for k, v in config.items() if k not in UNRELATED}),
        "checkpoint_sha256": checkpoint_sha256,
        "task_version": task_version,
        "id_version": ID_VERSION,
    }
    model = parts["config"].get("model")  # type: ignore[union-attr]
    if checkpoint_sha256 is not None and isinstance(model, dict):
        model.pop("path", None)
    task = parts["config"].get("task")  # type: ignore[union-attr]
    if isinstance(task, dict):
        task.pop("wording", None)
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:_LENGTH]


def canonical_json(value: object) -> str:
    """Return the one JSON text of a value, whatever the order of its keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _relevant(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(k): _relevant(v) for k, v in value.items() if k not in DESCRIPTIVE}
    if isinstance(value, list | tuple):
        return [_relevant(v) for v in value]
    return value
