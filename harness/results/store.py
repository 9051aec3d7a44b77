"""Three append-only parquet tables: `runs`, `samples`, `steps`; one file per table and attempt.

A file appears whole, samples and steps before the run: a run that is visible is whole, without locks and with any
number of parallel jobs. Files are never changed. Attempts at a setting are numbered, and a number is claimed before it
is used, so that the newest one does not hang on anybody's clock. A file's name says what is in it, so that finding a
run reads no file: `SETTING.ATTEMPT.RUN.STATUS.parquet`.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

import pyarrow as pa

from harness.errors import ConfigError, DataError, MissingDependency, one_line
from harness.results.files import Folder
from harness.results.parts import Attempt, Row, as_rows, columns_of, table_of, write_table
from harness.results.scan import Scan
from harness.results.schemas import RESULTS, SCHEMAS, empty


@dataclass(frozen=True, kw_only=True)
class Store:
    """The results under `root`, a folder or a URL that fsspec knows; it need not exist before the first write."""

    root: Path | str

    @cached_property
    def folder(self) -> Folder:
        """Where the files are; raises ConfigError, and MissingDependency without the package of a file system."""
        try:
            return Folder.at(self.root)
        except ConfigError as error:
            raise ConfigError(f"results_dir={error}") from error
        except ImportError as error:
            how = "pip install 'decbench[s3]' brings s3fs"
            raise MissingDependency(f"results_dir={self.root}: {one_line(error)} ({how})") from error

    def prepare(self) -> None:
        """Create the folders, so that a run fails before its work and not after it.

        Raises DataError where they cannot be written.
        """
        with self.writing():
            for table in RESULTS:
                self.folder.make(table)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn errors of the file system into a DataError that names the store."""
        try:
            yield
        except OSError as error:
            why = error.strerror or one_line(error).removeprefix("OSError: ")
            raise DataError(
                f"results_dir={self.root}: cannot be written ({why}); choose another: results_dir=PATH or URL"
            ) from error

    def write(self, run: Row, samples: Sequence[Row] = (), steps: Sequence[Row] = ()) -> int:
        """Add one attempt and return its number.

        A row has exactly the columns of its schema, None where unknown; those of `NAMES` need to be given in `run`
        only, and there without `attempt`. Raises DataError for other columns, a value of a wrong type and an
        unwritable folder.
        """
        self.prepare()
        run = {**run, "sample_rows": len(samples), "step_rows": len(steps)}
        setting_id, run_id, status = str(run["setting_id"]), str(run["run_id"]), str(run["status"])
        with self.writing(), self._claimed(setting_id) as number:
            attempt = Attempt(setting_id=setting_id, number=number, run_id=run_id, status=status)
            named = {"setting_id": setting_id, "run_id": run_id, "attempt": number}
            tables = {
                "samples": table_of("samples", [{**row, **named} for row in samples]),
                "steps": table_of("steps", [{**row, **named} for row in steps]),
                "runs": table_of("runs", [{**run, "attempt": number}]),
            }
            for name, table in tables.items():
                if name == "runs" or table.num_rows:
                    write_table(self.folder, f"{name}/{attempt.file}", table)
        return number

    def note_error(self, run_id: str, text: str) -> None:
        """Keep the traceback of a failed run."""

        def fill(file: IO[bytes]) -> None:
            file.write(text.encode(errors="backslashreplace"))

        with self.writing():
            self.folder.make("errors")
            self.folder.write(f"errors/{run_id}.txt", fill)

    def attempts(self) -> list[Attempt]:
        """Return every attempt, by setting and number."""
        return Scan(self.folder).attempts

    def newest(self, run_ids: Iterable[str] | None = None) -> list[Attempt]:
        """Return the newest attempt of every run, or of some: the newest good one where there is one.

        Of all runs, those that failed or were skipped are left out where another attempt at their setting is good.
        """
        return newest_of(self.attempts(), run_ids)

    def read(self, table: str, run_ids: Iterable[str] | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all rows of a table, or those of some runs: one attempt per run, samples and steps of good ones.

        Of some `columns` nothing else is read, beside those that name the rows. A file that cannot be trusted is left
        out and logged as a warning that names it and says how to go on.
        """
        return self.chosen(run_ids).table(table, columns)

    def chosen(self, run_ids: Iterable[str] | None = None) -> "Chosen":
        """Return the newest attempts of all runs, or of some, to be read a part at a time."""
        scan = Scan(self.folder)
        return Chosen(scan=scan, attempts=newest_of(scan.attempts, run_ids))

    def completed(self, run_id: str) -> Row | None:
        """Return the row of the newest good attempt of a run that is whole, samples and steps included, or None."""
        return Scan(self.folder, about=run_id).completed(run_id)

    def latest_of(self, setting_id: str) -> Row | None:
        """Return the row of the newest good attempt at a setting, whatever produced it, or None."""
        scan = Scan(self.folder, about=setting_id)
        good = [one for one in scan.attempts if one.setting_id == setting_id and one.ok]
        rows = map(scan.run, reversed(good))
        return next((as_rows(row)[0] for row in rows if row is not None), None)

    @contextmanager
    def _claimed(self, setting_id: str) -> Iterator[int]:
        """Yield the next number of a setting, held against every other writer until the files are in place."""
        number = 1 + max(self._numbers(setting_id), default=0)
        while True:
            claim = f"runs/.{setting_id}.{number:06d}.claim"
            try:
                self.folder.create(claim)
            except FileExistsError:
                number += 1
                continue
            try:
                # Whoever held the claim before may have written between the look and the claim.
                if number not in self._numbers(setting_id):
                    yield number
                    return
            finally:
                self.folder.remove(claim)
            number += 1

    def _numbers(self, setting_id: str) -> set[int]:
        scan = Scan(self.folder, about=setting_id)
        return {one.number for one in scan.attempts if one.setting_id == setting_id}


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Some attempts of a store as it was at one look."""

    scan: Scan
    attempts: Sequence[Attempt]

    def parts(self, table: str, columns: Sequence[str] | None = None) -> Iterator[tuple[Attempt, pa.Table]]:
        """Yield good attempts with their rows of samples or steps, in no order; a few at a time are in memory."""
        return self.scan.parts([one for one in self.attempts if one.ok], table, columns)

    def table(self, table: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows of all attempts."""
        schema = columns_of(table, columns) if columns else SCHEMAS[table]
        if table == "runs":
            return self.scan.rows(self.attempts, columns)
        parts = dict(self.parts(table, columns))
        return pa.concat_tables([empty(schema), *(parts[one] for one in self.attempts if one in parts)])


def newest_of(attempts: Iterable[Attempt], run_ids: Iterable[str] | None = None) -> list[Attempt]:
    """Return what `Store.newest` does, of some attempts."""
    attempts = list(attempts)
    if run_ids is None:
        good = {attempt.setting_id for attempt in attempts if attempt.ok}
        chosen = [attempt for attempt in attempts if attempt.ok or attempt.setting_id not in good]
    else:
        wanted = set(run_ids)
        chosen = [attempt for attempt in attempts if attempt.run_id in wanted]
    by_run = {one.run_id: one for one in sorted(chosen, key=lambda one: (one.ok, one.number))}
    return sorted(by_run.values())
