"""Peak memory of a run is its own, whatever ran before in the process."""

from pathlib import Path

import pytest
import torch

from harness.config.composition import compose
from harness.runs import measure
from harness.runs.runner import run

CPU = torch.device("cpu")
MEGABYTE = 1 << 20


def test_a_mark_starts_anew():
    """Guards a sweep on a processor: a small run behind a large one."""
    assert measure.reset_peak_memory(CPU)
    held = torch.ones(64 * MEGABYTE)
    high = measure.peak_memory_bytes(CPU)
    del held
    assert measure.reset_peak_memory(CPU)
    assert measure.peak_memory_bytes(CPU) < high - 128 * MEGABYTE


@pytest.mark.parametrize("told", [True, False])
def test_a_row_tells_memory_where_it_is_known(told: bool, results_dir: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards a number that is another run's, which null is not."""
    if not told:
        monkeypatch.setattr("harness.runs.runner.reset_peak_memory", lambda device: False)
    row = run(compose(["model=random_mdm", "task.samples=1", "gen_length=4", f"results_dir={results_dir}"])).row
    assert (row["peak_memory_bytes"] is not None) == told
