"""Queries read what they need, a run at a time, however large the store is."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from harness.results.scan import Scan
from harness.results.store import Store
from tests.large.__main__ import QUERIES
from tests.large.filled import fill

ROWS = 20_000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return a small one of the large stores."""
    folder = tmp_path_factory.mktemp("large")
    fill(folder, ROWS)
    return Store(root=folder)


@pytest.mark.parametrize("query", QUERIES)
def test_a_large_store_answers(query: str, store: Store):
    """Guards the benchmark against asking what no longer is."""
    assert QUERIES[query](store, ROWS) > 0


def test_only_the_columns_asked_for_are_read(store: Store, monkeypatch: pytest.MonkeyPatch):
    """Guards the memory of queries over millions of rows: all others stay on the disk."""
    asked: list[list[str] | None] = []
    real = pq.ParquetFile.read_row_group

    def read(self, at, columns=None, **named):
        asked.append(columns)
        return real(self, at, columns, **named)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", read)
    run_ids = [one.run_id for one in store.attempts()[:2]]
    found = store.read("samples", run_ids, ["nfe"])
    assert asked == [["setting_id", "run_id", "attempt", "nfe"]] * 2
    assert found.column_names == asked[0] and found.num_rows == 1000


def test_columns_of_single_files_are_those_of_packs(tmp_path: Path, store: Store):
    """Guards queries against a store that is not compacted."""
    from tests.results.factory import add_run

    single = Store(root=tmp_path)
    add_run(single, "a")
    packed = store.read("samples", columns=["nfe", "correct"])
    assert single.read("samples", columns=["nfe", "correct"]).schema.equals(packed.schema)
    assert single.read("samples", columns=["nfe"])["nfe"].to_pylist() == [4, 4]
    assert single.read("runs", columns=["nfe"]).column_names == packed.column_names[:-1]
    assert len(Scan(store.folder).packs) == 1
