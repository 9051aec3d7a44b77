"""The evidence of claims as one small file, which can be committed where the store is not.

One row per sample of the runs that verdicts rest on: the numbers that claims speak of, and digests of the answers.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import DataError
from harness.results.claims.evidence import CONDITIONS, MADE, Cell
from harness.results.claims.metrics import COLUMNS
from harness.results.parts import UNREADABLE

_RUN = ("setting_id", "run_id", "task", "model")
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in (*_RUN, "device", "batching", "measure", "git_commit", "packages_sha256")),
        ("batch_size", pa.int32()),
        ("created", pa.timestamp("us", tz="UTC")),
        ("sample_id", pa.string()),
        ("prompt_sha256", pa.string()),
        ("answer_sha256", pa.string()),
        *((name, pa.float64()) for name in COLUMNS),
    ]
)


def write_kept(file: Path, cells: Iterable[Cell]) -> None:
    """Write runs, in the order of their settings; raise DataError where the file cannot be written."""
    rows = [row for cell in sorted(cells, key=lambda one: (one.setting_id, one.run_id)) for row in _rows(cell)]
    try:
        pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), file, compression="zstd", compression_level=19)
    except OSError as error:
        raise DataError(f"{file}: cannot be written ({error.strerror}); name another file") from error


def read_kept(file: Path) -> dict[str, list[Cell]]:
    """Return the runs of a file by setting; raise DataError for one that cannot be read."""
    try:
        rows = pq.read_table(file, schema=_SCHEMA).to_pylist()
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{file}: holds no evidence of claims ({reason}); decbench claims --keep={file}") from error
    runs: dict[str, list[Mapping[str, object]]] = {}
    for row in rows:
        runs.setdefault(row["run_id"], []).append(row)
    found: dict[str, list[Cell]] = {}
    for samples in runs.values():
        cell = _cell(samples)
        found.setdefault(cell.setting_id, []).append(cell)
    return found


def _rows(cell: Cell) -> list[dict[str, Any]]:
    shared = {name: getattr(cell, name) for name in _RUN} | dict(cell.conditions) | dict(cell.made)
    columns = zip(cell.samples, cell.answers, cell.values_NC, strict=True)
    return [
        {**shared, "sample_id": sample, "prompt_sha256": prompt, "answer_sha256": answer}
        | {name: None if np.isnan(value) else float(value) for name, value in zip(COLUMNS, values_C, strict=True)}
        for (sample, prompt), answer, values_C in columns
    ]


def _cell(rows: Sequence[Mapping[str, object]]) -> Cell:
    first = rows[0]
    values = [[np.nan if row[name] is None else row[name] for name in COLUMNS] for row in rows]
    return Cell(
        **{name: str(first[name]) for name in _RUN},
        conditions={name: first[name] for name in CONDITIONS},
        made={name: first[name] for name in MADE},
        samples=tuple((str(row["sample_id"]), str(row["prompt_sha256"])) for row in rows),
        values_NC=np.array(values, dtype=np.float64),
        answers=tuple(str(row["answer_sha256"]) for row in rows),
    )
