"""Three append-only parquet tables: `runs`, `samples`, `steps`; one file per table and attempt.

A file is written under a temporary name and moved into place, samples and steps before the run: a run that is
visible is whole, without locks and with any number of parallel jobs. Files are never changed. Attempts at a setting
are numbered, and a number is claimed before it is used, so that the newest one does not hang on anybody's clock. A
file's name says what is in it, so that finding a run reads no file: `SETTING.ATTEMPT.RUN.STATUS.parquet`.
"""

import logging
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import DataError
from harness.results.schemas import NAMES, SCHEMA_VERSION, SCHEMAS

Row = Mapping[str, object]

_log = logging.getLogger(__name__)
_FILE = re.compile(r"(?P<setting>[^.]+)\.(?P<attempt>\d+)\.(?P<run>[^.]+)\.(?P<status>\w+)\.parquet")


@dataclass(frozen=True, kw_only=True, order=True)
class Attempt:
    """One attempt at a setting, as the name of its files tells it."""

    setting_id: str
    number: int
    run_id: str
    status: str

    @property
    def file(self) -> str:
        """Name of its file in every table."""
        return f"{self.setting_id}.{self.number:06d}.{self.run_id}.{self.status}.parquet"

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.status == "ok"


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

    def write(self, run: Row, samples: Sequence[Row] = (), steps: Sequence[Row] = ()) -> int:
        """Add one attempt and return its number.

        A row has exactly the columns of its schema, None where unknown; those of `NAMES` need to be given in `run`
        only, and there without `attempt`. Raises DataError for other columns, a value of a wrong type and an
        unwritable folder.
        """
        self.prepare()
        run = {**run, "sample_rows": len(samples), "step_rows": len(steps)}
        setting_id, run_id, status = str(run["setting_id"]), str(run["run_id"]), str(run["status"])
        with self._claimed(setting_id) as number:
            attempt = Attempt(setting_id=setting_id, number=number, run_id=run_id, status=status)
            named = {"setting_id": setting_id, "run_id": run_id, "attempt": number}
            tables = {
                "samples": _table("samples", [{**row, **named} for row in samples]),
                "steps": _table("steps", [{**row, **named} for row in steps]),
                "runs": _table("runs", [{**run, "attempt": number}]),
            }
            for name, table in tables.items():
                if name == "runs" or table.num_rows:
                    self._move_into_place(table, self.root / name / attempt.file)
        return number

    def attempts(self) -> list[Attempt]:
        """Return every attempt, by setting and number, from the names of files alone.

        What is no regular file, or has another name, is passed over.
        """
        try:
            with os.scandir(self.root / "runs") as entries:
                found = [match for entry in entries if (match := _FILE.fullmatch(entry.name)) and entry.is_file()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(
            Attempt(setting_id=m["setting"], number=int(m["attempt"]), run_id=m["run"], status=m["status"])
            for m in found
        )

    def newest(self, run_ids: Iterable[str] | None = None) -> list[Attempt]:
        """Return the newest attempt of every run, or of some: the newest good one where there is one.

        Of all runs, those that failed or were skipped are left out where another attempt at their setting is good.
        """
        attempts = self.attempts()
        if run_ids is None:
            good = {attempt.setting_id for attempt in attempts if attempt.ok}
            chosen = [attempt for attempt in attempts if attempt.ok or attempt.setting_id not in good]
        else:
            wanted = set(run_ids)
            chosen = [attempt for attempt in attempts if attempt.run_id in wanted]
        by_run = {one.run_id: one for one in sorted(chosen, key=lambda one: (one.ok, one.number))}
        return sorted(by_run.values())

    def read(self, table: str, run_ids: Iterable[str] | None = None) -> pa.Table:
        """Return all rows of a table, or those of some runs: one attempt per run, samples and steps of good ones.

        A file that cannot be trusted is left out and logged as a warning that names it and says how to go on.
        """
        chosen = self.newest(run_ids)
        if table == "runs":
            parts = [run for one in chosen if (run := self._run(one)) is not None]
        else:
            parts = [part for one in chosen if one.ok and (part := self._part(one, table)) is not None]
        return pa.concat_tables([SCHEMAS[table].empty_table(), *parts])

    def completed(self, run_id: str) -> Row | None:
        """Return the row of the newest good attempt of a run that is whole, samples and steps included, or None."""
        good = [one for one in self.attempts() if one.run_id == run_id and one.ok]
        for one in reversed(good):
            run = self._run(one)
            if run is not None and all(self._part(one, table, run) is not None for table in ("samples", "steps")):
                return run.to_pylist()[0]
        return None

    def latest_of(self, setting_id: str) -> Row | None:
        """Return the row of the newest good attempt at a setting, whatever produced it, or None."""
        good = [one for one in self.attempts() if one.setting_id == setting_id and one.ok]
        rows = (self._run(one) for one in reversed(good))
        return next((row.to_pylist()[0] for row in rows if row is not None), None)

    def _run(self, attempt: Attempt) -> pa.Table | None:
        return _read_file(self.root / "runs" / attempt.file, "runs", attempt, 1)

    def _part(self, attempt: Attempt, table: str, run: pa.Table | None = None) -> pa.Table | None:
        """Return an attempt's rows of samples or steps; None where the run or they cannot be trusted."""
        run = self._run(attempt) if run is None else run
        if run is None:
            return None
        rows = run[f"{table.removesuffix('s')}_rows"][0].as_py()
        if not rows:
            return SCHEMAS[table].empty_table()
        return _read_file(self.root / table / attempt.file, table, attempt, rows)

    @contextmanager
    def _claimed(self, setting_id: str) -> Iterator[int]:
        """Yield the next number of a setting, held against every other writer until the files are in place."""
        number = 1 + max((one.number for one in self.attempts() if one.setting_id == setting_id), default=0)
        while True:
            claim = self.root / "runs" / f".{setting_id}.{number:06d}.claim"
            try:
                claim.touch(exist_ok=False)
            except FileExistsError:
                number += 1
                continue
            except OSError as error:
                raise _unwritable(self.root, error) from error
            try:
                # Whoever held the claim before may have written between the look and the claim.
                if not any((self.root / "runs").glob(f"{setting_id}.{number:06d}.*.parquet")):
                    yield number
                    return
            finally:
                claim.unlink(missing_ok=True)
            number += 1

    def _move_into_place(self, table: pa.Table, path: Path) -> None:
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            pq.write_table(table, temporary, write_page_checksum=True)
            os.replace(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise _unwritable(self.root, error) from error


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
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise DataError(f"{name} row: {error}; give values of the schema's types") from error


def _read_file(path: Path, table: str, attempt: Attempt, rows: int) -> pa.Table | None:
    """Return the content of a file whose pages, columns and rows are those of the attempt, or None with a warning."""
    try:
        stored = pq.read_table(path, page_checksum_verification=True)
        told = stored.schema.metadata or {}
        version = int(told.get(b"schema_version", 0))
        if version > SCHEMA_VERSION:
            _log.warning("%s: skipped, written by a newer decbench (columns %d, known %d): update decbench",
                         path, version, SCHEMA_VERSION)  # fmt: skip
            return None
        reason = _mismatch(stored, table, told.get(b"table", b"").decode(), attempt, rows)
        if reason is None:
            return _with_known_columns(stored, table)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        reason = f"not a whole parquet file ({str(error).splitlines()[0]})"
    _log.warning("%s: skipped, %s: delete it and run the sweep again", path, reason)
    return None


def _mismatch(stored: pa.Table, table: str, told: str, attempt: Attempt, rows: int) -> str | None:
    """Return why a file is not the part of a table that its name and its run say, or None."""
    if told != table:
        return f"holds no {table}"
    if stored.num_rows != rows:
        return f"holds {stored.num_rows} rows instead of {rows}"
    wanted = (attempt.setting_id, attempt.run_id, attempt.number)
    if {*zip(*(stored[name].to_pylist() for name in NAMES), strict=True)} != {wanted}:
        return "holds rows of another run"
    return None


def _with_known_columns(stored: pa.Table, table: str) -> pa.Table:
    """Return the columns of the present schema; those that an older file lacks are null."""
    known = set(stored.column_names)
    columns = [
        stored[field.name].cast(field.type) if field.name in known else pa.nulls(stored.num_rows, field.type)
        for field in SCHEMAS[table]
    ]
    return pa.table(columns, schema=SCHEMAS[table])


def _unwritable(root: Path, error: OSError) -> DataError:
    return DataError(
        f"results_dir={root}: cannot be written ({error.strerror or error}); choose another: results_dir=PATH"
    )
