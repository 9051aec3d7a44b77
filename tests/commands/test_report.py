"""`decbench report`, as a user types it."""

import re
from pathlib import Path
from typing import Any

import pytest

from harness.results.html.packing import unpacked
from harness.results.store import Store
from tests.conftest import RunDecbench
from tests.results.factory import add_sweep

for package in ("jinja2", "plotly", "itables"):
    pytest.importorskip(package)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    add_sweep(Store(root=tmp_path / "store"))
    (tmp_path / "folder").mkdir()
    return tmp_path


def test_a_page_is_written_beside_the_store(folder: Path, call_decbench: RunDecbench):
    """Guards what a user reads: where it is and how large; a second time it is replaced whole."""
    for _ in range(2):
        said = call_decbench("report", "task=copy", "results_dir=store")
        assert said.returncode == 0, said.stderr
        path, size = said.stdout.splitlines()
        assert path == "store/report.html" and size.endswith(" MB")
    assert (folder / path).read_text("utf-8").startswith("<!doctype html>")
    assert [one.name for one in (folder / "store").iterdir() if one.is_file()] == ["report.html"]


def test_a_page_is_written_where_it_is_wanted(folder: Path, call_decbench: RunDecbench):
    """Guards output=, in a folder that is made."""
    said = call_decbench("report", "results_dir=store", "output=new/page.html", "samples=1")
    assert said.returncode == 0, said.stderr
    assert (folder / "new" / "page.html").is_file()


def test_runs_that_were_not_traced_can_be_decoded_again(tmp_path: Path, call_decbench: RunDecbench):
    """Guards traces=N: all steps of the first N samples, from the stored config; nothing is stored."""
    words = ("model=random_mdm", "method=wino", "task=list_copy", "task.samples=3", "results_dir=store")
    assert call_decbench("run", *words).returncode == 0
    before = Store(root=tmp_path / "store").attempts()
    said = call_decbench("report", "traces=2", "results_dir=store")
    assert said.returncode == 0, said.stderr
    html = (tmp_path / "store/report.html").read_text()
    details, prompts, board = (
        unpacked(re.findall(rf'id="chunk-{name}">([^<]*)<', html)[0])
        for name in (f"run-{before[0].run_id}", "prompts", "board")
    )
    assert [(film["traced"], film["again"]) for film in details["films"]] == [(True, True)] * 2
    assert all(frame["computed"] > 0 for film in details["films"] for frame in film["frames"])
    assert [turns[0][1].split()[:2] for turns in (prompts[film["prompt"]] for film in details["films"])] == [
        ["<bos>", "copy"]] * 2  # fmt: skip
    assert {(one["task"], one["kind"]) for one in board["theory"]} == {("list_copy", "ideal"), ("list_copy", "fewest")}
    assert Store(root=tmp_path / "store").attempts() == before


def test_a_run_that_cannot_be_decoded_again_keeps_its_order(folder: Path, call_decbench: RunDecbench, caplog: Any):
    """Guards pages of runs from elsewhere: each reason is told, and the page is made."""
    said = call_decbench("report", "task=copy", "traces=1", "results_dir=store")
    assert said.returncode == 0, said.stderr
    assert "base-copy: cannot be decoded again here" in caplog.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task=gone"], "task=gone: no run is like this"),
        (["results_dir=none"], "no runs are stored in none; name another store"),
        (["taks=copy"], "taks=copy: runs have no column taks; did you mean task?"),
        (["copy"], "copy: nothing is made of this"),
        (["samples=many"], "samples=many: must be a whole number, at least 0"),
        (["traces=-1"], "traces=-1: must be a whole number, at least 0"),
        (["output=folder"], "output=folder: names no file; give one"),
        (["output="], "output=: names no file"),
        (["output=/proc/no/page.html"], "/proc/no/page.html: cannot"),
        (["--output", "x"], "--output: is written output=FILE here"),
    ],
)
def test_a_wrong_request_ends_in_one_line(folder: Path, call_decbench: RunDecbench, words: list[str], message: str):
    """Guards against tracebacks."""
    said = call_decbench("report", "results_dir=store", *words)
    assert said.returncode == 2
    assert message in said.stderr
    assert len(said.stderr.splitlines()) == 1
    assert not (folder / "none").exists()
