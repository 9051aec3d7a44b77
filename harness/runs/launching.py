"""What the processes of a launcher carry out: runs in the order of their models, and pieces of long runs.

A launcher numbers its jobs; `Work` knows what each number means. Workers that take one job after another (joblib's,
Ray's) are given a few runs with each, ordered by model, so that a worker loads each model once; a job that is a process
of its own (Slurm's) is given runs of one model.
"""

import logging
import multiprocessing
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from harness.config.composition import compose
from harness.config.job import Job, Shared
from harness.config.loader import launch, launcher_of
from harness.errors import one_line
from harness.results.canonical import canonical_json
from harness.results.files import beside
from harness.runs.process import end_with_parent
from harness.runs.runner import decode_piece, run

_LOG = logging.getLogger(__name__)
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_JOBS_PER_WORKER = 16
"""Few enough that a thousand runs are not sent along a thousand times, so many that no worker is left idle."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A run, or one `piece` of the batches of it, from 0; `begun` ones take over what this command has finished."""

    overrides: tuple[str, ...]
    model: str
    piece: int | None = None
    begun: bool = False


@dataclass(frozen=True, kw_only=True)
class Work:
    """Groups of tasks, one group per job of a launcher."""

    groups: tuple[tuple[Task, ...], ...]

    def __call__(self, cfg: DictConfig) -> list[dict[str, Any] | None]:
        """Carry out the group of the launcher's present job; what the launcher composed names only the launcher."""
        end_with_parent()
        return self.carry_out(HydraConfig.get().job.num)

    def carry_out(self, number: int) -> list[dict[str, Any] | None]:
        """Return what became of the runs of a group: rows of the runs table, None for pieces."""
        take_own_gpu(multiprocessing.current_process().name)
        return [_carried_out(task) for task in self.groups[number]]


def task_of(job: Job, *, piece: int | None = None, begun: bool = False) -> Task:
    """Return the task of a job; in a worker it is composed anew, with what protocols and tasks have added."""
    plain, device = job.plain, job.plain["device"]
    model = canonical_json([plain["models"], device["dtype"], job.decoding.device])
    return Task(overrides=(*job.cfg.overrides, "on_error=record"), model=model, piece=piece, begun=begun)


def carry_out(tasks: Sequence[Task], results_dir: str) -> list[dict[str, Any] | None]:
    """Have the launcher that they choose carry out tasks, and return what became of them, in order.

    Raises RunFailed as `launch` does.
    """
    launcher = launcher_of(tasks[0].overrides)
    groups = grouped([task.model for task in tasks], _jobs(launcher, len(tasks)))
    work = Work(groups=tuple(tuple(tasks[at] for at in group) for group in groups))
    # Logs of jobs are no part of a store.
    logs = [f"hydra.sweep.dir='{beside(results_dir)}/jobs/{uuid.uuid4().hex[:12]}'"] if "://" in results_dir else []
    with _own_workers(launcher):
        results = launch([[*group[0].overrides, *logs] for group in work.groups], work)
    found = {at: one for group, made in zip(groups, results, strict=True) for at, one in zip(group, made, strict=True)}
    return [found[at] for at in range(len(tasks))]


@contextmanager
def _own_workers(launcher: DictConfig) -> Iterator[None]:
    """Have no workers of joblib carry on that this process began for something else, and leave none behind.

    They wait for more, in the folder and with the code that they were started with.
    """
    if "joblib" not in str(launcher.get("_target_")):
        yield
        return
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)
    try:
        yield
    finally:
        get_reusable_executor().shutdown(wait=True)


def grouped(models: Sequence[str], jobs: int) -> list[list[int]]:
    """Return indices in groups of one model each: `jobs` groups of like sizes, or one per model where those are more.

    Groups of one model follow each other, models in the order in which they first stand.
    """
    members: dict[str, list[int]] = {}
    for at, model in enumerate(models):
        members.setdefault(model, []).append(at)
    shares = dict.fromkeys(members, 1)
    for _ in range(min(jobs, len(models)) - len(shares)):
        shares[max(members, key=lambda model: len(members[model]) / shares[model])] += 1
    return [some[first :: shares[model]] for model, some in members.items() for first in range(shares[model])]


def _jobs(launcher: DictConfig, tasks: int) -> int:
    """Return how many jobs: as many as run at once where each is a process of its own, else some for every worker."""
    cores = os.cpu_count() or 1
    if "submitit_folder" in launcher:
        return launcher.get("array_parallelism") or cores
    workers = launcher.get("n_jobs") or launcher.get("workers") or cores
    return min(tasks, _JOBS_PER_WORKER * (workers if workers > 0 else cores))


def take_own_gpu(process: str) -> None:
    """Leave a numbered worker of this machine one of several GPUs; must be called before any of them is used."""
    numbered = re.search(r"-(\d+)$", process)
    visible = os.environ.get(_VISIBLE)
    cards = visible.split(",") if visible is not None else [str(at) for at in range(torch.cuda.device_count())]
    if numbered and len(cards) > 1:
        os.environ[_VISIBLE] = cards[int(numbered[1]) % len(cards)]


@cache
def _shared() -> Shared:
    """Return what the runs of this process share: it carries out those of one command, and ends with it."""
    return Shared()


def _carried_out(task: Task) -> dict[str, Any] | None:
    cfg = compose(task.overrides)
    if task.piece is None:
        record = run(cfg, begun=task.begun, shared=_shared())
        return {"row": record.row, "resumed": record.resumed}
    try:
        decode_piece(cfg, task.piece, _shared())
    except Exception as error:
        # Whoever puts the run together meets it again, and stores it.
        _LOG.warning("piece %d: %s", task.piece, one_line(error))
    return None
