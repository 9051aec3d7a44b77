"""Three append-only parquet tables: `runs`, `samples`, `steps`; one file per table and attempt of a run.

A file is written under a temporary name and moved into place, samples and steps before the run: a run that is
visible is whole, without locks and with any number of parallel jobs. Files are never changed. A run that was
written twice is read from its newest successful attempt, or from its newest one when none succeeded.
"""

import logging
import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from harness.errors import DataError
from harness.results.schemas import SCHEMA_VERSION, SCHEMAS

Row = Mapping[str, object]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Store:
    """The results under folder `root`, which need not exist before the first write."""

    root: Path

    def prepare(self) -> None:
        """Create the folders, so that a run fails before its work and not after it.

        Raises DataError where they cannot be written.
        """
        for table in SCHEMAS:
            folder = self.root / table
            try:
                folder.mkdir(parents=True, exist_ok=True)
                probe = folder / f".{uuid.uuid4().hex}"
                probe.touch()
                probe.unlink()
            except OSError as error:
                raise _unwritable(self.root, error) from error

    def write(self, run: Row, samples: Sequence[Row] = (), steps: Sequence[Row] = ()) -> None:
        """Add one attempt of a run.

        Every row has exactly the columns of its schema (None where unknown); `run["created"]` is an aware
        datetime. Raises DataError for other columns, a value of a wrong type and an unwritable folder.
        """
        tables = {"samples": _table("samples", samples), "steps": _table("steps", steps), "runs": _table("runs", [run])}
        created = run["created"]
        assert isinstance(created, datetime) and created.tzinfo, "created must be an aware datetime"
        attempt = f"{run['run_id']}-{created:%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:6]}"
        self.prepare()
        for name, table in tables.items():
            if name == "runs" or table.num_rows:
                self._move_into_place(table, self.root / name / f"{attempt}.parquet")

    def read(self, table: str, run_ids: Iterable[str] | None = None) -> pa.Table:
        """Return all rows of a table, or those of some runs: one attempt per run, samples and steps of successful ones.

        A file that cannot be read is skipped and logged as a warning that names it and says how to go on.
        """
        attempts = self._attempts(None if run_ids is None else list(dict.fromkeys(run_ids)))
        if table == "runs":
            parts = list(attempts.values())
        else:
            paths = [self.root / table / path.name for path, run in attempts.items() if _expects(table, run)]
            parts = [part for path in paths if (part := _read_file(path, table)) is not None]
        return pa.concat_tables([SCHEMAS[table].empty_table(), *parts])

    def completed(self, run_id: str) -> bool:
        """Say whether a successful attempt of the run is stored with its samples."""
        return any(
            run["status"][0].as_py() == "ok" and _read_file(self.root / "samples" / path.name, "samples") is not None
            for path, run in self._attempts([run_id]).items()
        )

    def _attempts(self, run_ids: list[str] | None) -> dict[Path, pa.Table]:
        patterns = ["*.parquet"] if run_ids is None else [f"{run_id}-*.parquet" for run_id in run_ids]
        chosen: dict[str, tuple[tuple[bool, datetime], Path, pa.Table]] = {}
        for path in (path for pattern in patterns for path in sorted((self.root / "runs").glob(pattern))):
            run = _read_file(path, "runs")
            if run is None:
                continue
            row = run.select(["run_id", "status", "created"]).to_pylist()[0]
            rank = (row["status"] == "ok", row["created"])
            if row["run_id"] not in chosen or rank > chosen[row["run_id"]][0]:
                chosen[row["run_id"]] = (rank, path, run)
        return {path: run for _, path, run in chosen.values()}

    def _move_into_place(self, table: pa.Table, path: Path) -> None:
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            pq.write_table(table, temporary)
            os.replace(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise _unwritable(self.root, error) from error


def _expects(table: str, run: pa.Table) -> bool:
    succeeded, traced = run["status"][0].as_py() == "ok", run["measure"][0].as_py() == "traced"
    return succeeded and (table == "samples" or traced)


def _table(name: str, rows: Sequence[Row]) -> pa.Table:
    schema = SCHEMAS[name]
    columns = set(schema.names)
    for row in rows:
        # pyarrow drops unknown keys and fills missing ones without a word.
        if row.keys() != columns:
            unknown, missing = sorted(row.keys() - columns), sorted(columns - row.keys())
            raise DataError(
                f"{name} row: unknown columns {unknown}, missing columns {missing}; give exactly the schema's"
            )
    try:
        return pa.Table.from_pylist(list(rows), schema=schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"{name} row: {error}; give values of the schema's types") from error


def _read_file(path: Path, table: str) -> pa.Table | None:
    schema = SCHEMAS[table]
    try:
        version = int((pq.read_schema(path).metadata or {}).get(b"schema_version", 0))
        if version > SCHEMA_VERSION:
            _log.warning(
                "%s: skipped, written by a newer decbench (columns %d, known %d): update decbench",
                path,
                version,
                SCHEMA_VERSION,
            )
            return None
        # With the schema passed, columns that an older file lacks read as null instead of vanishing for all files.
        content = ds.dataset(path, schema=schema, format="parquet").to_table()
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        _log.warning("%s: skipped, not a whole parquet file (%s): delete it and run the sweep again", path, reason)
        return None
    if table == "runs" and content.num_rows != 1:
        _log.warning(
            "%s: skipped, holds %d run rows instead of 1: delete it and run the sweep again", path, content.num_rows
        )
        return None
    return content


def _unwritable(root: Path, error: OSError) -> DataError:
    return DataError(
        f"results_dir={root}: cannot be written ({error.strerror or error}); choose another: results_dir=PATH"
    )
