"""A sweep as a plan: every job composed, checked and named, and the store asked, before the first model is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from omegaconf import DictConfig

from harness.config import hardware
from harness.config.composition import compose
from harness.config.job import Job, Refused, Shared, refused, resolve
from harness.config.root import OnError
from harness.errors import ConfigError, RunFailed, one_line
from harness.results.parts import Row
from harness.results.scan import Scan
from harness.results.store import Store
from harness.runs.measure import measure_of
from harness.runs.runner import setting
from harness.runs.sweep import Sweep


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One job of a plan, numbered from 1; `told` are the overrides that set it apart from the others.

    `stored` is the row of an earlier result that is taken in its place, None where it has to run.
    """

    number: int
    told: tuple[str, ...]
    overrides: tuple[str, ...]
    job: Job | Refused
    stored: Row | None = None

    @property
    def label(self) -> str:
        """What a reader knows the job by: model, setting and task, or what was asked where that cannot be."""
        if isinstance(self.job, Refused):
            return " ".join(self.told or self.overrides)
        plain = self.job.plain
        return f"{plain['models']['target']['name']} {setting(plain, self.job.cfg.overrides)} {plain['task']['name']}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The jobs of a command in order; `base` is the config that they share; `launched`: other processes run them."""

    jobs: tuple[Planned, ...]
    base: DictConfig
    launched: bool

    @property
    def stops(self) -> bool:
        """Whether one job that is refused or fails keeps the others from running."""
        return self.base.on_error == OnError.STOP.value

    @cached_property
    def refused(self) -> tuple[Planned, ...]:
        """The jobs that cannot be."""
        return tuple(one for one in self.jobs if isinstance(one.job, Refused))

    @cached_property
    def waiting(self) -> tuple[Planned, ...]:
        """The jobs that have to run."""
        return tuple(one for one in self.jobs if isinstance(one.job, Job) and one.stored is None)

    @property
    def impossible(self) -> bool:
        """Whether nothing runs, because a job is refused and that stops the others."""
        return self.stops and bool(self.refused)

    def require_possible(self) -> None:
        """Raise ConfigError, naming the first job that cannot be and why, where such a job stops the others."""
        if not self.impossible:
            return
        first, others = self.refused[0], len(self.jobs) - len(self.refused)
        assert isinstance(first.job, Refused)
        text = f"{self.place(first)}{first.job.reason}"
        if len(self.refused) > 1:
            text += f"; {len(self.refused) - 1} more are refused, `decbench plan` with the same arguments shows them"
        if others:
            text += f"; on_error=record runs the other {others}"
        raise ConfigError(text) from first.job.error

    def place(self, one: Planned) -> str:
        """Return the beginning of a message about one job; nothing where there is no other."""
        told = f" ({' '.join(one.told)})" if one.told else ""
        return f"job {one.number} of {len(self.jobs)}{told}: " if len(self.jobs) > 1 else ""


def plan(sweep: Sweep) -> Plan:
    """Compose, check and name every job of a sweep, and look for its result; nothing is loaded or written."""
    common = set.intersection(*map(set, sweep.jobs))
    shared, finder, jobs = Shared(), _Finder(), []
    for number, overrides in enumerate(sweep.jobs, 1):
        job, stored = _resolved(overrides, shared, finder, elsewhere=sweep.launched)
        told = tuple(one for one in overrides if one not in common)
        jobs.append(Planned(number=number, told=told, overrides=tuple(overrides), job=job, stored=stored))
    return Plan(jobs=tuple(jobs), base=sweep.base, launched=sweep.launched)


def _resolved(
    overrides: Sequence[str], shared: Shared, finder: "_Finder", *, elsewhere: bool
) -> tuple[Job | Refused, Row | None]:
    """Return a job, or why it cannot be, and its result: an error of one job, of whatever kind, is not another's.

    Of a job that runs `elsewhere` it is not known here what device it will have.
    """
    cfg = None
    try:
        cfg = compose(overrides)
        job = resolve(cfg, shared)
        measure_of(job.plain["measure"])
    except SystemExit as ending:
        return refused(RunFailed(one_line(ending)), overrides, cfg), None
    except Exception as error:
        return refused(error, overrides, cfg), None
    stored = finder.find(job)
    try:
        if stored is None:
            job.require_grading()
            if not elsewhere:
                hardware.require(job.decoding.device)
    except Exception as error:
        return refused(error, overrides, cfg), None
    return job, stored


class _Finder:
    """Finds results of earlier runs; looks once at what every store holds."""

    def __init__(self) -> None:
        self._scans: dict[str, Scan] = {}

    def find(self, job: Job) -> Row | None:
        """Return the row that is taken in place of a job, or None."""
        if not job.plain["resume"]:
            return None
        root = str(job.plain["results_dir"])
        if root not in self._scans:
            self._scans[root] = Scan(Store(root=root).folder)
        return self._scans[root].completed(job.run_id)
