"""Queries read what they need, a run at a time, however large the store is."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from harness.commands import trace
from harness.results import tables
from harness.results.claims.evidence import collect
from harness.results.figures.definition import read_definition
from harness.results.figures.selected import select
from harness.results.gate.observed import observe
from harness.results.html.page import Shown, page
from harness.results.scan import Scan
from harness.results.schemas import NAMES
from harness.results.store import Store
from tests.large.__main__ import QUERIES
from tests.large.filled import fill, runs

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


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, set[str]]]:
    """Return what is read of packs: numbers of groups of rows, and columns beside those that name the rows."""
    found: list[tuple[int, set[str]]] = []
    real = pq.ParquetFile.read_row_groups

    def noted(self, groups, columns=None, **named):
        found.append((len(groups), {*(columns or self.schema_arrow.names)} - {*NAMES}))
        return real(self, groups, columns, **named)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", noted)
    return found


def ids_of(store: Store, some: slice) -> list[str]:
    """Return the names of some runs, in the order in which they were made."""
    return [run.attempt.run_id for run in runs(ROWS)][some]


def test_only_the_columns_and_runs_asked_for_are_read(store: Store, read: list[tuple[int, set[str]]]):
    """Guards the memory of queries over millions of rows: all others stay on the disk, and few calls read many runs."""
    found = store.read("samples", ids_of(store, slice(3)), ["nfe"])
    assert read == [(3, {"nfe"})]
    assert (found.column_names, found.num_rows) == ([*NAMES, "nfe"], 1500)


def test_a_gate_reads_its_own_runs(store: Store, read: list[tuple[int, set[str]]]):
    """Guards the gate of a large store: answers and counters of its runs, and steps of the traced one alone."""
    traced = next(run.attempt.run_id for run in runs(ROWS) if run.traced)
    observed = observe(store, [traced, *ids_of(store, slice(2))])
    assert [(len(one.answers), len(one.answers[0].steps)) for one in observed] == [(500, 8), (500, 0), (500, 0)]
    (steps, of_step), (samples, of_sample) = read
    assert (steps, samples) == (1, 3)
    assert not of_sample & {"output_text", "seed", "latency_s", "extracted", "measures"}
    assert not of_step & {"predicted", "entropy", "cached"}


def test_a_table_reads_what_it_compares(store: Store, read: list[tuple[int, set[str]]]):
    """Guards tables of all that there is: names, verdicts and the quantities shown."""
    definition = {"kind": "table", "y": ["accuracy", "nfe"], "groups": ["method"], "panels": "task"}
    made = tables.data(select(store, read_definition(definition, "table"), {"task": ["task0", "task1"]}))
    assert len(made) == 2 * 2 * 10
    assert read == [(20, {"sample_id", "prompt_sha256", "correct", "nfe"})]


def test_claims_read_their_settings(store: Store, read: list[tuple[int, set[str]]]):
    """Guards the evidence: the numbers that claims speak of, of the settings that they name."""
    settings = [run.attempt.setting_id for run in runs(ROWS)][:2]
    assert [len(cell.samples) for cells in collect(store, settings).values() for cell in cells] == [500, 500]
    ((groups, columns),) = read
    assert groups == 2
    assert columns == {"sample_id", "repetition", "prompt_sha256", "output_ids", "prompt_tokens", "tokens_canvas",
                       "correct", "nfe", "nfe_total", "query_tokens", "layer_tokens", "tokens_out",
                       "latency_s"}  # fmt: skip


def test_a_trace_reads_its_run(store: Store, read: list[tuple[int, set[str]]], capsys: pytest.CaptureFixture[str]):
    """Guards `decbench trace`: of one run what is shown."""
    traced = next(run.attempt.run_id for run in runs(ROWS) if run.traced)
    assert trace.main([traced, "7", "--json", f"results_dir={store.root}"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 8
    assert [groups for groups, _ in read] == [1, 1]
    assert not {column for _, columns in read for column in columns} & {"output_text", "query_tokens", "n_open"}


def test_a_page_reads_what_it_shows(store: Store, read: list[tuple[int, set[str]]]):
    """Guards `decbench report`: of its runs the columns that are listed, and the steps of traced ones."""
    for package in ("jinja2", "plotly", "itables"):
        pytest.importorskip(package)
    page(store, {"task": {"task3"}}, lambda config: str, Shown(samples=2, films=1))
    compared, listed, steps = read
    assert (compared[0], listed[0], steps[0]) == (10, 10, 1)
    assert not (compared[1] | listed[1]) & {"seed", "measures", "layer_tokens", "unseen"}


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
