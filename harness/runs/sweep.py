"""Many runs: an experiment's points and axes, or a Hydra multirun, handed to Hydra's launcher."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from harness.config.composition import completed, compose, parse
from harness.config.loader import ROOT, loader
from harness.runs.progress import SweepProgress
from harness.runs.runner import RunRecord, run


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The jobs of a command, each a list of overrides, and the config that they share."""

    jobs: list[list[str]]
    base: DictConfig


def expand(overrides: Sequence[str]) -> Sweep:
    """Return one list of overrides per run: points times axes of the experiment times choices on the command line.

    A choice is a value with commas (`method.threshold=0.8,0.9`). Points vary slowest, so that a model stays loaded.
    """
    single, choices = _split(overrides)
    base = compose(single)
    points = [shlex.split(point) for point in base.points or [""]]
    axes = [[f"{key}={value.strip()}" for value in values.split(",")] for key, values in (base.axes or {}).items()]
    jobs = [[*single, *point, *combination] for point in points for combination in product(*axes, *choices)]
    return Sweep(jobs=jobs, base=base)


def _split(overrides: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    single: list[str] = []
    choices: list[list[str]] = []
    for text, override in zip(overrides, parse(overrides), strict=True):
        if override.is_sweep_override():
            key = override.get_key_element()
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            single.append(text)
    return single, choices


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
