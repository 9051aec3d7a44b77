"""A store asks one small interface for its files, so that it can lie in any file system."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

from harness.results.files import Folder
from harness.results.store import Store
from tests.results.factory import add_run, run_row


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, memory_files: dict[str, object]) -> Folder:
    """Return an empty folder of a file system."""
    place = Folder.at(tmp_path / "a~b" if request.param == "local" else "memory://store")
    place.make("runs")
    return place


def test_a_file_appears_whole_or_not_at_all(folder: Folder):
    """Guards readers against half a file, and the folder against what a writer that failed leaves."""

    def fail(file) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        folder.write("runs/a", fail)
    assert folder.names("runs") == [] and folder.names("nowhere") == [] and folder.folders("") == ["runs"]
    folder.write("runs/a", lambda file: file.write(b"first"))
    folder.write("runs/a", lambda file: file.write(b"whole"))
    assert folder.names("runs") == ["a"] and folder.read("runs/a") == b"whole"
    folder.remove_folder("runs")
    assert folder.folders("") == []


def test_one_of_many_creates_a_name(folder: Folder):
    """Guards the numbers of attempts: a claim that two hold would give two runs one number."""

    def claim(_: int) -> bool:
        try:
            folder.create("runs/claim")
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(claim, range(32))) == 1


def test_a_store_outside_of_the_disk_does_not_touch_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory_files: dict[str, object]
):
    """Guards the way to an object store: whatever is written, numbered, read and noted goes through the interface."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LocalFileSystem, "open", None)
    store = Store(root="memory://results")
    add_run(store, "a", nfe=(4, 2))
    store.write(run_row("a", status="failed", error="killed"))
    store.note_error("a", "Traceback")
    assert [one.number for one in store.attempts()] == [1, 2]
    assert store.completed("a") and store.read("samples")["nfe"].to_pylist() == [4, 2]
    assert sorted(memory_files)[:2] == ["/results/errors/a.txt", "/results/runs/of_a.000001.a.ok.parquet"]
    assert list(tmp_path.iterdir()) == []
