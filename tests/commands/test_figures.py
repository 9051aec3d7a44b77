"""`decbench figures`, as a user types it."""

from pathlib import Path

import pytest

from harness.results.store import Store
from tests.conftest import RunDecbench
from tests.results.factory import add_sweep

pytest.importorskip("matplotlib")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    add_sweep(Store(root=tmp_path / "store"))
    (tmp_path / "mine.yaml").write_text("kind: bars\nruns: {task: copy}\n")
    (tmp_path / "bad.yaml").write_text("kind: [\n")
    (tmp_path / "other.yaml").write_text("kind: bars\nx: nfe\n")
    return tmp_path


def test_a_file_is_drawn_beside_the_store(folder: Path, call_decbench: RunDecbench):
    """Guards a user's own figure: named for its file, all four formats, and the caption for the paper."""
    said = call_decbench("figures", "mine.yaml", "model=tiny", "results_dir=store")
    assert said.returncode == 0, said.stderr
    *paths, caption = said.stdout.splitlines()
    assert paths == [f"store/figures/mine{suffix}" for suffix in (".svg", ".pdf", ".png", ".csv")]
    assert all((folder / path).stat().st_size for path in paths)
    assert caption.startswith("mine. model: tiny; task: copy;")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "figures: name one, or give a file; known: answer_length, area"),
        (["cals"], "cals: no such figure, and no file ending in .yaml; did you mean calls?"),
        (["gone.yaml"], "gone.yaml: cannot be read"),
        (["bad.yaml"], "bad.yaml: cannot be read"),
        (["other.yaml"], "other.yaml: x: kind: bars has no use for it"),
        (["calls", "taks=copy"], "taks=copy: runs have no column taks; did you mean task?"),
        (["calls", "task=gone"], "calls: no run in store has status=ok task=gone"),
        (["calls", "--out", "x"], "--out: no such option; did you mean --output?"),
        (["calls", "results_dir=memory://x"], "calls: no run in memory://x has status=ok"),
    ],
)
def test_a_wrong_request_ends_in_one_line(folder: Path, call_decbench: RunDecbench, words: list[str], message: str):
    """Guards against tracebacks."""
    said = call_decbench("figures", "results_dir=store", *words)
    assert said.returncode == 2
    assert message in said.stderr
    assert len(said.stderr.splitlines()) == 1


def test_a_sweep_draws_no_table(call_decbench: RunDecbench):
    """Guards against a refusal at the end of a sweep, when everything was run."""
    said = call_decbench("run", "figure=leaderboard", "model=random_mdm", "task.samples=1")
    assert said.returncode == 2
    assert "figure: is a table, which a sweep prints anyway" in said.stderr


def test_a_paper_is_tables_and_figures(folder: Path, call_decbench: RunDecbench):
    """Guards the files of a paper: each table as a figure in all formats, as markdown and as LaTeX."""
    said = call_decbench("figures", "paper=dream", "results_dir=store")
    assert said.returncode == 0, said.stderr
    found = sorted(path.suffix for path in (folder / "store" / "figures" / "dream").iterdir())
    assert found == [".csv", ".md", ".pdf", ".png", ".svg", ".tex"]
    assert "| Dream-7B-Instruct | 81 / - | 55.5 / - | 58.8 / - |" in said.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["paper=dreem"], "paper=dreem: no numbers of such a paper are here; did you mean dream?"),
        (["paper=dream", "task=gsm8k"], "a paper says which runs it is about; give paper=NAME alone"),
    ],
)
def test_a_wrong_paper_ends_in_one_line(folder: Path, call_decbench: RunDecbench, words: list[str], message: str):
    """Guards against tracebacks."""
    said = call_decbench("figures", "results_dir=store", *words)
    assert said.returncode == 2
    assert message in said.stderr
