"""Finished batches of a run that is not finished: kept apart, where no reader looks, until the run is stored.

They lie in `partial/RUN_ID` of the store: pairs of parquet files, steps before samples, so that a pair is there when
its samples are. The names of the pairs are random: several processes may work on one run; they decode the same rows.
"""

import json
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from harness.results.files import Folder
from harness.results.parts import UNREADABLE, table_of, write_table
from harness.results.schemas import SCHEMA_VERSION
from harness.runs.street import Batch, Row

_LOG = logging.getLogger(__name__)
_TABLES = ("steps", "samples")
_LAST = f".{_TABLES[-1]}.parquet"


class KeepsNothing:
    """For timed runs: their seconds belong together, so that they start anew."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def take_over(self, sample_ids: Sequence[str]) -> Sequence[Batch]:
        """Return nothing."""
        return []

    def keep(self, batch: Batch) -> None:
        """Do nothing."""

    def discard(self) -> None:
        """Do nothing."""


@dataclass(kw_only=True)
class Unfinished:
    """The batches of run `run_id`, written after `every_s` seconds of decoding at the earliest, and when it stops.

    As a context it writes what waits when an exception or a signal ends the run. What cannot be written is warned of
    and lost, not the run. `clock` tells seconds.
    """

    folder: Folder
    setting_id: str
    run_id: str
    every_s: float
    clock: Callable[[], float] = time.monotonic
    _waiting: list[Batch] = field(default_factory=list)
    _written_at: float = 0.0

    def __enter__(self) -> Self:
        self._written_at = self.clock()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.write()

    def take_over(self, sample_ids: Sequence[str]) -> Sequence[Batch]:
        """Return the batches that earlier starts have finished; of several that have a sample, the first."""
        names = [name for name in self.folder.names(self._place) if not name.startswith(".")]
        pairs = [name.removesuffix(_LAST) for name in sorted(names) if name.endswith(_LAST)]
        found, known = list[Batch](), set[tuple[int, int]]()
        for one in (one for pair in pairs for one in self._read(pair)):
            own = {(one.repetition, at) for at in one.places}
            ids = [sample_ids[at] if at < len(sample_ids) else None for at in one.places]
            if [row["sample_id"] for row in one.samples] == ids and not own & known:
                found.append(one)
                known |= own
        if found:
            samples = sum(len(one.samples) for one in found)
            _LOG.warning("%s goes on where it was stopped: %d samples are decoded already", self.run_id, samples)
        return found

    def keep(self, batch: Batch) -> None:
        """Have a finished batch written before long."""
        self._waiting.append(batch)
        if self.clock() - self._written_at >= self.every_s:
            self.write()

    def discard(self) -> None:
        """Remove all: the run is stored, or is to be started anew."""
        try:
            self.folder.remove_folder(self._place)
        except OSError as error:
            # Somebody else may be writing there.
            _LOG.info("%s: %s", self.folder.where(self._place), error)

    @property
    def _place(self) -> str:
        return f"partial/{self.run_id}"

    def write(self) -> None:
        """Write what waits."""
        if not self._waiting:
            return
        name = f"{self._place}/{uuid.uuid4().hex}"
        layout = [[one.repetition, [*one.places], len(one.steps), [*one.warnings]] for one in self._waiting]
        told = {"schema_version": str(SCHEMA_VERSION), "batches": json.dumps(layout)}
        try:
            self.folder.make(self._place)
            for kind in _TABLES:
                rows = [row | self._names for one in self._waiting for row in getattr(one, kind)]
                write_table(self.folder, f"{name}.{kind}.parquet", table_of(kind, rows).replace_schema_metadata(told))
        except OSError as error:
            _LOG.warning("%s: finished batches could not be kept (%s)", self.folder.where(name), error)
        self._waiting, self._written_at = [], self.clock()

    @property
    def _names(self) -> dict[str, Any]:
        return {"setting_id": self.setting_id, "run_id": self.run_id, "attempt": None}

    def _read(self, name: str) -> list[Batch]:
        """Return the batches of a pair of files; none, with a warning, where it is not whole or of another run."""
        try:
            steps, samples = (self._table(f"{name}.{kind}.parquet") for kind in _TABLES)
            batches = list(_batches(samples, steps))
        except (*UNREADABLE, TypeError) as error:
            where = self.folder.where(f"{self._place}/{name}")
            _LOG.warning("%s: finished batches are decoded again (%s)", where, str(error).splitlines()[0])
            return []
        return batches

    def _table(self, file: str) -> pa.Table:
        content = self.folder.read(f"{self._place}/{file}")
        table = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True).read()
        told = table.schema.metadata or {}
        if told.get(b"schema_version") != str(SCHEMA_VERSION).encode():
            raise ValueError("written by another version")
        if {*table["run_id"].to_pylist()} - {self.run_id}:
            raise ValueError("of another run")
        return table


def _batches(samples: pa.Table, steps: pa.Table) -> list[Batch]:
    """Return what two tables hold, as their metadata lays it out."""
    layout = json.loads(samples.schema.metadata[b"batches"])
    rows, step_rows = _rows(samples), _rows(steps)
    sizes = [(len(places), count) for _, places, count, _ in layout]
    ends = [list(accumulate((one[column] for one in sizes), initial=0)) for column in (0, 1)]
    if steps.schema.metadata[b"batches"] != samples.schema.metadata[b"batches"]:
        raise ValueError("samples and steps differ")
    if (ends[0][-1], ends[1][-1]) != (len(rows), len(step_rows)):
        raise ValueError("rows are missing")
    return [
        Batch(repetition=repetition, places=places, samples=rows[a:b], steps=step_rows[c:d], warnings=(*warnings,))
        for (repetition, places, _, warnings), (a, b), (c, d) in zip(layout, *map(pairwise, ends), strict=True)
    ]


def _rows(table: pa.Table) -> list[Row]:
    return table.drop_columns(["setting_id", "run_id", "attempt"]).to_pylist()


def decoded_so_far(folder: Folder, run_id: str) -> int:
    """Return how many decodings of a run are kept that has not ended; files that cannot be read do not count."""
    place, count = f"partial/{run_id}", 0
    for name in folder.names(place):
        if name.endswith(_LAST) and not name.startswith("."):
            with suppress(*UNREADABLE), folder.open(f"{place}/{name}") as file:
                count += pq.read_metadata(file).num_rows
    return count
