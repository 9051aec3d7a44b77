"""MLflow, into local files unless a server is named: one MLflow run per report."""

import fcntl
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.errors import MissingDependency
from harness.results.canonical import canonical_json
from harness.runs.trackers.report import Picture, Report

_ID = "decbench.id"
_FILES = "mlruns"
_LONGEST = 6000
_AT_ONCE = 100
"""Parameters of one request, and characters of one: what MLflow takes."""


@dataclass(frozen=True, kw_only=True)
class MlflowTracker:
    """One MLflow run per report in the experiment `project`: parameters, metrics, tags, and a table of samples.

    `uri` names a server, or None for files in `folder`.
    """

    uri: str | None
    project: str
    folder: Path

    def __post_init__(self) -> None:
        _mlflow()

    @property
    def place(self) -> str:
        """Where reports go, for people."""
        return f"MLflow:  {self.uri or self.folder / _FILES}"

    def tell(self, report: Report) -> None:
        """Write a run; the whole config is an artifact, since parameters are cut at 6,000 characters."""
        from mlflow.entities import Metric, Param

        run = self._begun(report.id, report.name, report.sweep, "run", report.tags)
        now = int(time.time() * 1000)
        params = [Param(name, text[:_LONGEST]) for name, text in _flat(report.config)]
        numbers = {name: value for name, value in report.summary.items() if not isinstance(value, str)}
        metrics = [Metric(_key(name), value, now, 0) for name, value in numbers.items()]
        for at in range(0, max(len(params), len(metrics)), _AT_ONCE):
            part = slice(at, at + _AT_ONCE)
            self._client.log_batch(run, metrics=metrics[part], params=params[part])
        self._client.log_dict(run, dict(report.config), "config.json")
        columns = zip(*report.rows, strict=True) if report.rows else ([] for _ in report.columns)
        self._client.log_table(run, {name: list(values) for name, values in zip(report.columns, columns, strict=True)},
                               "samples.json")  # fmt: skip
        if isinstance(error := report.summary.get("error"), str):
            self._client.set_tag(run, "error", error)
        self._client.set_terminated(run, "FAILED" if report.failed else "FINISHED")

    def show(self, picture: Picture) -> None:
        """Write a run of its own that carries the picture."""
        run = self._begun(picture.id, picture.name, picture.sweep, "figure", {})
        self._client.log_artifact(run, str(picture.file))
        self._client.set_terminated(run, "FINISHED")

    def clear(self, name: str) -> None:
        """Delete runs that were begun under an id."""
        for run in self._client.search_runs([self._experiment], f"tags.`{_ID}` = '{name}'"):
            self._client.delete_run(run.info.run_id)

    def _begun(self, name: str, told: str, sweep: str | None, kind: str, tags: Mapping[str, str]) -> str:
        known = {_ID: name, "decbench.kind": kind, **({"decbench.sweep": sweep} if sweep else {})}
        made = self._client.create_run(self._experiment, run_name=told, tags={**known, **tags})
        return made.info.run_id

    @cached_property
    def _client(self) -> Any:
        self.folder.mkdir(parents=True, exist_ok=True)
        return _mlflow().tracking.MlflowClient(tracking_uri=self.uri or (self.folder / _FILES).absolute().as_uri())

    @cached_property
    def _experiment(self) -> str:
        """Make the experiment, once: of several processes that look for it at a time, each would make one."""
        client = self._client
        with (self.folder / ".experiment").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = client.get_experiment_by_name(self.project)
            return found.experiment_id if found else client.create_experiment(self.project)


def _flat(value: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Yield the values of nested settings as texts, under dotted names."""
    for key, inner in value.items():
        name = _key(f"{above}{key}")
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{name}.")
        else:
            yield name, inner if isinstance(inner, str) else canonical_json(inner)


def _key(name: str) -> str:
    """Return a name as MLflow takes it."""
    return re.sub(r"[^\w./: -]", "_", name, flags=re.ASCII)


def _mlflow() -> Any:
    # Nothing goes over the network that was not asked for; files are what we ask for.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    try:
        import mlflow
    except ImportError:
        raise MissingDependency("tracker=mlflow needs mlflow: pip install 'decbench[mlflow]'") from None
    return mlflow
