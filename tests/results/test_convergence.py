"""When answers emerge."""

from pathlib import Path

from harness.results.convergence import emergences, markdown
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
        dict.fromkeys(STEPS.names) | {"run_id": "a", "sample_id": sample, "step": step, "predicted": tokens}
        for sample, rows in predicted.items()
        for step, tokens in enumerate(rows)
    ]
    store.write(run_row("a", samples, measure="traced"), samples, steps)
    (found,) = emergences(store, ["a"])
    assert found.percent == (25.0, 75.0)
    assert (found.within(25), found.within(50)) == (0.5, 0.5)
    assert "2 of 3 | 50.0 % | 50.0 %" in markdown([found])


def test_without_a_correct_answer_there_is_no_share(tmp_path: Path):
    """Guards against a division by nothing."""
    store = Store(root=tmp_path)
    samples = sample_rows(correct=[False], nfe=[1], latency_s=[0.1])
    step = dict.fromkeys(STEPS.names) | {"run_id": "a", "sample_id": "s0", "step": 0, "predicted": [1]}
    store.write(run_row("a", samples, measure="traced"), samples, [step])
    (found,) = emergences(store, ["a"])
    assert found.within(25) is None
    assert "0 of 1 | - | -" in markdown([found])
