"""However one job of a sweep ends, its row says so and the other jobs run."""

from pathlib import Path

import pytest
from rich.console import Console

from harness.results.store import Store
from harness.runs import decode_batch
from harness.runs.execution import execute
from harness.runs.plan import plan
from harness.runs.runner import RunRecord
from harness.runs.sweep import expand
from tests.conftest import RunDecbench

SMALL = ["model=random_mdm", "method=threshold", "task.samples=2", "gen_length=4"]


def executed(*overrides: str) -> list[RunRecord]:
    """Carry out a sweep whose jobs do not stop each other."""
    return execute(plan(expand([*SMALL, "on_error=record", *overrides])), Console(quiet=True))


def fails_once(error: BaseException):
    """Return a `decode_batch` whose first call raises."""
    errors = [error]

    def decode(*arguments, **named):
        if errors:
            raise errors.pop()
        return decode_batch.decode_batch(*arguments, **named)

    return decode


@pytest.mark.parametrize(("error", "told"), [(SystemExit(0), "SystemExit: 0"), (MemoryError(), "MemoryError: ")])
def test_what_ends_a_program_is_a_failed_run(
    results_dir: Path, monkeypatch: pytest.MonkeyPatch, call_decbench: RunDecbench, error: BaseException, told: str
):
    """Guards a night's sweep against one job, and a shell against taking a failure for a success."""
    monkeypatch.setattr("harness.runs.street.decode_batch", fails_once(error))
    records = executed(f"results_dir={results_dir}", "seed=0,1")
    assert [(one.status, one.row["error"]) for one in records] == [("failed", told), ("ok", None)]
    monkeypatch.setattr("harness.runs.street.decode_batch", fails_once(error))
    said = call_decbench("run", *SMALL, f"results_dir={results_dir}", "seed=2")
    assert said.returncode == 1 and told.strip() in said.stderr


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ("seed=1180591620717411303424,1", "seed=1180591620717411303424: must lie from"),
        ("batch_size=3000000000,1", "batch_size=3000000000: must be at most"),
        ("method.threshold=nan,0.5", "method.threshold=nan: must be a finite number"),
    ],
)
def test_what_cannot_be_named_or_stored_is_refused_alone(results_dir: Path, choice: str, told: str):
    """Guards a sweep against a job that has no name or fits no column: it is refused before anything is decoded."""
    records = executed(f"results_dir={results_dir}", choice)
    assert [one.status for one in records] == ["skipped", "ok"]
    assert records[0].row["error"].startswith(told)
    assert sorted(Store(root=results_dir).read("runs")["status"].to_pylist()) == ["ok", "skipped"]
