"""Parts: the rows of one attempt in one table, as files hold them, and whether they can be trusted."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import IO, Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import DataError
from harness.results.files import Folder
from harness.results.schemas import NAMES, SCHEMA_VERSION, SCHEMAS

Row = Mapping[str, object]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_log = logging.getLogger(__name__)
_FILE = re.compile(r"(?P<setting>[^.]+)\.(?P<attempt>\d+)\.(?P<run>[^.]+)\.(?P<status>\w+)\.parquet")
# Of one row, statistics and dictionaries are as long as the row, and cost readers of many files most of their time.
_FEW_ROWS = {"write_statistics": False, "use_dictionary": False, "compression": "none"}
UNREADABLE = (OSError, ValueError, KeyError, pa.ArrowException)
"""What reading a file that is no whole parquet file raises."""


@dataclass(frozen=True, kw_only=True, order=True)
class Attempt:
    """One attempt at a setting, as the name of its files tells it."""

    setting_id: str
    number: int
    run_id: str
    status: str

    @classmethod
    def parse(cls, file: str) -> Self | None:
        """Return the attempt that a file is named for, or None."""
        match = _FILE.fullmatch(file)
        if match is None:
            return None
        return cls(
            setting_id=match["setting"], number=int(match["attempt"]), run_id=match["run"], status=match["status"]
        )

    @property
    def file(self) -> str:
        """Name of its file in every table."""
        return f"{self.setting_id}.{self.number:06d}.{self.run_id}.{self.status}.parquet"

    def is_about(self, name: str | None) -> bool:
        """Whether it is an attempt at this setting, or of this run; None is all."""
        return name is None or name in (self.setting_id, self.run_id)

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.status == "ok"


def table_of(name: str, rows: Sequence[Row]) -> pa.Table:
    """Return rows as a table; raise DataError for other columns than the schema's, or values of another type."""
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
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeError) as error:
        raise DataError(f"{name} row: {error}; give values of the schema's types") from error


def unfit(name: str, row: Row) -> dict[str, str]:
    """Return the columns of a row whose values a table cannot hold, and why."""
    found: dict[str, str] = {}
    for field in SCHEMAS[name]:
        try:
            pa.array([row[field.name]], type=field.type)
        except (pa.ArrowException, OverflowError, UnicodeError) as error:
            found[field.name] = f"no {field.type}: {str(error).splitlines()[0]}"
    return found


def write_table(folder: Folder, name: str, table: pa.Table) -> None:
    """Write a table as a file with checksums of its pages."""
    options = _FEW_ROWS if table.num_rows == 1 else {}

    def fill(file: IO[bytes]) -> None:
        # Arrow's copy of the schema, which says no more than the columns do, would be two thirds of a file of one row.
        with pq.ParquetWriter(file, table.schema, store_schema=False, write_page_checksum=True, **options) as writer:
            writer.write_table(table)
            writer.add_key_value_metadata(table.schema.metadata or {})

    folder.write(name, fill)


def as_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Return rows as plain values; times by hand, since pyarrow imports pandas for those with a zone."""
    if "created" not in table.column_names:
        return table.to_pylist()
    at = table.column_names.index("created")
    times = [_EPOCH + timedelta(microseconds=made) for made in table["created"].cast(pa.int64()).to_pylist()]
    rows = table.set_column(at, "created", pa.nulls(table.num_rows)).to_pylist()
    for row, made in zip(rows, times, strict=True):
        row["created"] = made
    return rows


def rows_of(table: str) -> str:
    """Return the column of runs that tells how many rows an attempt has in another table."""
    return f"{table.removesuffix('s')}_rows"


def read_part(
    folder: Folder, table: str, attempt: Attempt, rows: int, columns: Sequence[str] | None = None
) -> pa.Table | None:
    """Return the rows of an attempt's own file, or some columns; None, with a warning, where it cannot be trusted."""
    name = f"{table}/{attempt.file}"
    try:
        file = pq.ParquetFile(pa.BufferReader(folder.read(name)), page_checksum_verification=True)
        # Handing one row to other threads takes longer than reading it.
        stored = file.read(columns and [*NAMES, *columns], use_threads=rows > 1)
    except UNREADABLE as error:
        skipped(folder.where(name), broken(error))
        return None
    return trusted(stored, folder.where(name), table, attempt, rows, columns)


def trusted(
    stored: pa.Table, path: str, table: str, attempt: Attempt, rows: int, columns: Sequence[str] | None = None
) -> pa.Table | None:
    """Return a table that is what its name and its run say, with the present columns; else None, with a warning.

    Of which only some `columns` were asked for is returned as it is stored.
    """
    told = stored.schema.metadata or {}
    version = int(told.get(b"schema_version", 0))
    if version > SCHEMA_VERSION:
        _log.warning("%s: skipped, written by a newer decbench (columns %d, known %d): update decbench",
                     path, version, SCHEMA_VERSION)  # fmt: skip
        return None
    try:
        reason = _mismatch(stored, table, told.get(b"table", b"").decode(), attempt, rows)
        if reason is None:
            return stored if columns else with_known_columns(stored, SCHEMAS[table])
    except UNREADABLE as error:
        reason = broken(error)
    skipped(path, reason)
    return None


def skipped(path: str, reason: str) -> None:
    """Say that a file is passed over, and how to go on."""
    _log.warning("%s: skipped, %s: delete it and run the sweep again", path, reason)


def broken(error: BaseException) -> str:
    """Return why a file cannot be read."""
    return f"not a whole parquet file ({(str(error) or type(error).__name__).splitlines()[0]})"


def _mismatch(stored: pa.Table, table: str, told: str, attempt: Attempt, rows: int) -> str | None:
    """Return why a table is not the part that its name and its run say, or None."""
    if told != table:
        return f"holds no {table}"
    if stored.num_rows != rows:
        return f"holds {stored.num_rows} rows instead of {rows}"
    wanted = (attempt.setting_id, attempt.run_id, attempt.number)
    if any(_values(stored[name]) != {value} for name, value in zip(NAMES, wanted, strict=True)):
        return "holds rows of another run"
    return None


def _values(column: pa.ChunkedArray) -> set[object]:
    """Return what is in a column; of one row, at a tenth of what looking for repetitions costs."""
    return set((column.unique() if len(column) > 1 else column).to_pylist())


def columns_of(table: str, columns: Sequence[str]) -> pa.Schema:
    """Return the schema of some columns of a table, with those that name its rows."""
    schema = SCHEMAS[table]
    return pa.schema([schema.field(name) for name in dict.fromkeys([*NAMES, *columns])], metadata=schema.metadata)


def with_known_columns(stored: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the columns of a present schema; those that an older file lacks are null."""
    if stored.schema.equals(schema):
        return stored
    known = set(stored.column_names)
    values = [
        stored[field.name].cast(field.type) if field.name in known else pa.nulls(stored.num_rows, field.type)
        for field in schema
    ]
    return pa.table(values, schema=schema)
