"""`decbench run`: one run or many, then a table, a figure, and where everything lies."""

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from harness.commands.console import console as output
from harness.config.catalogue import tell_problems
from harness.config.root import SEARCHED
from harness.errors import ConfigError, DataError
from harness.results.figures.definition import TABLE, Definition, read_definition
from harness.results.files import beside
from harness.results.requests import new_sweep, write_requests
from harness.results.store import Store
from harness.runs.execution import execute
from harness.runs.plan import plan
from harness.runs.runner import RunRecord
from harness.runs.sweep import expand


def main(argv: Sequence[str], *, as_json: bool) -> int:
    """Run what the overrides describe, print the outcome, and return the exit code."""
    console = output(stderr=as_json)
    sweep = expand(argv)
    tell_problems()
    if sweep.base.search is not None:
        from harness.commands.iso_quality import search

        return search(sweep, console, as_json=as_json)
    _refuse_unsearched(argv)
    figure = read_definition(OmegaConf.to_container(sweep.base.figure), "figure")
    if figure.kind == TABLE:
        raise ConfigError("figure: is a table, which a sweep prints anyway; decbench tables makes it afterwards")
    records = execute(plan(sweep), console)
    note_requests(sweep.base, records, console)
    summary = _summarise(sweep.base, figure, records, console)
    if as_json:
        sys.stdout.write(json.dumps(summary, default=str) + "\n")
    lost = any(line["status"] == "lost" for line in summary["summary"]["missing"])
    return int(lost or any(record.status == "failed" for record in records))


def _refuse_unsearched(argv: Sequence[str]) -> None:
    for word in argv:
        if word.partition("=")[0] in SEARCHED:
            raise ConfigError(f"{word}: nothing is searched here; experiment=iso_quality does, or one with search:")


def note_requests(base: DictConfig, records: list[RunRecord], console: Console) -> None:
    """Store which runs this command has asked for, those included that were stored already."""
    columns = ("setting_id", "run_id", "attempt", "status")
    asked = {"name": base.name, "created": datetime.now(UTC)}
    rows = [{name: one.row[name] for name in columns} | {"resumed": one.resumed} | asked for one in records]
    try:
        write_requests(Store(root=base.results_dir), new_sweep(), rows)
    except DataError as error:
        if not all(one.resumed for one in records):
            raise
        # A store from which all was taken may be one that cannot be written.
        console.print(f"not noted who asked for these runs: {error}", style="dim", highlight=False, soft_wrap=True)


def _summarise(base: DictConfig, definition: Definition, records: list[RunRecord], console: Console) -> dict[str, Any]:
    from harness.results.report_sweep import summarize
    from harness.runs.theory_points import theory

    root, here = str(base.results_dir), beside(base.results_dir)
    figure = here / "figures" / base.name if base.name else None
    spelled = {record.run_id: str(record.row["setting"]) for record in records}
    summary = summarize(root, list(spelled), console, figure, definition, theory, spelled)
    console.print(f"results: {root} (parquet: runs, samples, steps)", highlight=False, soft_wrap=True)
    for path in summary.figures:
        console.print(f"figure:  {path}", highlight=False, soft_wrap=True)
    if base.tracker.name == "wandb":
        console.print(f"W&B:     {here / 'wandb'} ({base.tracker.mode})", highlight=False, soft_wrap=True)
        _track_figure(base, summary.figures, here, console)
    return {
        "runs": [{"run_id": r.run_id, "status": r.status, "resumed": r.resumed} for r in records],
        "results_dir": root,
        "figures": [str(path) for path in summary.figures],
        "summary": summary.values,
    }


def _track_figure(base: DictConfig, figures: Sequence[Path], root: Path, console: Console) -> None:
    from harness.runs.trackers import report_figure

    pictures = [path for path in figures if path.suffix == ".png"]
    if not pictures:
        return
    tracker = base.tracker
    try:
        report_figure(
            pictures[0],
            mode=tracker.mode,
            project=tracker.project,
            entity=tracker.entity,
            folder=root / "wandb",
            name=base.name,
        )
    except Exception as error:
        console.print(f"the figure did not reach W&B ({error}); it is in {pictures[0]}", soft_wrap=True)
