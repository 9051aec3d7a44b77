"""A plan carried out: here, job after job, or by the processes of one of Hydra's launchers."""

from rich.console import Console

from harness.config.job import Job, Refused
from harness.errors import RunFailed
from harness.results.store import Store
from harness.runs.launching import carry_out, task_of
from harness.runs.machine import BUSY
from harness.runs.plan import Plan, Planned
from harness.runs.progress import Progress, Silent, SweepProgress
from harness.runs.runner import RunRecord, forget_batches, perform, skip, taken
from harness.runs.watching import Watch


def execute(plan: Plan, console: Console) -> list[RunRecord]:
    """Carry out a plan and return its records in order; what is stored is not run again.

    Where jobs stop each other, raises ConfigError before anything runs if one cannot be, and RunFailed at the first
    failure; where not, these are stored as skipped and failed.
    """
    plan.require_possible()
    records = _launched(plan, console) if plan.launched and plan.waiting else _inline(plan, console)
    made = [one for one in records if not one.resumed]
    if disturbed := sum(BUSY in (one.row.get("warnings") or ()) for one in made):
        runs = f"{disturbed} of {len(made)} runs: " if len(made) > 1 else ""
        console.print(f"{runs}{BUSY}", highlight=False, soft_wrap=True)
    return records


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
        return skip(one.job, Store(root=plan.base.results_dir), plan.base.name)
    store = Store(root=one.job.plain["results_dir"])
    return perform(one.job, store, progress) if one.stored is None else taken(one.job, store, dict(one.stored))


def _outcome(record: RunRecord) -> str:
    if record.resumed:
        return "taken from the store"
    return "" if record.status == "ok" else f"{record.status}: {record.row['error']}"


def _require_success(record: RunRecord, one: Planned, plan: Plan) -> None:
    if plan.stops and record.status == "failed":
        raise RunFailed(f"{plan.place(one)}{record.row['error']}") from record.error


def _launched(plan: Plan, console: Console) -> list[RunRecord]:
    with Watch(console=console, jobs=plan.jobs) as watch:
        made = _by_number(plan)
        records = [made[one.number] if one.number in made else _carried_out(one, plan, Silent()) for one in plan.jobs]
        for one, record in zip(plan.jobs, records, strict=True):
            watch.tell(one, _outcome(record) or record.status)
            _require_success(record, one, plan)
    return records


def _by_number(plan: Plan) -> dict[int, RunRecord]:
    """Return what became of the jobs that had to run: pieces and whole runs first, then runs of which pieces are done.

    The pieces of a run are unfinished batches like any others: what puts them together decodes what one has not done.
    """
    jobs = {one.number: one.job for one in plan.waiting if isinstance(one.job, Job)}
    split = {number: job for number, job in jobs.items() if job.cfg.split > 1}
    for job in split.values():
        if not job.cfg.resume:
            forget_batches(job, Store(root=job.cfg.results_dir))
    whole = [number for number in jobs if number not in split]
    pieces = [task_of(job, piece=piece) for job in split.values() for piece in range(job.cfg.split)]
    place = str(plan.base.results_dir)
    first = carry_out([*(task_of(jobs[number]) for number in whole), *pieces], place)
    last = carry_out([task_of(job, begun=True) for job in split.values()], place) if split else []
    made = zip([*whole, *split], [*first[: len(whole)], *last], strict=True)
    return {number: RunRecord(**result) for number, result in made if result is not None}
