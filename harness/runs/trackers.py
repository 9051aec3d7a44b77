"""Where a run is reported besides parquet: nowhere, or to Weights & Biases, offline unless told otherwise."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.errors import ConfigError, MissingDependency

Row = Mapping[str, Any]

_TAGS = ("model", "method", "task", "measure", "status")
_TAG_LENGTH = 64
_CONFIG = ("setting", "setting_id", "run_id", "attempt", "device", "git_commit", "dirty", "packages_sha256",
           "lock_sha256", "driver", "attention_kernel", "threads", "throttled", "produced_by")  # fmt: skip
_PER_SAMPLE = ("sample_id", "output_text", "correct", "nfe", "query_tokens", "tokens_out", "latency_s", "detail")


class Tracker(Protocol):
    """Told of a run after its parquet rows were written; a failure here loses nothing."""

    def report(self, run: Row, config: Row, samples: Sequence[Row], *, asked_as: str | None) -> None:
        """Report one finished or failed run, or a stored one, to the sweep named `asked_as`."""
        ...


@dataclass(frozen=True, kw_only=True)
class NoTracker:
    """Report nowhere."""

    def report(self, run: Row, config: Row, samples: Sequence[Row], *, asked_as: str | None) -> None:
        """Do nothing."""


@dataclass(frozen=True, kw_only=True)
class WandbTracker:
    """One W&B run per attempt: config, summary, a table of samples; the id is the attempt's.

    A stored run that another sweep asks for appears in that sweep's group too, under the attempt's id and the name.
    """

    mode: str
    project: str
    entity: str | None
    folder: Path

    def report(self, run: Row, config: Row, samples: Sequence[Row], *, asked_as: str | None) -> None:
        """Write the run; raises MissingDependency without wandb."""
        wandb = _wandb()
        self.folder.mkdir(parents=True, exist_ok=True)
        logged = wandb.init(
            mode=self.mode,
            project=self.project,
            entity=self.entity,
            dir=str(self.folder),
            id=_id_of(run, asked_as),
            name=f"{run['model']} {run['setting']} {run['task']}",
            group=asked_as,
            job_type="run",
            tags=[str(run[column])[:_TAG_LENGTH] for column in _TAGS if run[column]],
            config={**config, **{column: run[column] for column in _CONFIG}},
            reinit="finish_previous",
            settings=wandb.Settings(silent=True, console="off"),
        )
        failed = True
        try:
            numbers = {k: v for k, v in run.items() if isinstance(v, int | float) and not isinstance(v, bool)}
            logged.summary.update(numbers | {"status": run["status"]})
            rows = [[row[c] for c in _PER_SAMPLE] for row in samples if row["repetition"] == 0]
            logged.log({"samples": wandb.Table(columns=list(_PER_SAMPLE), data=rows)})
            failed = run["status"] != "ok"
        finally:
            logged.finish(exit_code=int(failed))


def _id_of(run: Row, asked_as: str | None) -> str:
    attempt = f"{run['run_id']}-{run['attempt']}"
    return attempt if asked_as in (None, run["name"]) else f"{attempt}-{re.sub(r'[^A-Za-z0-9_-]', '_', asked_as)}"


def report_figure(figure: Path, *, mode: str, project: str, entity: str | None, folder: Path, name: str) -> None:
    """Log a sweep's figure as a W&B run of its own in the sweep's group, unless this very figure is there already."""
    own_id = f"figure-{hashlib.sha256(name.encode() + figure.read_bytes()).hexdigest()[:12]}"
    if any(folder.glob(f"wandb/*run-*-{own_id}")):
        return
    wandb = _wandb()
    folder.mkdir(parents=True, exist_ok=True)
    logged = wandb.init(
        mode=mode,
        project=project,
        entity=entity,
        dir=str(folder),
        id=own_id,
        name=f"{name} figure",
        group=name,
        job_type="figure",
        reinit="finish_previous",
        settings=wandb.Settings(silent=True, console="off"),
    )
    try:
        logged.log({"figure": wandb.Image(str(figure))})
    finally:
        logged.finish()


def _wandb() -> Any:
    try:
        import wandb
    except ImportError:
        raise MissingDependency("tracker=wandb needs wandb: pip install 'decbench[wandb]'") from None
    return wandb


def build_tracker(settings: Mapping[str, Any], folder: Path) -> Tracker:
    """Return the tracker of a config."""
    if settings["name"] == "none":
        return NoTracker()
    if settings["name"] == "wandb":
        _wandb()
        return WandbTracker(
            mode=settings["mode"], project=settings["project"], entity=settings["entity"], folder=folder
        )
    raise ConfigError(f"tracker={settings['name']}: no such tracker; known: none, wandb")
