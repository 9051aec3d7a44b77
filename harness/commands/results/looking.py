"""`decbench results list|show|export`: what is stored, on the terminal or elsewhere."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from harness.commands.results.words import Words, none_left, parse
from harness.errors import ConfigError, DataError, listed
from harness.results.export import FORMATS, as_markdown
from harness.results.parts import as_rows
from harness.results.requests import read_requests
from harness.results.scan import Scan
from harness.results.schemas import RUNS
from harness.results.selection import (
    attempt_of,
    matching,
    parse_filters,
    require_column,
    require_places,
    value_of,
    why_none,
)

if TYPE_CHECKING:
    from rich.table import Table

_LISTED = ("run_id", "status", "name", "model", "setting", "task", "n", "accuracy", "nfe", "tpf", "created")
_EXPORTED = ("model", "setting", "task", "n", "accuracy", "accuracy_low", "accuracy_high", "nfe", "tpf", "efe",
             "query_tokens", "latency_s")  # fmt: skip
_SAMPLES_NAMED = 10


def list_runs(argv: Sequence[str]) -> int:
    """Print one line per run that passes the filters."""
    words = parse(argv, flags=("--all", "--json"))
    none_left(words.names)
    rows = _found(words, _LISTED, every_attempt="--all" in words.flags)
    if "--json" in words.flags:
        sys.stdout.write(json.dumps(rows, default=str) + "\n")
        return 0
    if sys.stdout.isatty():
        from harness.commands.console import console

        console().print(_grid(rows), highlight=False)
    else:
        sys.stdout.write(as_markdown(rows, _LISTED))
    sys.stdout.write(f"{len(rows)} runs in {words.store.root}\n")
    return 0


def show_runs(argv: Sequence[str]) -> int:
    """Print all that is known of one run."""
    words = parse(argv, flags=("--json",))
    if len(words.rest) != 1:
        raise ConfigError(f"show {' '.join(words.rest)}: takes one run; decbench results list names them")
    scan = Scan(words.store.folder)
    attempt = attempt_of(scan.attempts, words.rest[0])
    run = scan.run(attempt)
    if run is None:
        raise DataError(f"{attempt.run_id}: its row cannot be read; run it again, or: decbench results delete")
    row = as_rows(run)[0]
    row["asked_for_by"] = sorted({*read_requests(words.store).names().get(attempt.run_id, ())})
    row["attempts"] = [one.number for one in scan.attempts if one.run_id == attempt.run_id]
    if "--json" in words.flags:
        sys.stdout.write(json.dumps(row, default=str) + "\n")
        return 0
    width = max(map(len, row))
    for name, value in row.items():
        if value is not None and value != []:
            sys.stdout.write(f"{name:{width}}  {_told(name, value, width)}\n")
    return 0


def export_runs(argv: Sequence[str]) -> int:
    """Write the runs that pass the filters in another format."""
    words = parse(argv, options=("--format", "--columns", "--output"))
    none_left(words.names)
    form = words.options.get("--format", "csv")
    if form not in FORMATS:
        raise ConfigError(f"--format={form}: no such format; known: {', '.join(FORMATS)}")
    chosen = words.options.get("--columns")
    columns = tuple(chosen.split(",")) if chosen else tuple(RUNS.names) if form == "csv" else _EXPORTED
    for name in columns:
        require_column(name, f"--columns={name}")
    rows = _found(words, columns)
    require_places(rows, columns, "--columns")
    text = FORMATS[form]([{name: value_of(row, name) for name in columns} for row in rows], columns)
    if not words.written("--output", text):
        sys.stdout.write(text)
    return 0


def _found(words: Words, columns: Sequence[str], *, every_attempt: bool = False) -> list[dict[str, Any]]:
    """Return the runs that pass the filters; say on stderr why there are none."""
    scan, filters, names = Scan(words.store.folder), parse_filters(words.filters), read_requests(words.store).names()
    rows = matching(scan, filters, columns, every_attempt=every_attempt, names=names)
    if not rows:
        sys.stderr.writelines(f"{line}\n" for line in why_none(scan, filters, names))
    return rows


def _grid(rows: Sequence[Mapping[str, Any]]) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(*_LISTED, box=box.SIMPLE_HEAD, padding=0)
    for row in rows:
        table.add_row(*(_cell(row[name]) for name in _LISTED))
    return table


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:%Y-%m-%d %H:%M}" if isinstance(value, datetime) else str(value)


def _told(name: str, value: object, width: int) -> str:
    """Return a value for reading: what is JSON on lines of its own."""
    if name in ("config", "provenance", "produced_by") and isinstance(value, str):
        inner = json.loads(value)
        return f"\n{' ' * (width + 2)}".join(f"{key}: {json.dumps(part)}" for key, part in inner.items())
    return listed(value, _SAMPLES_NAMED) or "none" if isinstance(value, list) else str(value)
