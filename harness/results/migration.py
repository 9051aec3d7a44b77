"""Bringing stores of older columns to the present ones.

Versions 1 and 2 named files `RUN-TIME-HEX.parquet`, knew neither settings nor attempts, and counted the prompt's call
of causal models apart. Migrated runs keep their `run_id`, under a `setting_id` that no present setting has: what code
made them was not recorded, so that nobody takes them for a present run.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.results.parts import UNREADABLE, Attempt, Row, read_part, rows_of, table_of, write_table
from harness.results.schemas import NAMES, SCHEMA_VERSION, SCHEMAS
from harness.results.store import Store

_OLD = re.compile(r"(?P<run>[^.]+)-\d{8}T\d{12}-[0-9a-f]{6}\.parquet")
_LAST_OLD = 2
_KEPT_IN = "migrated"
_OLD_RULE = {
    "runs": ("nfe", "nfe_total", "query_tokens", "layer_tokens", "tpf", "efe"),
    "samples": ("nfe", "nfe_total", "query_tokens", "layer_tokens"),
}
_NOT_COUNTED = "counted without the prompt's call where a run had one; null there"
_REASONS = {
    "produced_by": "code and versions behind a run were not recorded",
    "min_margin": "smallest gap of probabilities, which is no token_margin; not taken over",
}


@dataclass(kw_only=True)
class Migrated:
    """Number of migrated runs; by column what could not be filled and why; files that could not be read."""

    runs: int = 0
    kept_in: str = ""
    unfilled: dict[str, str] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)


def migrate(store: Store) -> Migrated:
    """Write every run of older columns anew, read it back, and then move its old files to the folder `migrated`.

    It can be interrupted, and done again, at any time: the new files of a run have the same names every time.
    """
    done = Migrated(kept_in=store.folder.where(_KEPT_IN))
    with store.writing():
        names = [name for name in store.folder.names("runs") if _OLD.fullmatch(name)]
        found = [(name, row) for name in names if (row := _read_run(store, name, done)) is not None]
        found.sort(key=lambda one: (one[1]["run_id"], one[1]["created"], one[0]))
        if found:
            store.prepare()
        for run_id, group in groupby(found, key=lambda one: str(one[1]["run_id"])):
            for number, (name, row) in enumerate(group, start=1 + _already(store, run_id, names)):
                _migrate_one(store, name, row, number, done)
    return done


def _already(store: Store, run_id: str, names: Collection[str]) -> int:
    """Return how many old files of a run are migrated and moved, which were its oldest.

    One that is there still among `names` was being moved: in object stores that is a copy at first.
    """
    moved = {*store.folder.names(f"{_KEPT_IN}/runs")} - {*names}
    return sum(name.startswith(f"{run_id}-") for name in moved)


def _migrate_one(store: Store, name: str, run: dict[str, Any], number: int, done: Migrated) -> None:
    rows: dict[str, list[Row]] = {"runs": [run]}
    version = run.pop("_version")
    try:
        for table in ("samples", "steps"):
            rows[table] = _rows(store, table, name)
    except UNREADABLE as error:
        done.unreadable.append(f"{store.folder.where(f'{table}/{name}')} ({error})")
        return
    if run["status"] == "ok" and not rows["samples"]:
        done.unreadable.append(f"{store.folder.where(f'runs/{name}')} (its samples are not there)")
        return
    run |= {rows_of(table): len(rows[table]) for table in ("samples", "steps")}
    attempt = Attempt(
        setting_id=f"v{version}-{run['run_id']}", number=number, run_id=run["run_id"], status=run["status"]
    )
    tables = {table: _present(table, some, attempt, version, done) for table, some in rows.items()}
    for table in ("steps", "samples", "runs"):
        if rows[table]:
            write_table(store.folder, f"{table}/{attempt.file}", tables[table])
    for table in rows:
        if rows[table] and read_part(store.folder, table, attempt, len(rows[table])) is None:
            return
    # Runs last: those that are still there are migrated again, if this is interrupted.
    for table in ("steps", "samples", "runs"):
        if store.folder.exists(f"{table}/{name}"):
            store.folder.move(f"{table}/{name}", f"{_KEPT_IN}/{table}")
    done.runs += 1


def _read_run(store: Store, name: str, done: Migrated) -> dict[str, Any] | None:
    try:
        (row,) = _rows(store, "runs", name)
        version = int(row["schema_version"])
        if version > _LAST_OLD:
            raise ValueError(f"columns of version {version} under a name of version {_LAST_OLD}")
    except (*UNREADABLE, TypeError) as error:
        done.unreadable.append(f"{store.folder.where(f'runs/{name}')} ({(str(error) or 'broken').splitlines()[0]})")
        return None
    return row | {"_version": version}


def _rows(store: Store, table: str, name: str) -> list[Any]:
    """Return the rows of an old file, moved already or not; none where there is none."""
    places = [place for place in (f"{table}/{name}", f"{_KEPT_IN}/{table}/{name}") if store.folder.exists(place)]
    if not places:
        return []
    file = pq.ParquetFile(pa.BufferReader(store.folder.read(places[0])))
    if (file.schema_arrow.metadata or {}).get(b"table") != table.encode():
        raise ValueError(f"holds no {table}")
    return file.read().to_pylist()


def _present(table: str, rows: list[Row], attempt: Attempt, version: int, done: Migrated) -> pa.Table:
    """Return old rows with the present columns, and note what could not be filled."""
    names: Row = {"setting_id": attempt.setting_id, "run_id": attempt.run_id, "attempt": attempt.number}
    empty = dict.fromkeys(SCHEMAS[table].names)
    made = [empty | {key: value for key, value in row.items() if key in empty} | names for row in rows]
    for column in _OLD_RULE.get(table, ()):
        for row in made:
            if row["nfe_prefill"]:
                row[column] = None
                done.unfilled[f"{table}.{column}"] = _NOT_COUNTED
    if table == "runs":
        for row in made:
            row["warnings"] = [*_list(row["warnings"]), f"migrated from columns of version {version}"]
            row["schema_version"] = SCHEMA_VERSION
    if table == "steps":
        for row in made:
            row["repetition"] = 0 if row["repetition"] is None else row["repetition"]
    for column, reason in _unfilled(table, rows):
        done.unfilled.setdefault(f"{table}.{column}", reason)
    return table_of(table, made)


def _list(value: Any) -> list[Any]:
    return value or []


def _unfilled(table: str, rows: list[Row]) -> Iterator[tuple[str, str]]:
    old = {*rows[0]} if rows else {*SCHEMAS[table].names}
    filled = {*NAMES, "schema_version", "warnings", "sample_rows", "step_rows", "repetition", "_version"}
    for column in sorted({*SCHEMAS[table].names} - old - filled):
        yield column, _REASONS.get(column, "was not recorded")
    for column in sorted(old - {*SCHEMAS[table].names} - filled):
        yield column, _REASONS.get(column, "has no place among the present columns; not taken over")
