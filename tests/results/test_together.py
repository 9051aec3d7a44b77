"""What is read together is what is read file by file: repetitions, seeds, failures, ties and orders of samples."""

import io
import json
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from harness.commands import trace
from harness.results import tables
from harness.results.claims.evidence import collect
from harness.results.compaction import compact
from harness.results.comparison import compare, load
from harness.results.figures.definition import read_definition
from harness.results.figures.selected import select
from harness.results.gate.observed import observe
from harness.results.scan import Scan
from harness.results.schemas import SAMPLES
from harness.results.selection import matching
from harness.results.store import Store
from tests.results.factory import add_run, run_row, sample_rows
from tests.results.figures.traced import traced_store

TABLE = {"kind": "table", "y": ["accuracy", "nfe", "latency_s"], "groups": ["model", "setting"], "panels": "task"}
FAST: dict[str, Any] = {"method": "fast", "setting": "fast"}


def add_repeated(store: Store, run_id: str, repetitions: int, order: Sequence[int], **values: Any) -> None:
    """Store a run whose samples stand in some order; repetition r of sample s takes 4 s + r calls, r / 8 s seconds."""
    rows = [
        {**row, "repetition": repetition, "nfe": 4 * at + repetition, "latency_s": repetition / 8 + at}
        for repetition in range(repetitions)
        for at, row in enumerate(sample_rows(correct=[True, False, True], nfe=[1] * 3, latency_s=[1] * 3))
    ]
    rows = [rows[3 * repetition + at] for repetition in range(repetitions) for at in order]
    store.write(run_row(run_id, rows, **values), rows)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a traced store with more runs: of two seeds, repeated, in another order, tried again, failed."""
    store = traced_store(tmp_path)
    for seed in (0, 1):
        add_run(store, f"base{seed}", correct=[True, True], seed=seed)
        add_run(store, f"fast{seed}", correct=[True, not seed], nfe=[1, 2], seed=seed, **FAST)
    add_repeated(store, "repeated", 3, [0, 1, 2], task="sort", setting="llada r=3")
    add_repeated(store, "reversed", 1, [2, 1, 0], task="sort")
    add_run(store, "again", setting_id="of_fast0", correct=[False, False], nfe=[1, 1], **FAST)
    store.write(run_row("worse", setting_id="of_fast0", status="failed", error="no memory", **FAST))
    store.write(run_row("never", status="failed", error="no such token", setting="fast step=9"))
    return store


def answers(store: Store) -> list[str]:
    """Return what every query says about a store, word for word."""
    scan = Scan(store.folder)
    every = [one.run_id for one in scan.attempts]
    measured = load(store, every)
    numbers = [(one.run["run_id"], one.keys, one.samples.column_names, one.samples.to_pydict()) for one in measured]
    with redirect_stdout(io.StringIO()) as told:
        trace.main(["two", "s0", "--json", f"results_dir={store.root}"])
    drawn = tables.data(select(store, read_definition(TABLE, "table"), {"status": ["ok"], "protocol": ["null"]}))
    found = [
        matching(scan, {"status": {"ok", "failed"}, "config.seed": {"null"}}, ("run_id", "nfe"), every_attempt=True),
        observe(store, every),
        numbers,
        compare(measured),
        sorted(collect(store, [one.setting_id for one in scan.attempts]).items()),
        drawn.to_csv(),
        told.getvalue(),
        *(store.read(table).to_pylist() for table in ("samples", "steps")),
    ]
    return [*map(repr, found)]


def test_a_packed_store_says_what_its_files_said(store: Store):
    """Guards all queries against the way in which rows are read."""
    before = answers(store)
    compact(store)
    assert len(Scan(store.folder).packs) == 1 and not Scan(store.folder).single
    assert answers(store) == before


def test_samples_are_means_over_repetitions_in_the_order_of_their_names(store: Store):
    """Guards runs that share their samples and not their order."""
    compact(store)
    repeated, turned = load(store, ["repeated", "reversed"])
    assert repeated.column("nfe").tolist() == [1.0, 5.0, 9.0]
    assert repeated.column("latency_s").tolist() == [0.125, 1.125, 2.125]
    assert turned.column("nfe").tolist() == [0.0, 4.0, 8.0]
    assert turned.column("correct").tolist() == repeated.column("correct").tolist() == [1.0, 0.0, 1.0]
    assert turned.answers_what(repeated)
    assert turned.samples["sample_id"].to_pylist() == ["s0", "s1", "s2"]


def test_a_spoiled_part_of_a_pack_spoils_no_other(store: Store, caplog: pytest.LogCaptureFixture):
    """Guards reading together: where it fails, each is read for itself, and the spoiled one alone is named."""
    compact(store)
    every = [one.run_id for one in store.attempts()]
    (path,) = Path(store.root).glob("samples/*.parquet")
    described = pq.ParquetFile(path).metadata
    group = next(at for at, name in enumerate(json.loads(described.metadata[b"attempts"])) if ".reversed." in name)
    names = described.row_group(group).column(SAMPLES.names.index("sample_id"))
    content = bytearray(path.read_bytes())
    content[content.index(b"s0", names.dictionary_page_offset) + 1] ^= 1
    before = {one.run["run_id"] for one in load(store, every)}
    path.write_bytes(content)
    after = {one.run["run_id"] for one in load(store, every)}
    assert before - after == {"reversed"} and after < before
    assert caplog.text.count("skipped") == 1
