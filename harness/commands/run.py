"""`decbench run`: one run or many, then a table, a figure, and where everything lies."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from harness.commands.console import console as output
from harness.config.catalogue import tell_problems
from harness.config.composition import plain
from harness.config.root import SEARCHED
from harness.errors import ConfigError, DataError, MissingDependency, one_line
from harness.results.figures.definition import TABLE, Definition, read_definition
from harness.results.files import beside
from harness.results.store import Store
from harness.runs.announcement import Announcement
from harness.runs.execution import execute
from harness.runs.plan import plan
from harness.runs.runner import RunRecord
from harness.runs.sweep import expand
from harness.runs.trackers.tracking import tracking_of


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
    planned = plan(sweep)
    with Announcement(planned, Store(root=sweep.base.results_dir)) as announced:
        records = execute(planned, console)
        with noting(records, console):
            announced.answer(records)
    summary = _summarise(sweep.base, figure, records, console)
    if as_json:
        sys.stdout.write(json.dumps(summary, default=str) + "\n")
    lost = any(line["status"] == "lost" for line in summary["summary"]["missing"])
    return int(lost or any(record.status == "failed" for record in records))


def _refuse_unsearched(argv: Sequence[str]) -> None:
    for word in argv:
        if word.partition("=")[0] in SEARCHED:
            raise ConfigError(f"{word}: nothing is searched here; experiment=iso_quality does, or one with search:")


@contextmanager
def noting(records: Sequence[RunRecord], console: Console) -> Iterator[None]:
    """Store in here which runs a command has asked for; where all were stored already it may be impossible."""
    try:
        yield
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
    _track_figure(base, summary.figures, here, console)
    return {
        "runs": [{"run_id": r.run_id, "status": r.status, "resumed": r.resumed} for r in records],
        "results_dir": root,
        "figures": [str(path) for path in summary.figures],
        "summary": summary.values,
    }


def _track_figure(base: DictConfig, figures: Sequence[Path], here: Path, console: Console) -> None:
    """Say where runs were reported, and report the figure there."""
    from harness.runs.trackers.report import Picture

    try:
        tracking = tracking_of(plain(base, "tracker"), here)
    except (ConfigError, MissingDependency) as error:
        console.print(f"nothing was reported: {one_line(error)}", highlight=False, soft_wrap=True)
        return
    if tracking.place is None:
        return
    console.print(tracking.place, highlight=False, soft_wrap=True)
    for file in (path for path in figures if path.suffix == ".png"):
        try:
            tracking.show(Picture(sweep=base.name, file=file))
        except Exception as error:
            told = f"the figure did not reach the tracker ({one_line(error)}); it is in {file}"
            console.print(told, highlight=False, soft_wrap=True)
