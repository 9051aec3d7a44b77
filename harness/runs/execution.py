"""A plan carried out: here, job after job, or by the processes of one of Hydra's launchers."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from harness.config.job import Job, Refused
from harness.config.loader import launch
from harness.errors import RunFailed
from harness.results.store import Store
from harness.runs.plan import Plan, Planned
from harness.runs.progress import Progress, Silent, SweepProgress
from harness.runs.runner import RunRecord, perform, run, skip, taken


def execute(plan: Plan, console: Console) -> list[RunRecord]:
    """Carry out a plan and return its records in order; what is stored is not run again.

    Where jobs stop each other, raises ConfigError before anything runs if one cannot be, and RunFailed at the first
    failure; where not, these are stored as skipped and failed.
    """
    plan.require_possible()
    return _launched(plan, console) if plan.launched and plan.waiting else _inline(plan, console)


def _inline(plan: Plan, console: Console) -> list[RunRecord]:
    records = []
    with SweepProgress(console=console, runs=len(plan.jobs)) as progress:
        for one in plan.jobs:
            progress.begin(one.label)
            record = _carried_out(one, plan, progress)
            _require_success(record, one, plan)
            progress.end(_outcome(record))
            records.append(record)
    return records


def _carried_out(one: Planned, plan: Plan, progress: Progress) -> RunRecord:
    if isinstance(one.job, Refused):
        return skip(one.job, Store(root=Path(plan.base.results_dir)), plan.base.name)
    store = Store(root=Path(one.job.plain["results_dir"]))
    return perform(one.job, store, progress) if one.stored is None else taken(one.job, store, dict(one.stored))


def _outcome(record: RunRecord) -> str:
    if record.resumed:
        return "taken from the store"
    return "" if record.status == "ok" else f"{record.status}: {record.row['error']}"


def _require_success(record: RunRecord, one: Planned, plan: Plan) -> None:
    if plan.stops and record.status == "failed":
        raise RunFailed(f"{plan.place(one)}{record.row['error']}") from record.error


def work(cfg: DictConfig) -> dict[str, Any]:
    """Execute one job in a worker; the import of this module keeps the model pool of the worker alive."""
    record = run(cfg)
    return {"row": record.row, "resumed": record.resumed}


def _launched(plan: Plan, console: Console) -> list[RunRecord]:
    # A launcher composes by itself: it is given what protocols and tasks have added, too.
    jobs = [[*one.job.cfg.overrides, "on_error=record"] for one in plan.waiting if isinstance(one.job, Job)]
    made = {one.number: RunRecord(**result) for one, result in zip(plan.waiting, launch(jobs, work), strict=True)}
    records = [made[one.number] if one.number in made else _carried_out(one, plan, Silent()) for one in plan.jobs]
    for one, record in zip(plan.jobs, records, strict=True):
        told = f"run {one.number}/{len(plan.jobs)} {one.label}: {_outcome(record) or record.status}"
        console.print(told, highlight=False, soft_wrap=True, markup=False)
        _require_success(record, one, plan)
    return records
