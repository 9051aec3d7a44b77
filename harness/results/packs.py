"""Packs: many attempts in one file per table, `packed.ID.parquet`, for stores of thousands of runs.

The metadata of a pack's files name the attempts in them: of `runs` one row each, of the other tables one group of rows
each, so that one attempt is read, and spoiled, alone. `ID` is told by the attempts: whoever packs the same ones writes
the same files. Files are packed in the order in which they are written (runs last), and what was packed is removed when
the pack has been read back: whenever that is interrupted, nothing is lost, and packing again ends it.
"""

import hashlib
import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harness.results.files import Folder
from harness.results.parts import (
    UNREADABLE,
    Attempt,
    broken,
    columns_of,
    rows_of,
    skipped,
    trusted,
    with_known_columns,
)
from harness.results.schemas import NAMES, SCHEMAS

TABLES = ("steps", "samples", "runs")
"""In the order in which they are written: what shows a run comes last."""

PACK = re.compile(r"packed\.[0-9a-f]+\.parquet")
AT_MOST = 256
_ROWS_TOGETHER = 2**15
_ATTEMPTS = b"attempts"
_attempts_of: dict[str, list[Attempt]] = {}
"""Those of the packs that were looked into, by name."""


@dataclass(frozen=True, kw_only=True)
class Pack:
    """The files of one name in every table; each is opened when it is asked for, and stays so until `parts` is done."""

    folder: Folder
    name: str

    @cached_property
    def attempts(self) -> list[Attempt]:
        """Return the attempts in it; none, with a warning, where the file of runs is broken."""
        _attempts_of[self.name] = self._attempts_in("runs")
        return _attempts_of[self.name]

    @property
    def told(self) -> list[Attempt]:
        """The same, without a look into a pack that this process has looked into: its name tells what is in it."""
        return _attempts_of.get(self.name) or self.attempts

    def run(self, attempt: Attempt, columns: Sequence[str] | None = None) -> pa.Table | None:
        """Return the row of an attempt, or some columns of it; None, with a warning, where it cannot be trusted."""
        rows = self._runs(tuple(columns) if columns else None)
        if rows is None:
            return None
        row = rows.slice(self._place[attempt], 1)
        return trusted(row, self._path("runs"), "runs", attempt, 1, columns)

    def rows(self, attempts: Sequence[Attempt], columns: Sequence[str] | None = None) -> pa.Table | None:
        """Return the rows of attempts, or some columns, in their order; None where not all of them can be trusted."""
        stored = self._runs(tuple(columns) if columns else None)
        if stored is None:
            return None
        found = stored.take(np.array([self._place[one] for one in attempts], np.int64))
        return _known(found, dict.fromkeys(attempts, 1), "runs", columns)

    def parts(
        self, rows: Mapping[Attempt, int], table: str, columns: Sequence[str] | None = None
    ) -> Iterator[tuple[Attempt, pa.Table]]:
        """Yield the rows of attempts in another table, or some columns; `rows` says how many each has, some at least.

        Many are read together; where these are not what they should be, each alone, so that one spoils no other. One
        that cannot be trusted is left out, with a warning.
        """
        with ThreadPoolExecutor(max_workers=1) as thread:
            coming: deque[Future[list[tuple[Attempt, pa.Table]]]] = deque()
            for some in _batches(rows):
                coming.append(thread.submit(self._trusted, some, table, columns))
                # The next ones are read while these are used.
                if len(coming) > 1:
                    yield from coming.popleft().result()
            for last in coming:
                yield from last.result()
        # What a file says of its many groups takes more memory than the rows that are asked for.
        self._opened.pop(table, None)

    def _trusted(
        self, rows: Mapping[Attempt, int], table: str, columns: Sequence[str] | None
    ) -> list[tuple[Attempt, pa.Table]]:
        """Return the rows of some attempts that can be trusted."""
        found = self._together(rows, table, columns)
        if found is None:
            return list(self._each(rows, table, columns))
        starts = accumulate(rows.values(), initial=0)
        return [(one, found.slice(start, rows[one])) for one, start in zip(rows, starts, strict=False)]

    def _together(self, rows: Mapping[Attempt, int], table: str, columns: Sequence[str] | None) -> pa.Table | None:
        file, groups = self._file(table), self._groups(table)
        if file is None or not groups.keys() >= rows.keys():
            return None
        try:
            stored = file.read_row_groups([groups[one] for one in rows], columns and [*NAMES, *columns])
            return _known(stored, rows, table, columns)
        except UNREADABLE:
            return None

    def _each(
        self, rows: Mapping[Attempt, int], table: str, columns: Sequence[str] | None
    ) -> Iterator[tuple[Attempt, pa.Table]]:
        schema = columns_of(table, columns) if columns else SCHEMAS[table]
        for attempt, count in rows.items():
            found = self.part(attempt, table, count, columns)
            if found is not None:
                yield attempt, with_known_columns(found, schema)

    def part(self, attempt: Attempt, table: str, rows: int, columns: Sequence[str] | None = None) -> pa.Table | None:
        """Return the rows of an attempt in another table, or some columns; None, with a warning, if not to be trusted.

        Of the columns only those are read.
        """
        file = self._file(table)
        if file is None or attempt not in self._groups(table):
            skipped(self._path(table), f"lacks {attempt.file}")
            return None
        try:
            # One group is read sooner than it is handed to other threads.
            wanted = columns and [*NAMES, *columns]
            group = file.read_row_group(self._groups(table)[attempt], wanted, use_threads=False)
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
        return {attempt: index for index, attempt in enumerate(self.told)}

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
                # Few large requests are for what lies elsewhere.
                far = not self.folder.local
                self._opened[table] = pq.ParquetFile(file, page_checksum_verification=True, pre_buffer=far)
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


def _batches(rows: Mapping[Attempt, int]) -> Iterator[dict[Attempt, int]]:
    """Yield attempts that are read together: few enough for memory, many enough for speed."""
    some: dict[Attempt, int] = {}
    for attempt, count in rows.items():
        if some and sum(some.values()) + count > _ROWS_TOGETHER:
            yield some
            some = {}
        some[attempt] = count
    if some:
        yield some


def _known(stored: pa.Table, rows: Mapping[Attempt, int], table: str, columns: Sequence[str] | None) -> pa.Table | None:
    """Return rows that are those of attempts, one after another, as this version writes them, else None."""
    schema, told = columns_of(table, columns) if columns else SCHEMAS[table], stored.schema.metadata or {}
    if any(told.get(key) != value for key, value in schema.metadata.items()):
        return None
    named = pa.table(
        {
            "setting_id": [one.setting_id for one in rows],
            "run_id": [one.run_id for one in rows],
            "attempt": pa.array([one.number for one in rows], pa.int32()),
        }
    )
    expected = named.take(np.repeat(np.arange(len(rows)), [*rows.values()]))
    return with_known_columns(stored, schema) if stored.select(list(NAMES)).equals(expected) else None


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
