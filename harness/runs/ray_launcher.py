"""`launch=ray`: the processes of a Ray cluster, or of one that is started on this machine.

A worker that ends (killed, out of memory, its machine gone) is started again, and what it was doing is tried once more:
it goes on behind the batches that are stored. The other runs are carried out whatever becomes of it.
"""

import logging
import os
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig

from harness.config.plugin_folders import VARIABLE
from harness.errors import MissingDependency, RunFailed, one_line
from harness.runs.launching import Work

_LOG = logging.getLogger(__name__)
_TRIED_AGAIN = 1
_STARTS = 3
_STORE_BYTES = 128 * 2**20
"""For what is passed between processes: names of runs, and their rows."""


class RayLauncher(Launcher):
    """Hydra's launcher `ray`: `workers` processes with `num_cpus` and `num_gpus` each, of the cluster at `address`.

    None: as many workers as the cluster has room for, one GPU each where it has some, a cluster on this machine.
    """

    def __init__(self, *, address: str | None, workers: int | None, num_cpus: float, num_gpus: float | None) -> None:
        self.address, self.workers, self.num_cpus, self.num_gpus = address, workers, num_cpus, num_gpus

    def setup(self, *, hydra_context: HydraContext, task_function: Any, config: DictConfig) -> None:
        """Keep the work that is to be done."""
        assert isinstance(task_function, Work)
        self.work = task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Return the results of all jobs; raises, when all are done, what ended the first that has none."""
        with _cluster(self.address) as ray:
            results = self._results(ray, len(job_overrides))
        for one in results:
            if isinstance(one, Exception):
                raise one
        return [_returned(one) for one in results]

    def _results(self, ray: Any, jobs: int) -> list[Any]:
        """Return what became of each job: what it returned, or what Ray says of a process that ended before it."""
        work, waiting = ray.put(self.work), deque(range(jobs))
        results: dict[int, Any] = {}
        # Workers for which there is no room yet must not be given what others could do.
        running: dict[Any, tuple[Any, int | None]] = {
            worker.__ray_ready__.remote(): (worker, None) for worker in self._workers(ray, jobs)
        }
        while len(results) < jobs:
            (done, *_), _ = ray.wait([*running])
            worker, number = running.pop(done)
            try:
                made = ray.get(done)
            except ray.exceptions.RayError as error:
                made = error
            if number is not None:
                results[number] = made
            elif isinstance(made, Exception):
                if not running:
                    raise made
                continue
            if waiting:
                number = waiting.popleft()
                running[worker.carry_out.remote(work, number)] = worker, number
        return [results[number] for number in range(jobs)]

    def _workers(self, ray: Any, jobs: int) -> list[Any]:
        total = ray.cluster_resources()
        cards = (1 if total.get("GPU") else 0) if self.num_gpus is None else self.num_gpus
        needed = {kind: each for kind, each in (("CPU", self.num_cpus), ("GPU", cards)) if each}
        room = int(min((total.get(kind, 0) / each for kind, each in needed.items()), default=1))
        if not room:
            there = ", ".join(f"{total.get(kind, 0):g} {kind}" for kind in needed)
            told = f"hydra.launcher.num_cpus={self.num_cpus:g} hydra.launcher.num_gpus={cards:g}: there is {there}"
            if not self.address:
                raise RunFailed(told)
            _LOG.warning("%s; waiting until a machine joins that has room for a worker", told)
        remote = ray.remote(
            num_cpus=self.num_cpus, num_gpus=cards, max_restarts=-1, max_task_retries=_TRIED_AGAIN
        )(_Worker)  # fmt: skip
        workers = min(jobs, self.workers or max(1, room))
        return [remote.remote(os.getcwd(), sys.path, os.environ.get(VARIABLE, "")) for _ in range(workers)]


class _Worker:
    """A process that carries out one job after another, with the folder, modules and plug-ins of the command."""

    def __init__(self, folder: str, path: Sequence[str], plugins: str) -> None:
        os.chdir(folder)
        sys.path += [one for one in path if one not in sys.path]
        os.environ[VARIABLE] = plugins

    def carry_out(self, work: Work, number: int) -> Any:
        return work.carry_out(number)


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Connect to a cluster, or start one; leave one that is in use already as it is."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise MissingDependency("launch=ray needs ray: pip install 'decbench[ray]'") from None
    if ray.is_initialized():
        yield ray
        return
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            _start(ray, quiet)
        yield ray
    finally:
        ray.shutdown()


def _start(ray: Any, quiet: Mapping[str, Any]) -> None:
    """Start a cluster that this machine alone sees, and that ends with this process.

    Ray gives its own parts 15 seconds to start (ray-project/ray issue 65983), which a busy machine may not have; the
    second time they are in its page cache.
    """
    for left in reversed(range(_STARTS)):
        try:
            ray.init(address="local", _node_ip_address="127.0.0.1", include_dashboard=False,
                     object_store_memory=_STORE_BYTES, **quiet)  # fmt: skip
            return
        except Exception as error:
            if not left:
                raise
            _LOG.warning("Ray did not start (%s); trying again", one_line(error))
            ray.shutdown()


def _returned(value: Any) -> JobReturn:
    result = JobReturn(status=JobStatus.COMPLETED)
    result.return_value = value
    return result
