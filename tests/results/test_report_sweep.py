"""What a reader of a sweep sees: table, notes, missing runs."""

import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from harness.results.figures.definition import read_definition
from harness.results.report_sweep import SweepSummary, summarize
from harness.results.store import Store
from tests.results.factory import add_run, add_sweep, run_row

CALLS = read_definition({"kind": "scatter", "x": "nfe", "y": "accuracy"}, "figure")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(root=tmp_path / "raw")


def _report(store: Store, run_ids: list[str], figure: Path | None = None) -> tuple[SweepSummary, str]:
    console = Console(file=io.StringIO(), width=80)
    summary = summarize(store.root, run_ids, console, figure, CALLS)
    return summary, console.file.getvalue()  # type: ignore[attr-defined]


def _cells(text: str, setting: str) -> str:
    return next(line for line in text.splitlines() if line.strip().startswith(setting)).strip()


def test_the_table_shows_every_number_beside_its_interval(store: Store) -> None:
    """Guards units and columns: 3 of 4 right, 1 call, 4 tokens per call, 16 / 8 forwards, 100 ms; 4 x, 4 x, 2 x."""
    _, text = _report(store, add_sweep(store))
    assert _cells(text, "fast step=4").split(maxsplit=2)[2] == (
        "75.0 [30, 95] 1.0 4.00 2.0    16 100.0 4.00 [4.00, 4.00]   4.0   2.0"
    )


def test_no_speedup_is_claimed_across_models(store: Store) -> None:
    """Guards against an autoregressive model measured against a diffusion baseline: 1.00 is against itself."""
    _, text = _report(store, add_sweep(store))
    assert "1.00 [1.00, 1.00]" in _cells(text, "ar_greedy")


def test_a_pipe_gets_plain_lines_of_at_most_a_hundred_columns(store: Store) -> None:
    """Guards against escape codes in a log and against cells cut off at 80 columns."""
    _, text = _report(store, add_sweep(store))
    assert "\x1b" not in text and "…" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_knobs_that_look_like_markup_are_shown(store: Store) -> None:
    """Guards against a list-valued knob that the terminal library takes for a style."""
    add_run(store, "a", setting="llada order=[bold,up]")
    _, text = _report(store, ["a"])
    assert text.count("order=[bold,up]") == 2


def test_each_model_has_one_section(store: Store) -> None:
    """Guards against repeated headings when a sweep alternates between models."""
    add_sweep(store)
    _, text = _report(store, ["base-copy", "ar-copy", "fast-copy"])
    assert [line.strip() for line in text.splitlines()].count("tiny") == 2


def test_failed_skipped_and_lost_runs_are_listed_with_their_reason(store: Store) -> None:
    """Guards against a sweep that looks complete although runs are missing."""
    run_ids = add_sweep(store)
    store.write(run_row("no", status="skipped", error="llada needs a masked-diffusion model", model="causal"))
    summary, text = _report(store, [*run_ids, "no", "gone"])
    assert "failed: tiny fast step=9 copy: logits are NaN in sample s1" in text
    assert "skipped: causal llada copy: llada needs a masked-diffusion model" in text
    assert "lost: gone" in text
    assert [line["status"] for line in summary.values["missing"]] == ["failed", "skipped", "lost"]  # type: ignore[attr-defined]


def test_no_mean_mixes_protocols(store: Store) -> None:
    """Guards against a published prompt averaged with another: one row each; tasks without a protocol count as own."""
    for run_id, protocol in (("list", None), ("ours", "own"), ("theirs", "fast_dllm")):
        add_run(store, run_id, task=run_id, protocol=protocol)
    summary, _ = _report(store, ["list", "ours", "theirs"])
    rows = [(one["setting"], one["tasks"]) for one in summary.values["overall"]]
    assert rows == [("llada protocol=own", ("list", "ours")), ("llada protocol=fast_dllm", ("theirs",))]


def test_a_run_without_verdicts_is_listed_and_in_no_mean(store: Store) -> None:
    """Guards against unknown verdicts counted as wrong: no accuracy is stored, and the reader is told why."""
    add_run(store, "known", task="copy")
    add_run(store, "unknown", task="samsum", correct=[None, None], warnings=["grammar is null"])
    assert store.read("runs", ["unknown"]).to_pylist()[0]["accuracy"] is None
    summary, text = _report(store, ["known", "unknown"])
    assert [one["tasks"] for one in summary.values["overall"]] == [("copy",)]
    assert "not graded: tiny llada samsum: grammar is null" in text


def test_a_sweep_without_a_successful_run_says_only_why(store: Store) -> None:
    """Guards against a crash or an empty table where every run failed."""
    store.write(run_row("bad", status="failed", error="no weights"))
    summary, text = _report(store, ["bad"], store.root / "figure")
    assert text.startswith("failed: tiny llada copy: no weights\nno figure: figure: no run in ")
    assert (summary.figures, summary.markdown) == ((), "")


def test_means_over_fewer_tasks_are_marked(store: Store) -> None:
    """Guards against ranking a setting by the tasks on which it did not fail."""
    run_ids = [run_id for run_id in add_sweep(store) if run_id != "fast-sort"]
    assert (
        "means over fewer than 2 runs, not comparable with the others: tiny fast step=4" in _report(store, run_ids)[1]
    )


def test_a_change_of_answer_length_is_said_in_the_row(store: Store) -> None:
    """Guards against a speedup that comes from shorter answers."""
    add_run(store, "base")
    samples = store.read("samples").to_pylist()
    short = [{**row, "run_id": "short", "tokens_out": 2} for row in samples]
    store.write(run_row("short", short, method="short", setting="short"), short)
    _, text = _report(store, ["base", "short"])
    assert "1.00 [1.00, 1.00]*" in _cells(text, "short")
    assert "* answers more than 5 % longer or shorter" in text


def test_the_worst_template_is_said(store: Store) -> None:
    """Guards against a mean that hides a prompt under which a method fails."""
    add_run(store, "a")
    add_run(store, "b", template="terse", correct=[False, False])
    assert "accuracy % under the worst template: tiny llada 0.0" in _report(store, ["a", "b"])[1]


def test_the_summary_is_json_and_the_markdown_a_table(store: Store) -> None:
    """Guards the machine-readable ends: every row has every column."""
    summary, _ = _report(store, add_sweep(store))
    by_setting = {one["setting"]: one for one in json.loads(json.dumps(summary.values))["overall"]}
    assert by_setting["fast step=4"]["against"]["speedup_nfe"]["value"] == 4
    header, _, *rows = [line for line in summary.markdown.splitlines() if line.startswith("|")]
    assert len(rows) == 3 and {row.count("|") for row in rows} == {header.count("|")}


def test_without_matplotlib_the_table_is_still_printed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against an optional package taking the results of a sweep away."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    summary, text = _report(store, add_sweep(store), store.root / "figure")
    assert "pip install 'decbench[figures]'" in text and summary.figures == ()
    assert "75.0 [30, 95]" in text
