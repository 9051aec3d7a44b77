"""`decbench tables`, as a user types it."""

from pathlib import Path

import pytest

from harness.results.store import Store
from tests.conftest import RunDecbench
from tests.results.factory import add_sweep


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    add_sweep(Store(root=tmp_path / "store"))
    (tmp_path / "mine.yaml").write_text("kind: table\ny: accuracy\ngroups: method\n")
    return tmp_path


def test_a_table_is_printed_or_written(folder: Path, call_decbench: RunDecbench):
    """Guards the default table, a user's own, and the file for a paper."""
    said = call_decbench("tables", "model=tiny", "results_dir=store")
    assert said.returncode == 0, said.stderr
    assert "| fast step=4 | **100.0** | **1.0** | **16** | 50.0† | **1.0** | **16** |" in said.stdout.splitlines()
    own = call_decbench("tables", "mine.yaml", "task=copy", "results_dir=store")
    assert "| fast | **100.0** |" in own.stdout.splitlines()
    assert call_decbench("tables", "--format=latex", "--output=t.tex", "results_dir=store").stdout == ""
    assert (folder / "t.tex").read_text().count(r"\toprule") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["calls"], "calls: kind: scatter: is for decbench figures calls"),
        (["leaderbord"], "leaderbord: no such figure, and no file ending in .yaml; did you mean leaderboard?"),
        (["a", "b"], "tables a b: takes one table at a time"),
        (["--format=xls"], "--format=xls: no such format; known: markdown, latex, csv"),
        (["--output=no/such/file"], "--output=no/such/file: cannot be written"),
        (["task=gone"], "leaderboard: no run in store has status=ok task=gone"),
    ],
)
def test_a_wrong_request_ends_in_one_line(folder: Path, call_decbench: RunDecbench, words: list[str], message: str):
    """Guards against tracebacks."""
    said = call_decbench("tables", *words, "results_dir=store")
    assert said.returncode == 2
    assert message in said.stderr
    assert len(said.stderr.splitlines()) == 1


def test_a_table_is_no_figure(folder: Path, call_decbench: RunDecbench):
    """Guards the other way round."""
    said = call_decbench("figures", "leaderboard", "results_dir=store")
    assert "leaderboard: kind: table: is for decbench tables leaderboard" in said.stderr
