"""`decbench trace`, as a user types it."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from harness.commands import trace
from tests.conftest import RunDecbench
from tests.results.factory import add_run
from tests.results.figures.traced import traced_store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = traced_store(tmp_path / "store")
    add_run(store, "other")
    return tmp_path


def test_a_pipe_gets_plain_lines(folder: Path, call_decbench: RunDecbench):
    """Guards the grid: two tokens per step, each where it belongs, without codes of colours."""
    said = call_decbench("trace", "two", "s0", "results_dir=store")
    assert said.returncode == 0, said.stderr
    head, columns, first, second, legend, counts = said.stdout.splitlines()
    assert head == "tiny  two  copy  s0  right"
    assert columns.split() == ["step", "computed", "reused", "0", "1", "2", "3"]
    assert first.split() == ["1", "4", "0", "+1", ".", "+3", "."]
    assert second.split() == ["2", "4", "0", "1", "+2", "3", "+0"]
    assert legend.startswith("+ committed") and counts == "2 steps, 2 calls"
    assert "\x1b" not in said.stdout


def test_a_terminal_gets_colours_and_lines_that_fit(
    folder: Path, call_decbench: RunDecbench, monkeypatch: pytest.MonkeyPatch
):
    """Guards how sure each commit was, in colour, and responses that are longer than the terminal is wide."""
    out = io.StringIO()
    wide = Console(file=out, force_terminal=True, color_system="truecolor", width=34, legacy_windows=False)
    monkeypatch.setattr(trace, "console", lambda: wide)
    assert call_decbench("trace", "two", "0", "results_dir=store").returncode == 0
    text = out.getvalue()
    assert text.count("computed") == 2
    assert "\x1b[1;38;2;179;167;114m+1" in text  # a score of 0.5 has the third of five shades
    assert "\x1b[1;38;2;209;192;100m+2" in text  # 0.75 the fourth


def test_frames_are_json_for_programs(folder: Path, call_decbench: RunDecbench):
    """Guards viewers of other people."""
    first, _ = json.loads(call_decbench("trace", "two", "s0", "--json", "results_dir=store").stdout)
    assert first["tokens"] == ["1", None, "3", None]
    assert first["marks"] == {"0": "committed", "2": "committed"}
    assert first["certainty"] == {"0": 0.5, "2": 0.5}
    assert first["cached"] is None


def test_filters_choose_the_newest_run(folder: Path, call_decbench: RunDecbench):
    """Guards commands that need no run_id."""
    said = call_decbench("trace", "method=two", "s1", "results_dir=store")
    assert said.stdout.startswith("tiny  two  copy  s1  right")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "takes a run and one of its samples"),
        (["two"], "run two: say which sample; it has 2, such as s0, s1, or number them from 0"),
        (["two", "x9"], "x9: run two has no such sample; it has 2, such as"),
        (["two", "s"], "s: begins the names of several samples, s0, s1; write more"),
        (["gone", "0"], "gone: no such run"),
        (["task=gone", "0"], "task=gone: no run in store is like this"),
        (["taks=copy", "0"], "taks=copy: runs have no column taks"),
        (["other", "0"], "s0: nothing is stored of how it was decoded; run it again with measure=traced"),
    ],
)
def test_a_wrong_request_ends_in_one_line(folder: Path, call_decbench: RunDecbench, words: list[str], message: str):
    """Guards against tracebacks."""
    said = call_decbench("trace", *words, "results_dir=store")
    assert said.returncode == 2
    assert message in said.stderr
    assert len(said.stderr.splitlines()) == 1


def test_the_symbols_of_embedded_models_are_written(folder: Path):
    """Guards tokens that people can read, and numbers where a tokenizer is not on this machine."""
    symbols = trace.spelling({"models": {"target": {"tokenizer": "symbols"}}})
    assert (symbols(3), symbols(10_000)) == ("<eos>", "10000")
    gone = trace.spelling({"models": {"target": {"tokenizer": "text", "name": "m", "hub_id": "no/such", "path": None}}})
    assert gone(5) == "5"
