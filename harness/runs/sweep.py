"""Many runs: an experiment's points and axes, or a Hydra multirun, handed to Hydra's launcher."""

import json
import re
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Glob, Override
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from harness.config.catalogue import names
from harness.config.composition import GROUPS, completed, compose
from harness.config.loader import ROOT, loader
from harness.config.overrides import parse
from harness.errors import ConfigError
from harness.runs.progress import SweepProgress
from harness.runs.runner import RunRecord, run


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The jobs of a command, each a list of overrides, and the config that they share."""

    jobs: list[list[str]]
    base: DictConfig


def expand(overrides: Sequence[str]) -> Sweep:
    """Return one list of overrides per run: points times axes of the experiment times choices on the command line.

    A choice is a value with commas (`method.threshold=0.8,0.9`), `range(...)` or, for a group, `glob(...)`. What the
    command line sets, an experiment does not: its axes and points lose that key, and what belongs to it. Points vary
    slowest, so that a model stays loaded. Raises ConfigError for what is no choice.
    """
    single, choices = _split(overrides)
    base = compose(single)
    written = [shlex.split(point) for point in base.points or [""]]
    every = _axes(base)
    chosen = {one.partition("=")[0] for point in written for one in point} | every.keys()
    # What belongs to an option that the experiment does not choose is about any option, the one typed included.
    beaten = {override.get_key_element() for override in parse(overrides)} & chosen
    points = [[one for one in point if not _is_set(one, beaten)] for point in written]
    axes = [
        [f"{key}={_written(value)}" for value in values]
        for key, values in every.items()
        if not _is_set(f"{key}=", beaten)
    ]
    jobs = [[*single, *point, *combination] for point in points for combination in product(*axes, *choices)]
    return Sweep(jobs=[list(job) for job in dict.fromkeys(map(tuple, jobs))], base=base)


def _axes(base: DictConfig) -> dict[str, list[Any]]:
    axes = OmegaConf.to_container(base.axes) if base.axes else {}
    assert isinstance(axes, dict)
    for key, values in axes.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"axes.{key}={values}: an axis is a list of values; write [a, b]")
    return {str(key): values for key, values in axes.items()}


def _written(value: object) -> str:
    """Write a value of an axis as an override does; texts may hold commas and blanks."""
    if isinstance(value, str) and not re.fullmatch(r"[\w./:+-]+", value):
        return f"'{value}'"
    return value if isinstance(value, str) else json.dumps(value)


def _is_set(override: str, beaten: Collection[str]) -> bool:
    """Say whether the command line sets the key of an override, or the option that the key belongs to."""
    key = override.partition("=")[0].lstrip("+~")
    return any(key == one or key.startswith((f"{one}.", f"{one}/")) for one in beaten)


def _split(overrides: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    single: list[str] = []
    choices: list[list[str]] = []
    for text, override in zip(overrides, parse(overrides), strict=True):
        if not override.is_sweep_override():
            single.append(text)
            continue
        choices.append([f"{override.get_key_element()}={value}" for value in _values(text, override)])
        if not choices[-1]:
            raise ConfigError(f"{text}: chooses nothing; known: {', '.join(names(override.key_or_group))}")
    return single, choices


def _values(text: str, override: Override) -> list[str]:
    """Return the values of a choice, as they were typed."""
    if override.is_interval_sweep():
        raise ConfigError(f"{text}: an interval has no end of values; write range(start,stop,step), or a list: a,b,c")
    chosen = override.value()
    if not isinstance(chosen, Glob):
        written = text.partition("=")[2]
        # Parsing turns 0.50 into 0.5; a plain list of words is cut as it stands.
        plain = re.fullmatch(r"[\w.+/:-]+(,[\w.+/:-]+)*", written)
        return written.split(",") if plain else list(override.sweep_string_iterator())
    if override.key_or_group not in GROUPS:
        raise ConfigError(f"{text}: glob chooses among the options of {', '.join(GROUPS)}; write a list: a,b,c")
    return chosen.filter(list(names(override.key_or_group)))


def execute(sweep: Sweep, console: Console) -> list[RunRecord]:
    """Run every job and return the records in order; a failing run does not stop the others."""
    launcher = OmegaConf.select(compose([*sweep.jobs[0]], with_hydra=True), "hydra.launcher._target_")
    if str(launcher).endswith("BasicLauncher"):
        return _inline(sweep, console)
    return _launched(sweep)


def _inline(sweep: Sweep, console: Console) -> list[RunRecord]:
    records = []
    with SweepProgress(console=console, runs=len(sweep.jobs)) as progress:
        for job in sweep.jobs:
            cfg = compose([*job, "on_error=record"])
            progress.begin(f"{cfg.model.name} {' '.join(o for o in job if o.startswith('method'))} {cfg.task.name}")
            record = run(cfg, progress)
            reason = f"{record.status}: {record.row['error']}" if record.status != "ok" else ""
            progress.end("taken from the store" if record.resumed else reason)
            records.append(record)
    return records


def job(cfg: DictConfig) -> dict[str, Any]:
    """Execute one job in a worker; the import of this module keeps the model pool of the worker alive."""
    record = run(cfg)
    return {"row": record.row, "resumed": record.resumed}


def _launched(sweep: Sweep) -> list[RunRecord]:
    from hydra.core.plugins import Plugins
    from hydra.types import HydraContext, RunMode

    config = loader().load_configuration(ROOT, sweep.jobs[0], RunMode.MULTIRUN)
    context = HydraContext(config_loader=loader(), callbacks=_callbacks(config))
    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=job, config=config)
    Path(str(config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
    results = launcher.launch([[*completed(one), "on_error=record"] for one in sweep.jobs], initial_job_idx=0)
    return [RunRecord(**result.return_value) for result in results]


def _callbacks(config: DictConfig) -> Any:
    from hydra._internal.callbacks import Callbacks

    return Callbacks(config)
