"""The store never loses, mixes or silently skips results."""

import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from harness.errors import DataError
from harness.results.schemas import SCHEMA_VERSION, SCHEMAS
from harness.results.store import Store
from tests.results.factory import add_run, run_row, sample_rows


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(root=tmp_path / "raw")


Reader = Callable[[Path], tuple[int, list[tuple[str, int]]]]
"""Joins runs with samples and says which attempts are the newest good ones, as docs/results.md tells users to."""


def in_pandas(folder: Path) -> tuple[int, list[tuple[str, int]]]:
    import pandas

    runs, samples = (pandas.read_parquet(folder / table) for table in ("runs", "samples"))
    newest = runs[runs.status == "ok"].sort_values("attempt").drop_duplicates("run_id", keep="last")
    rows = newest.sort_values("run_id")[["run_id", "attempt"]].itertuples(index=False, name=None)
    return len(runs.merge(samples, on=["setting_id", "run_id", "attempt"])), list(rows)


def in_polars(folder: Path) -> tuple[int, list[tuple[str, int]]]:
    import polars

    runs, samples = (polars.read_parquet(f"{folder}/{table}/*.parquet") for table in ("runs", "samples"))
    newest = runs.filter(polars.col("status") == "ok").sort("attempt").unique("run_id", keep="last")
    return len(runs.join(samples, on=["run_id", "attempt"])), newest.sort("run_id").select("run_id", "attempt").rows()


def in_duckdb(folder: Path) -> tuple[int, list[tuple[str, int]]]:
    import duckdb

    joined = duckdb.sql(
        f"select count(*) from '{folder}/runs/*.parquet' join '{folder}/samples/*.parquet' using (run_id, attempt)"
    )
    newest = duckdb.sql(
        f"select run_id, attempt from '{folder}/runs/*.parquet' where status = 'ok' "
        "qualify row_number() over (partition by run_id order by attempt desc) = 1 order by run_id"
    )
    return joined.fetchall()[0][0], newest.fetchall()


def test_what_is_written_is_read(store: Store) -> None:
    """Guards the round trip of every type: timestamps, lists, nulls."""
    samples = sample_rows(correct=[True, False], nfe=[4, 2], latency_s=[0.5, 0.25])
    run = run_row("a", samples)
    attempt = store.write(run, samples)
    names = {"setting_id": "of_a", "run_id": "a", "attempt": attempt}
    assert store.read("runs").to_pylist() == [{**run, **names, "sample_rows": 2, "step_rows": 0}]
    assert store.read("samples").to_pylist() == [{**names, **row} for row in samples]
    assert store.completed("a") and not store.completed("b")


@pytest.mark.parametrize("change", [{"accuraccy": 1.0}, {"nfe": "many"}])
def test_a_row_that_does_not_fit_the_schema_is_refused(store: Store, change: dict[str, object]) -> None:
    """Guards against pyarrow dropping a misspelled column without a word."""
    with pytest.raises(DataError, match="runs row"):
        store.write({**run_row("a"), **change})
    assert store.read("runs").num_rows == 0


def test_a_missing_column_is_named(store: Store) -> None:
    """Guards against a counter that is null for all runs because the writer forgot it."""
    run = {name: value for name, value in run_row("a").items() if name != "nfe"}
    with pytest.raises(DataError, match=r"missing columns \['nfe'\]"):
        store.write(run)


@pytest.mark.parametrize("table", ["runs", "samples"])
def test_a_half_written_file_is_skipped_and_reported(
    store: Store, table: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Guards against one truncated file hiding every other result, or vanishing silently."""
    add_run(store, "good")
    add_run(store, "torn")
    (torn,) = (store.root / table).glob("*.torn.*")
    torn.write_bytes(torn.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        assert set(store.read(table)["run_id"].to_pylist()) == {"good"}
    assert [str(torn) in record.getMessage() for record in caplog.records] == [True]
    assert "delete it" in caplog.text
    assert not store.completed("torn")


def test_samples_that_have_gone_are_reported(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Guards against a run that counts as stored although its samples were deleted."""
    add_run(store, "a")
    (gone,) = (store.root / "samples").glob("*.a.*")
    gone.unlink()
    assert store.read("samples").num_rows == 0
    assert str(gone) in caplog.text and not store.completed("a")


def test_unfinished_temporary_files_are_not_results(store: Store) -> None:
    """Guards against a killed writer leaving something that readers take for a run."""
    add_run(store, "a")
    (store.root / "runs" / ".b.parquet.tmp").write_bytes(b"PAR1")
    assert store.read("runs")["run_id"].to_pylist() == ["a"]


def test_a_success_supersedes_a_failure_and_never_the_reverse(store: Store) -> None:
    """Guards the rule of resume: a failed retry must not take a good result away."""
    store.write(run_row("a", status="failed", error="out of memory"))
    assert not store.completed("a")
    add_run(store, "a", nfe=(2, 2))
    store.write(run_row("a", status="failed", error="killed"))
    assert store.read("runs")["nfe"].to_pylist() == [2.0]
    assert store.completed("a")


def test_a_failure_is_superseded_by_a_success_of_the_same_setting(store: Store) -> None:
    """Guards the list of results after a fault was mended: its failed runs had another name."""
    store.write(run_row("before", status="failed", error="fault", setting_id="s"))
    store.write(run_row("elsewhere", status="failed", error="fault", setting_id="t"))
    add_run(store, "after", setting_id="s")
    assert sorted(store.read("runs")["run_id"].to_pylist()) == ["after", "elsewhere"]
    assert store.read("runs", ["before"])["status"].to_pylist() == ["failed"]


def test_the_newest_attempt_does_not_hang_on_the_clock(store: Store) -> None:
    """Guards against samples of two attempts being mixed, and against a clock that was set back."""
    add_run(store, "a", nfe=(4, 4), minutes=1)
    add_run(store, "a", nfe=(2, 2), minutes=0)
    assert store.read("samples")["nfe"].to_pylist() == [2, 2]
    assert [attempt.number for attempt in store.attempts()] == [1, 2]


def test_attempts_at_one_setting_are_numbered_across_writers(store: Store) -> None:
    """Guards the number against two jobs that finish together."""
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda i: store.write(run_row(f"r{i % 2}", setting_id="s")), range(24)))
    assert sorted(numbers) == list(range(1, 25))
    assert not list((store.root / "runs").glob(".*"))


@pytest.mark.parametrize("reader", [in_pandas, in_polars, in_duckdb])
def test_tables_join_without_our_code(store: Store, reader: Reader) -> None:
    """Guards joins: two attempts of one run must not give every sample twice; the newest good one is a line away."""
    add_run(store, "a", nfe=(4, 4))
    add_run(store, "a", nfe=(2, 2))
    store.write(run_row("a", status="failed", error="killed"))
    add_run(store, "b")
    assert reader(store.root) == (6, [("a", 2), ("b", 1)])


def test_a_changed_bit_is_noticed_and_healed(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Guards against a number that a failing disk has changed: checksums of pages are compared."""
    add_run(store, "a", nfe=(4, 4))
    (file,) = (store.root / "samples").glob("*.a.*")
    content = bytearray(file.read_bytes())
    content[content.index(b"s0") + 1] ^= 1
    file.write_bytes(content)
    assert not store.completed("a") and str(file) in caplog.text
    add_run(store, "a", nfe=(4, 4))
    assert store.completed("a")


@pytest.mark.parametrize("table", ["runs", "samples"])
def test_a_file_of_another_run_is_no_result(store: Store, table: str, caplog: pytest.LogCaptureFixture) -> None:
    """Guards against a file that was copied, renamed or put into the wrong folder."""
    for run_id in ("a", "b"):
        add_run(store, run_id)
    (mine,), (other,) = ((store.root / table).glob(f"*.{run_id}.*") for run_id in ("a", "b"))
    mine.write_bytes(other.read_bytes())
    assert not store.completed("a") and store.completed("b")
    assert "another run" in caplog.text
    mine.write_bytes(next((store.root / {"runs": "samples", "samples": "runs"}[table]).glob("*.a.*")).read_bytes())
    assert not store.completed("a") and f"holds no {table}" in caplog.text


def test_samples_that_are_too_few_are_no_result(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Guards against a valid file that holds a part."""
    add_run(store, "a")
    (file,) = (store.root / "samples").glob("*.a.*")
    pq.write_table(pq.read_table(file).slice(0, 1), file)
    assert not store.completed("a") and "holds 1 rows instead of 2" in caplog.text


def test_what_is_no_regular_file_is_passed_over(store: Store) -> None:
    """Guards against a command that hangs on a pipe, or fails on a folder, that is called like a result."""
    add_run(store, "a")
    os.mkfifo(store.root / "runs" / "of_b.000001.b.ok.parquet")
    (store.root / "runs" / "of_c.000001.c.ok.parquet").mkdir()
    assert store.read("runs")["run_id"].to_pylist() == ["a"]


def test_only_the_asked_runs_are_read(store: Store) -> None:
    """Guards against a sweep's table showing what earlier sweeps left in the same folder."""
    for run_id in ("a", "ab", "b"):
        add_run(store, run_id)
    assert sorted(store.read("runs", ["a", "b", "a"])["run_id"].to_pylist()) == ["a", "b"]


def test_columns_that_an_older_file_lacks_read_as_null(store: Store) -> None:
    """Guards against the first file's columns deciding for all files."""
    add_run(store, "new")
    add_run(store, "old")
    (path,) = (store.root / "runs").glob("*.old.*")
    pq.write_table(pq.read_table(path).drop_columns(["tps", "efe"]), path)
    assert store.read("runs").schema.equals(SCHEMAS["runs"])
    assert store.read("runs", ["old"])["efe"].to_pylist() == [None]
    assert store.read("runs", ["new"])["efe"].to_pylist() == [4.0]


def test_a_file_says_its_columns_once(store: Store) -> None:
    """Guards against files of one row of which two thirds repeat what the columns say: thousands are opened at once."""
    add_run(store, "a")
    files = [*store.root.glob("*/*.parquet")]
    assert {file.parent.name for file in files} == {"runs", "samples"}
    for file in files:
        told = pq.read_metadata(file).metadata
        assert told.keys() == {b"table", b"schema_version"}
        assert pq.read_schema(file).equals(SCHEMAS[file.parent.name])


def test_files_of_a_newer_version_are_reported(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Guards against reading columns whose meaning has changed."""
    add_run(store, "a")
    (path,) = (store.root / "runs").glob("*.a.*")
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"schema_version": str(SCHEMA_VERSION + 1)}), path)
    assert store.read("runs").num_rows == 0
    assert "update decbench" in caplog.text


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """Guards against a sweep that computes for an hour before it fails to write."""
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"results_dir=.*file.* cannot be written .*results_dir=PATH"):
        Store(root=tmp_path / "file").prepare()


def test_every_column_says_what_it_means() -> None:
    """Guards the promise that units are in the schema."""
    for schema in SCHEMAS.values():
        assert all(field.metadata[b"meaning"] and b"unit" in field.metadata for field in schema)


def test_single_rows_are_stored_plainly_and_many_are_packed(store: Store):
    """Guards the time of reading thousands of runs, and the size of millions of samples."""
    add_run(store, "a", correct=[True, False], nfe=[1, 2])
    (run,), (samples,) = ((store.root / table).glob("*.parquet") for table in ("runs", "samples"))
    column = [pq.ParquetFile(file).metadata.row_group(0).column(0) for file in (run, samples)]
    assert [one.compression for one in column] == ["UNCOMPRESSED", "SNAPPY"]
    assert [one.is_stats_set for one in column] == [False, True]
