"""What a job will cost, from what earlier runs of its kind did cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from harness.config.job import Job

Row = Mapping[str, Any]

COLUMNS = ["setting_id", "run_id", "attempt", "status", "model", "method", "task", "batch_size", "device"]
COLUMNS += ["n", "sample_rows", "nfe", "wall_s"]
"""The columns of the runs table that estimates rest on."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Calls, summed over samples and repetitions, and seconds of a job; None where no earlier run tells.

    `basis` says which runs do: of the same setting, or of the same model, method and task.
    """

    calls: float | None
    seconds: float | None
    basis: str


def estimate(job: Job, rows: Sequence[Row]) -> Estimate:
    """Return what good runs (rows of the runs table) let expect of a job.

    Runs of the setting itself come first, the newest of them with the job's batch size if there is one. Work is taken
    to grow with samples and repetitions, and not to depend on anything else.
    """
    plain = job.plain
    same = [row for row in rows if row["setting_id"] == job.setting_id]
    if same:
        nearest = max(same, key=lambda row: (row["batch_size"] == plain["batch_size"], row["attempt"]))
        return _estimate(plain, [nearest], "same setting")
    kind = (plain["models"]["target"]["name"], plain["method"]["name"], plain["task"]["name"])
    alike = [row for row in rows if (row["model"], row["method"], row["task"]) == kind]
    if not alike:
        return Estimate(calls=None, seconds=None, basis="nothing alike")
    counted = f"{len(alike)} run{'s' if len(alike) > 1 else ''}"
    return _estimate(plain, alike, f"{counted} of this method on this task")


def _estimate(plain: Mapping[str, Any], rows: Sequence[Row], basis: str) -> Estimate:
    samples = plain["task"].get("samples") or max(row["n"] for row in rows)
    decoded = samples * plain["measure"].get("repetitions", 1)
    calls = [row["nfe"] for row in rows if row["nfe"] is not None]
    seconds = [row["wall_s"] / row["sample_rows"] for row in rows if row["wall_s"] is not None and row["sample_rows"]]
    return Estimate(
        calls=fmean(calls) * decoded if calls else None,
        seconds=fmean(seconds) * decoded if seconds else None,
        basis=basis,
    )
