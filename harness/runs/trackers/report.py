"""What a tracker is told of an attempt: the same whether it has just ended or lies in a store."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

_TAGS = ("model", "method", "task", "measure", "status")
_CONFIG = ("setting", "setting_id", "run_id", "attempt", "device", "git_commit", "dirty", "packages_sha256",
           "lock_sha256", "driver", "attention_kernel", "threads", "throttled", "busy", "produced_by")  # fmt: skip
_PER_SAMPLE = ("sample_id", "output_text", "correct", "nfe", "query_tokens", "tokens_out", "latency_s", "detail")
_OF_THE_STORE = ("sample_rows", "step_rows")


@dataclass(frozen=True, kw_only=True)
class Report:
    """One attempt for one sweep: its `id` is the attempt's, with the sweep's name where another sweep made it.

    `tags` are few words to choose by, `config` what was asked and on what it rests, `summary` what came out; `rows` are
    one per sample, with `columns`.
    """

    id: str
    name: str
    sweep: str | None
    tags: Mapping[str, str]
    config: Mapping[str, Any]
    summary: Mapping[str, float | str]
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]
    failed: bool


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture of a sweep; its `id` changes with its content."""

    sweep: str
    file: Path

    @property
    def id(self) -> str:
        """Name of its report."""
        return f"figure-{hashlib.sha256(self.sweep.encode() + self.file.read_bytes()).hexdigest()[:12]}"

    @property
    def name(self) -> str:
        """What people read."""
        return f"{self.sweep} figure"


def report_of(run: Row, samples: Sequence[Row], asked_as: str | None) -> Report:
    """Return what is told of a run, given by its rows, to the sweep `asked_as`."""
    told = " ".join(str(run[column]) for column in ("model", "setting", "task") if run[column])
    numbers = {k: v for k, v in run.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    words = {column: run[column] for column in ("status", "error") if run[column]}
    return Report(
        id=id_of(run, asked_as),
        name=told,
        sweep=asked_as,
        tags={column: str(run[column]) for column in _TAGS if run[column]},
        config={**json.loads(run["config"] or "{}"), **{column: run[column] for column in _CONFIG}},
        summary={k: v for k, v in numbers.items() if k not in _OF_THE_STORE} | words,
        columns=_PER_SAMPLE,
        rows=[[row[c] for c in _PER_SAMPLE] for row in samples if row["repetition"] == 0],
        failed=run["status"] != "ok",
    )


def id_of(run: Row, asked_as: str | None) -> str:
    """Return the name of the report of a run to a sweep."""
    attempt = f"{run['run_id']}-{run['attempt']}"
    return attempt if asked_as in (None, run["name"]) else f"{attempt}-{re.sub(r'[^A-Za-z0-9_-]', '_', asked_as)}"
