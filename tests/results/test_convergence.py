"""When answers emerge."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from harness.results.convergence import Emergence, emerged, emergences, markdown
from harness.results.figures.definition import read_definition
from harness.results.report_sweep import summarize
from harness.results.schemas import STEPS
from harness.results.store import Store
from tests.results.factory import run_row, sample_rows


def test_the_first_step_that_knows_the_answer_counts(tmp_path: Path):
    """Guards the answer's span (to its end token), the last step by definition, and that wrong samples are left out."""
    store = Store(root=tmp_path)
    samples = sample_rows(correct=[True, True, False], nfe=[4, 4, 4], latency_s=[0.1, 0.1, 0.1])
    for row in samples:
        row |= {"output_ids": [1, 2, 0, 0], "tokens_out": 3}
    predicted = {
        "s0": [[1, 9, 0, 0], [1, 2, 0, 9], [1, 9, 0, 0], [1, 2, 0, 0]],
        "s1": [[9, 9, 9, 9]] * 4,
        "s2": [[1, 2, 0, 0]] * 4,
    }
    steps = [
        dict.fromkeys(STEPS.names)
        | {"run_id": "a", "repetition": 0, "sample_id": sample, "step": step, "predicted": tokens}
        for sample, rows in predicted.items()
        for step, tokens in enumerate(rows)
    ]
    store.write(run_row("a", samples, measure="traced"), samples, steps)
    (found,) = emergences(store, ["a"])
    assert found.percent == {"s0": 25.0, "s1": 75.0}
    assert [one and (one.share.value, one.n) for one in (emerged([found], 25), emerged([found], 50))] == [(0.5, 2)] * 2
    assert "2 of 3 | 50.0 % | 50.0 %" in markdown([found])


def test_without_a_correct_answer_there_is_no_share(tmp_path: Path):
    """Guards against a division by nothing."""
    store = Store(root=tmp_path)
    samples = sample_rows(correct=[False], nfe=[1], latency_s=[0.1])
    step = dict.fromkeys(STEPS.names) | {"run_id": "a", "repetition": 0, "sample_id": "s0", "step": 0, "predicted": [1]}
    store.write(run_row("a", samples, measure="traced"), samples, [step])
    (found,) = emergences(store, ["a"])
    assert emerged([found], 25) is None
    assert "0 of 1 | - | -" in markdown([found])


def test_a_sample_that_several_seeds_solve_is_one():
    """Guards n and intervals: of two seeds one has the answer early, the other late or not at all."""
    first, second = (
        Emergence(run_id=name, model="tiny", setting="llada", task="copy", samples=("s0", "s1"), percent=percent)
        for name, percent in (("a", {"s0": 25.0, "s1": 25.0}), ("b", {"s0": 75.0}))
    )
    found = emerged([first, second], 25)
    assert found is not None
    assert (found.share.value, found.n) == (0.75, 2)
    assert "2 of 2 | 75.0 % | 75.0 %" in markdown([first, second])


def test_the_figure_of_a_sweep_is_the_one_that_was_asked_for(tmp_path: Path):
    """Guards the switch between figures: what has emerged is worked out for this figure alone, and drawn in it."""
    pytest.importorskip("matplotlib")
    store = Store(root=tmp_path)
    rows = sample_rows(correct=[True, True], nfe=[1, 1], latency_s=[0.1, 0.1])
    samples = [row | {"output_ids": [1], "tokens_out": 1} for row in rows]
    steps = [
        dict.fromkeys(STEPS.names)
        | {"run_id": "a", "repetition": 0, "sample_id": row["sample_id"], "step": 0, "predicted": [1]}
        for row in samples
    ]
    store.write(run_row("a", samples, measure="traced"), samples, steps)
    console = Console(file=io.StringIO())
    asked = {
        "calls": {"kind": "scatter", "x": "nfe", "y": "accuracy"},
        "convergence": {"kind": "convergence"},
    }
    shown = {
        kind: summarize(tmp_path, ["a"], console, tmp_path / kind, read_definition(option, kind))
        for kind, option in asked.items()
    }
    heading = "by 25 % of the steps"
    assert {kind: heading in summary.markdown for kind, summary in shown.items()} == {
        "calls": False,
        "convergence": True,
    }
    assert [(tmp_path / f"{kind}.csv").read_text().split(",")[0] for kind in shown] == ["kind", "panel"]
    assert [path.name for path in shown["calls"].figures] == [f"calls.{end}" for end in ("svg", "pdf", "png", "csv")]
