"""What a command would do, told without doing it."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.config.composition import compose
from harness.config.job import resolve
from harness.runs.estimate import estimate
from tests.conftest import RunDecbench

SMALL = ("model=random_mdm", "gen_length=8", "results_dir=store")
JOB = resolve(compose(["model=random_mdm", "task.samples=3", "batch_size=2"]))


def row(**changes: Any) -> dict[str, Any]:
    """Return what estimates read of a good run of 10 samples."""
    known = {"setting_id": "other", "model": "random_mdm", "method": "llada", "task": "list_copy", "batch_size": 2}
    return known | {"attempt": 1, "n": 10, "sample_rows": 10, "nfe": 16.0, "wall_s": 5.0} | changes


@pytest.mark.parametrize(
    ("rows", "calls", "seconds", "basis"),
    [
        ([], None, None, "nothing alike"),
        ([row(task="list_sort"), row(method="eb"), row(model="tiny_mdm")], None, None, "nothing alike"),
        ([row()], 48, 1.5, "1 run of this method on this task"),
        ([row(), row(nfe=8.0, sample_rows=30)], 36, 1.0, "2 runs of this method on this task"),
        ([row(), row(setting_id=JOB.setting_id, nfe=4.0, wall_s=None)], 12, None, "same setting"),
        ([row(setting_id=JOB.setting_id, nfe=4.0, attempt=1), row(setting_id=JOB.setting_id, nfe=5.0, attempt=2)],
         15, 1.5, "same setting"),
        ([row(setting_id=JOB.setting_id, nfe=4.0, attempt=1), row(setting_id=JOB.setting_id, attempt=2, batch_size=1)],
         12, 1.5, "same setting"),
        ([row(nfe=None)], None, 1.5, "1 run of this method on this task"),
    ],
)  # fmt: skip
def test_cost_is_expected_from_runs_alike(rows: list, calls: float | None, seconds: float | None, basis: str):
    """Guards the arithmetic: means per sample, of the runs that are nearest to the job."""
    expected = estimate(JOB, rows)
    assert (expected.calls, expected.seconds, expected.basis) == (calls, seconds, basis)


def test_repetitions_and_unbounded_tasks_are_counted():
    """Guards timed runs, and tasks that ask all they have."""
    timed = resolve(compose(["model=random_mdm", "task.samples=3", "measure=timed", "measure.repetitions=4"]))
    assert estimate(timed, [row()]).calls == 3 * 4 * 16
    timed.plain["task"]["samples"] = None
    assert estimate(timed, [row()]).calls == 10 * 4 * 16


def test_a_plan_tells_what_is_stored_new_and_refused(
    call_decbench: RunDecbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Guards the table and its totals, and that nothing is loaded or written."""
    assert call_decbench("run", *SMALL, "task.samples=2").returncode == 0
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr("harness.config.build.load_model", None)
    asked = ("plan", *SMALL, "method=llada,threshold", "task.samples=2,4,0")
    process = call_decbench(*asked, "on_error=record", "--json")
    told = json.loads(process.stdout)
    assert process.returncode == 0
    assert [one["state"] for one in told["jobs"]] == ["stored", "new", "refused", "new", "new", "refused"]
    assert told["jobs"][1]["calls"] == 4 * 8 and told["jobs"][1]["basis"] == "1 run of this method on this task"
    assert told["jobs"][2]["reason"] == "task.samples=0: must be at least 1"
    totals = told["totals"]
    assert (totals["stored"], totals["new"], totals["refused"]) == (1, 3, 2)
    assert (totals["calls"], totals["calls_known"], totals["seconds_known"]) == (32, 1, 1) and totals["seconds"] > 0
    assert sorted(tmp_path.rglob("*")) == before


def test_a_piped_plan_has_one_line_per_job(call_decbench: RunDecbench):
    """Guards grep and cut: nothing wraps, however long a setting is."""
    knobs = (
        "method.block_length=8",
        "method/verifier=freedave",
        "method.verifier.draft_steps=2,3",
        "method.cfg_scale=0.5,nan",
    )
    process = call_decbench("plan", *SMALL, *knobs)
    lines = process.stdout.splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["job", "1", "2", "3", "4"]
    assert "method.cfg_scale=nan: must be a finite number" in lines[2]
    assert lines[5] == "4 jobs: 0 stored, 2 new, 2 refused"
    assert lines[7] == "as it stands nothing runs; on_error=record leaves out what is refused"
    assert call_decbench("run", "--dry-run", *SMALL, *knobs).stdout == process.stdout


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_plan_that_cannot_be_carried_out_ends_as_its_run_would(more: list[str], call_decbench: RunDecbench):
    """Guards scripts that plan before they submit: the exit code is that of `run`."""
    refused = ("task.samples=0", *SMALL)
    assert call_decbench("plan", *refused, *more).returncode == call_decbench("run", *refused, *more).returncode == 2
    assert call_decbench("plan", *SMALL, "task.samples=1", *more).returncode == 0


@pytest.mark.parametrize("wrong", ["repetitions=0", "repetitions=1.5", "warmup=-1", "warmup=true"])
def test_a_measurement_that_cannot_be_is_refused_before_anything_runs(wrong: str, call_decbench: RunDecbench):
    """Guards a night of timing against its last job."""
    process = call_decbench("run", *SMALL, "measure=counts,timed", f"measure.{wrong}")
    assert process.returncode == 2 and f"measure.{wrong.split('=')[0]}" in process.stderr


def test_a_plan_of_nothing_explains_itself(call_decbench: RunDecbench):
    """Guards the same first words as `run`'s."""
    assert call_decbench("plan").returncode == call_decbench("run", "--dry-run").returncode == 2
