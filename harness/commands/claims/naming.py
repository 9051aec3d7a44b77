"""The names of the settings that claims speak of, as a run would store them, or what is missing to run them."""

from omegaconf import DictConfig

from harness.commands.systems import is_built
from harness.config import build, identity
from harness.config.catalogue import read
from harness.config.composition import compose
from harness.config.content import data_digest
from harness.config.job import Job, resolve
from harness.config.presence import refuse_absent_model
from harness.config.root import GROUPS
from harness.errors import ConfigError, DataError, MissingDependency, one_line
from harness.models.hub import download_command
from harness.results.claims.claim import Claim, Side
from harness.results.claims.evidence import Missing
from harness.results.claims.metrics import METRICS


class Namer:
    """Names settings; what has been composed once is kept, since composing is what takes the time."""

    def __init__(self) -> None:
        self._jobs: dict[tuple[str, ...], Job] = {}
        self._tasks: dict[tuple[str, ...], object] = {}

    def name(self, side: Side) -> list[str] | Missing:
        """Return the `setting_id` of a side on each of its tasks, or why it cannot be run here."""
        if lacking := _not_built(side):
            return Missing(parts=tuple(lacking))
        if absent := _absent(side):
            return Missing(reason=absent)
        try:
            if _differs_in_task_alone(side):
                return self._by_task(side)
            return [self._job((*side.overrides, f"task={task}")).setting_id for task in side.tasks]
        except (ConfigError, DataError, MissingDependency) as error:
            return Missing(reason=one_line(error))

    def lacking(self, claim: Claim) -> list[str]:
        """Return the parts that a claim needs beside its settings and that do not exist."""
        pairs = [(kind, name) for kind, names in claim.needs.items() for name in names]
        return [
            f"{kind} {name}"
            for kind, name in pairs
            if not (name in METRICS if kind == "metric" else is_built(kind, name))
        ]

    def _job(self, overrides: tuple[str, ...]) -> Job:
        if overrides not in self._jobs:
            self._jobs[overrides] = resolve(compose(overrides))
        return self._jobs[overrides]

    def _by_task(self, side: Side) -> list[str]:
        first = self._job((*side.overrides, f"task={side.tasks[0]}")).setting
        about = tuple(one for one in side.overrides if one.startswith(("task.", "gen_length=")))
        told = [self._task((*about, f"task={task}")) for task in side.tasks]
        return [identity.setting_id({**first, "task": task}) for task in told]

    def _task(self, overrides: tuple[str, ...]) -> object:
        if overrides not in self._tasks:
            self._tasks[overrides] = _task_setting(compose(overrides))
        return self._tasks[overrides]


def _differs_in_task_alone(side: Side) -> bool:
    """Say whether the tasks of a side move nothing but the task: neither its length nor what a protocol sets."""
    keys = [one.partition("=")[0] for one in side.overrides]
    return len(side.tasks) > 1 and "gen_length" in keys and not any(key.startswith("protocol") for key in keys)


def _task_setting(cfg: DictConfig) -> object:
    task = build.build_task(cfg)
    return identity.task_of(task, data_digest(task.sources()))


def _not_built(side: Side) -> list[str]:
    pairs = [tuple(one.split("=", 1)) for one in side.overrides]
    # A model by role is a model: `model@draft=NAME`.
    pairs = [(key.partition("@")[0], name) for key, name in pairs]
    pairs += [("task", task) for task in side.tasks]
    parts = [(key, name) for key, name in pairs if key in GROUPS or key.startswith("method/")]
    return [f"{key} {name}" for key, name in parts if not is_built(key, name)]


def _absent(side: Side) -> str | None:
    """Return what gets the weights of a model that are not on this machine; None for one that is here."""
    try:
        refuse_absent_model(side.overrides)
    except (ConfigError, MissingDependency) as error:
        given = dict(one.split("=", 1) for one in side.overrides)
        hub_id = given.get("model.hub_id") or read("model", given["model"]).get("hub_id")
        return f"weights: `{download_command(hub_id)}`" if hub_id else one_line(error)
    return None
