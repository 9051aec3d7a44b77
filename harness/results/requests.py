"""Which sweep asked for which run: the table `requests`, one file per sweep.

Runs are stored once, under the name of who made them. A sweep that takes them from the store has its own name for them;
names, tables and reports of sweeps are complete because it is written here.
"""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from harness.results.parts import UNREADABLE, Row, as_rows, broken, skipped, table_of, write_table
from harness.results.schemas import SCHEMAS
from harness.results.store import Store


@dataclass(frozen=True, kw_only=True)
class Requests:
    """Rows of the table `requests`, oldest first."""

    rows: list[Row] = field(default_factory=list)

    def names(self) -> dict[str, list[str]]:
        """Return the names of the sweeps that asked for each run, by `run_id`."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            if row["name"]:
                found.setdefault(str(row["run_id"]), []).append(str(row["name"]))
        return found


def new_sweep() -> str:
    """Return a name for a sweep that no other has."""
    return uuid.uuid4().hex[:12]


def write_requests(store: Store, sweep_id: str, rows: Sequence[Row]) -> None:
    """Add the requests of a sweep: rows with all columns of the schema but `sweep_id`."""
    with store.writing():
        store.folder.make("requests")
        table = table_of("requests", [{**row, "sweep_id": sweep_id} for row in rows])
        write_table(store.folder, f"requests/{sweep_id}.parquet", table)


def read_requests(store: Store) -> Requests:
    """Return all requests; a file that cannot be read is left out, with a warning."""
    rows = [row for table in _tables(store) for row in as_rows(table)]
    return Requests(rows=sorted(rows, key=lambda row: (row["created"], row["sweep_id"])))


def _tables(store: Store) -> Iterator[pa.Table]:
    for name in sorted(store.folder.names("requests")):
        if name.startswith(".") or not name.endswith(".parquet"):
            continue
        try:
            content = pa.BufferReader(store.folder.read(f"requests/{name}"))
            yield pq.ParquetFile(content, page_checksum_verification=True).read(SCHEMAS["requests"].names)
        except UNREADABLE as error:
            skipped(store.folder.where(f"requests/{name}"), broken(error))
