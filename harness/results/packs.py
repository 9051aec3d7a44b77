"""Packs: many attempts in one file per table, `packed.ID.parquet`, for stores of thousands of runs.

The metadata of a pack's files name the attempts in them: of `runs` one row each, of the other tables one group of rows
each, so that one attempt is read, and spoiled, alone. `ID` is told by the attempts: whoever packs the same ones writes
the same files. Files are packed in the order in which they are written (runs last), and what was packed is removed when
the pack has been read back: whenever that is interrupted, nothing is lost, and packing again ends it.
"""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from harness.results.files import Folder
from harness.results.parts import UNREADABLE, Attempt, broken, rows_of, skipped, trusted
from harness.results.schemas import NAMES, SCHEMAS

TABLES = ("steps", "samples", "runs")
"""In the order in which they are written: what shows a run comes last."""

PACK = re.compile(r"packed\.[0-9a-f]+\.parquet")
AT_MOST = 256
_ATTEMPTS = b"attempts"


@dataclass(frozen=True, kw_only=True)
class Pack:
    """The files of one name in every table; each is opened once, when it is asked for."""

    folder: Folder
    name: str

    @cached_property
    def attempts(self) -> list[Attempt]:
        """Return the attempts in it; none, with a warning, where the file of runs is broken."""
        return self._attempts_in("runs")

    def run(self, attempt: Attempt, columns: Sequence[str] | None = None) -> pa.Table | None:
        """Return the row of an attempt, or some columns of it; None, with a warning, where it cannot be trusted."""
        rows = self._runs(tuple(columns) if columns else None)
        if rows is None:
            return None
        row = rows.slice(self._place[attempt], 1)
        return trusted(row, self._path("runs"), "runs", attempt, 1, columns)

    def part(self, attempt: Attempt, table: str, rows: int, columns: Sequence[str] | None = None) -> pa.Table | None:
        """Return the rows of an attempt in another table, or some columns; None, with a warning, if not to be trusted.

        Of the columns only those are read.
        """
        file = self._file(table)
        if file is None or attempt not in self._groups(table):
            skipped(self._path(table), f"lacks {attempt.file}")
            return None
        try:
            group = file.read_row_group(self._groups(table)[attempt], columns and [*NAMES, *columns])
        except UNREADABLE as error:
            skipped(self._path(table), broken(error))
            return None
        return trusted(group, self._path(table), table, attempt, rows, columns)

    def remove(self) -> None:
        """Remove the files, runs first, so that no run is seen without its samples."""
        for table in reversed(TABLES):
            self.folder.remove(f"{table}/{self.name}")

    def holds(self, attempt: Attempt) -> bool:
        """Say whether all rows of an attempt can be read back."""
        run = self.run(attempt)
        if run is None:
            return False
        counts = {table: run[rows_of(table)][0].as_py() for table in TABLES[:-1]}
        return all(not rows or self.part(attempt, table, rows) is not None for table, rows in counts.items())

    @cached_property
    def _place(self) -> dict[Attempt, int]:
        return {attempt: index for index, attempt in enumerate(self.attempts)}

    def _groups(self, table: str) -> dict[Attempt, int]:
        if table not in self._grouped:
            self._grouped[table] = {attempt: index for index, attempt in enumerate(self._attempts_in(table))}
        return self._grouped[table]

    @cached_property
    def _grouped(self) -> dict[str, dict[Attempt, int]]:
        return {}

    @cached_property
    def _opened(self) -> dict[str, pq.ParquetFile | None]:
        return {}

    @cached_property
    def _read(self) -> dict[tuple[str, ...] | None, pa.Table | None]:
        return {}

    def _path(self, table: str) -> str:
        return self.folder.where(f"{table}/{self.name}")

    def _file(self, table: str) -> pq.ParquetFile | None:
        if table not in self._opened:
            try:
                file = self.folder.open(f"{table}/{self.name}")
                self._opened[table] = pq.ParquetFile(file, page_checksum_verification=True, pre_buffer=True)
            except UNREADABLE as error:
                skipped(self._path(table), broken(error))
                self._opened[table] = None
        return self._opened[table]

    def _attempts_in(self, table: str) -> list[Attempt]:
        file = self._file(table)
        told = json.loads((file.metadata.metadata or {}).get(_ATTEMPTS, b"[]")) if file else []
        return [attempt for name in told if (attempt := Attempt.parse(name)) is not None]

    def _runs(self, columns: tuple[str, ...] | None) -> pa.Table | None:
        if columns not in self._read:
            file = self._file("runs")
            try:
                self._read[columns] = file.read(columns and [*NAMES, *columns]) if file else None
            except UNREADABLE as error:
                skipped(self._path("runs"), broken(error))
                self._read[columns] = None
        return self._read[columns]


def write_pack(folder: Folder, attempts: Sequence[Attempt], part: Callable[[Attempt, str], pa.Table | None]) -> Pack:
    """Write a pack of attempts, whose rows `part` tells by table, and return it; one attempt at a time is in memory."""
    name = f"packed.{hashlib.sha256(' '.join(one.file for one in attempts).encode()).hexdigest()[:16]}.parquet"
    for table in TABLES:
        folder.write(f"{table}/{name}", lambda file, table=table: _fill(file, table, attempts, part))
    return Pack(folder=folder, name=name)


def _fill(
    file: IO[bytes], table: str, attempts: Sequence[Attempt], part: Callable[[Attempt, str], pa.Table | None]
) -> None:
    written: list[str] = []
    rows: list[pa.Table] = []
    with pq.ParquetWriter(file, SCHEMAS[table], write_page_checksum=True) as writer:
        for attempt in attempts:
            found = part(attempt, table)
            assert found is not None, "what is packed can be read"
            if found.num_rows:
                written.append(attempt.file)
                rows.append(found)
            if table != "runs" and found.num_rows:
                writer.write_table(rows.pop(), row_group_size=found.num_rows)
        if rows:
            writer.write_table(pa.concat_tables(rows))
        writer.add_key_value_metadata({_ATTEMPTS.decode(): json.dumps(written)})
