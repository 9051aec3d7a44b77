"""`decbench bench statistics` says what a bootstrap costs; how much is the machine's business."""

import json

from harness.commands import bench_statistics
from tests.conftest import RunDecbench


def test_both_kinds_of_draws_are_timed(call_decbench: RunDecbench, monkeypatch):
    """Guards the command, and that new draws are made in every round of the first kind and none of the second."""
    from harness.results import resampling

    made = []
    draw = resampling._draw
    monkeypatch.setattr(resampling, "_draw", lambda *given: made.append(given) or draw(*given))
    monkeypatch.setattr(bench_statistics, "SAMPLES", 20)
    said = call_decbench("bench", "statistics")
    told = json.loads(said.stdout.splitlines()[-1])
    assert (said.returncode, told["samples"], told["replicates"], len(made)) == (0, 20, 10_000, bench_statistics.ROUNDS)
    assert {*told["new"]} == {*told["remembered"]} == {"wall_ms", "cpu_ms"}
