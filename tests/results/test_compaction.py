"""Packing loses nothing, whenever it is interrupted, and afterwards a store is what it was."""

import logging
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from harness.results.compaction import compact, delete
from harness.results.files import Folder
from harness.results.packs import Pack
from harness.results.parts import Attempt
from harness.results.scan import Scan
from harness.results.store import Store
from tests.results.factory import add_run, run_row
from tests.results.interruption import interrupt
from tests.results.test_store import Reader, in_duckdb, in_pandas, in_polars

TABLES = ("runs", "samples", "steps")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store of four settings and seven attempts."""
    made = Store(root=tmp_path / "raw")
    add_run(made, "a", nfe=(4, 4))
    add_run(made, "a", nfe=(2, 2))
    made.write(run_row("a", status="failed", error="killed"))
    for run_id in ("b", "c"):
        add_run(made, run_id, nfe=(3, 1))
    made.write(run_row("d", status="failed", error="fault", setting_id="of_d"))
    add_run(made, "e", setting_id="of_d")
    return made


def content(store: Store) -> list[list]:
    """Return all that readers see of a store."""
    return [store.read(table).to_pylist() for table in TABLES] + [store.attempts()]


def files(store: Store) -> list[str]:
    """Return the names of the files of all tables."""
    return sorted(f"{table}/{name}" for table in TABLES for name in store.folder.names(table))


@pytest.mark.parametrize("reader", [in_pandas, in_polars, in_duckdb])
def test_a_packed_store_reads_as_before(store: Store, reader: Reader):
    """Guards every reader: ours, resume, and those that know nothing of us."""
    before, joined = content(store), reader(Path(store.root))
    done = compact(store)
    assert (done.before, done.unreadable) == (12, 0) and done.after == len(files(store)) == 3
    assert content(store) == before and reader(Path(store.root)) == joined
    assert store.completed("a")["nfe"] == 2.0 and store.completed("b") and not store.completed("d")
    assert compact(store) == type(done)(before=3, after=3, unreadable=0)


def test_a_packed_store_grows(store: Store):
    """Guards numbers of attempts, which go on behind packed ones, and packing a second time."""
    compact(store)
    add_run(store, "a", nfe=(1, 1))
    assert store.read("runs", ["a"])["attempt"].to_pylist() == [4]
    before = content(store)
    assert compact(store).after == 3 and content(store) == before


def test_packing_can_be_interrupted_anywhere(store: Store, monkeypatch: pytest.MonkeyPatch):
    """Guards against a kill at any moment: nothing is lost or doubled, and packing again ends it."""
    before = content(store)
    for at in range(40):
        with monkeypatch.context() as patch:
            interrupt(patch, at, ("write", "remove"))
            try:
                compact(store)
            except KeyboardInterrupt:
                assert content(store) == before
                continue
            break
    assert at > 3 and content(store) == before
    assert len(files(store)) == 3 and in_duckdb(Path(store.root))[0] == 10


def test_a_reader_may_look_while_somebody_packs(store: Store):
    """Guards a table that is made while files go: what was listed before is found in the pack."""
    from harness.results.scan import Scan

    scan, before = Scan(store.folder), content(store)
    compact(store)
    assert [scan.run(one).to_pylist()[0] for one in scan.attempts if one.run_id == "b"] == [before[0][1]]


@pytest.mark.parametrize("table", ["runs", "samples"])
def test_what_cannot_be_trusted_is_not_packed(store: Store, table: str, caplog: pytest.LogCaptureFixture):
    """Guards against a broken file that is hidden in a pack, or deleted."""
    (torn,) = (Path(store.root) / table).glob("*.b.*")
    torn.write_bytes(torn.read_bytes()[:-9])
    assert compact(store).unreadable == 1 and torn.exists() and str(torn) in caplog.text
    assert not store.completed("b") and store.completed("c")


def test_a_changed_bit_spoils_one_attempt_of_a_pack(store: Store, caplog: pytest.LogCaptureFixture):
    """Guards the others, and the integrity check: a rerun heals what was spoiled."""
    compact(store)
    (file,) = (Path(store.root) / "samples").glob("*.parquet")
    third = pq.ParquetFile(file).metadata.row_group(2).column(0)
    content = bytearray(file.read_bytes())
    content[content.index(b"s0", third.dictionary_page_offset) + 1] ^= 1
    file.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        good = [run_id for run_id in ("a", "b", "c", "e") if store.completed(run_id)]
    assert good == ["a", "c", "e"] and str(file) in caplog.text
    add_run(store, "b")
    assert store.completed("b")


def test_a_foreign_or_broken_pack_is_named(store: Store, caplog: pytest.LogCaptureFixture):
    """Guards against a pack that is no parquet file: what it held is made again."""
    compact(store)
    (file,) = (Path(store.root) / "runs").glob("*.parquet")
    file.write_bytes(b"PAR1")
    assert store.attempts() == [] and str(file) in caplog.text


@pytest.mark.parametrize("packed", [False, True])
def test_deleted_runs_are_gone(store: Store, packed: bool):
    """Guards deletion: all files of an attempt go, and nothing else, also out of a pack."""
    if packed:
        compact(store)
    store.note_error("a", "Traceback")
    delete(store, [one for one in store.attempts() if one.run_id == "a"])
    assert [one.run_id for one in store.attempts()] == ["b", "c", "d", "e"]
    assert in_duckdb(Path(store.root)) == (6, [("b", 1), ("c", 1), ("e", 2)])
    assert store.completed("b") and store.folder.names("errors") == []
    delete(store, store.attempts())
    assert files(store) == []


def test_packs_have_a_bound(store: Store, monkeypatch: pytest.MonkeyPatch):
    """Guards memory and the loss of a file: full packs are left as they are."""
    monkeypatch.setattr("harness.results.compaction.AT_MOST", 3)
    before = content(store)
    compact(store)
    packs = [Pack(folder=store.folder, name=name) for name in store.folder.names("runs")]
    assert sorted(len(pack.attempts) for pack in packs) == [1, 3, 3]
    assert content(store) == before
    names = files(store)
    compact(store)
    assert files(store) == names


def test_a_scan_opens_no_file_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards the time of a list of thousands: one look at the folder, one opening per run, one per pack."""
    store = Store(root=tmp_path)
    for index in range(6):
        add_run(store, f"r{index}")
    opened: list[str] = []
    looked: list[str] = []
    for name, log in (("read", opened), ("open", opened), ("names", looked)):
        real = getattr(Folder, name)
        monkeypatch.setattr(Folder, name, lambda self, at, real=real, log=log: (log.append(at), real(self, at))[1])
    store.read("runs")
    assert len(opened) == len({*opened}) == 6 and looked == ["runs"]
    opened.clear()
    store.read("samples")
    assert len(opened) == len({*opened}) == 12
    compact(store)
    opened.clear(), looked.clear()
    store.read("samples")
    assert len(opened) == len({*opened}) == 2 and looked == ["runs"]


@pytest.mark.parametrize("packed", [False, True])
def test_of_one_run_no_other_is_looked_at(store: Store, packed: bool, monkeypatch: pytest.MonkeyPatch):
    """Guards sweeps of thousands: storing one run more looks at names alone, and at no pack twice."""
    scan, runs = Scan(store.folder), ("a", "b", "d", "e", "nothing")
    known = {run: scan.completed(run) for run in runs}
    if packed:
        compact(store)
        assert store.completed("a")
    monkeypatch.setattr(Pack, "attempts", property(lambda _: pytest.fail("a pack is looked into again")))
    parsed: list[str] = []
    real = Attempt.parse
    monkeypatch.setattr(Attempt, "parse", lambda name: parsed.append(name) or real(name))
    for run in runs:
        parsed.clear()
        about = Scan(store.folder, about=run)
        assert about.attempts == [one for one in scan.attempts if one.run_id == run]
        assert all(run in name for name in parsed)
        assert about.completed(run) == known[run]
    assert [one.run_id for one in Scan(store.folder, about="of_d").attempts] == ["d", "e"]
    add_run(store, "e", setting_id="of_d")
    assert [one.number for one in Scan(store.folder, about="of_d").attempts] == [1, 2, 3]
