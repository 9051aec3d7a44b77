"""Weights & Biases, offline unless told otherwise: one W&B run per report."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import MissingDependency
from harness.runs.trackers.report import Picture, Report

_TAG_LENGTH = 64
_ONLINE_S = 30
"""Seconds after which a server that does not answer counts as unreachable."""


@dataclass(frozen=True, kw_only=True)
class WandbTracker:
    """One W&B run per report: config, summary, a table of samples; its files are in `folder`.

    What W&B would add of the machine is left out: the machine that reports need not be the one that ran.
    """

    mode: str
    project: str
    entity: str | None
    folder: Path

    def __post_init__(self) -> None:
        _wandb()

    @property
    def place(self) -> str:
        """Where reports go, for people."""
        return f"W&B:     {self.folder} ({self.mode})"

    def tell(self, report: Report) -> None:
        """Write a run."""
        logged = self._begun(
            id=report.id,
            name=report.name,
            group=report.sweep,
            job_type="run",
            tags=[tag[:_TAG_LENGTH] for tag in report.tags.values()],
            config=dict(report.config),
        )
        failed = True
        try:
            logged.summary.update(dict(report.summary))
            table = _wandb().Table(columns=list(report.columns), data=[list(row) for row in report.rows])
            logged.log({"samples": table})
            failed = report.failed
        finally:
            logged.finish(exit_code=int(failed))

    def show(self, picture: Picture) -> None:
        """Write a run of its own in the sweep's group."""
        logged = self._begun(id=picture.id, name=picture.name, group=picture.sweep, job_type="figure")
        try:
            logged.log({"figure": _wandb().Image(str(picture.file))})
        finally:
            logged.finish()

    def clear(self, name: str) -> None:
        """Remove the folders of a run that was begun; online, the same id replaces it."""
        for folder in self.folder.glob(f"wandb/*run-*-{name}"):
            shutil.rmtree(folder, ignore_errors=True)

    def _begun(self, **told: Any) -> Any:
        wandb = _wandb()
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(
            silent=True,
            console="off",
            init_timeout=_ONLINE_S,
            disable_git=True,
            save_code=False,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
        )
        # Several at a time are reported, and whoever calls us may have a run of their own.
        return wandb.init(
            mode=self.mode,
            project=self.project,
            entity=self.entity,
            dir=str(self.folder),
            reinit="create_new",
            settings=settings,
            **told,
        )


def _wandb() -> Any:
    try:
        # Whatever it has to say of itself is not what was asked for.
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb
    except ImportError:
        raise MissingDependency("tracker=wandb needs wandb: pip install 'decbench[wandb]'") from None
    return wandb
