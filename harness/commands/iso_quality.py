"""`decbench iso_quality [NAME] [--format markdown|csv] [--output FILE] [--figure FOLDER]`: what a search has found.

The fastest setting of each method that loses at most a margin: one half of the samples chose it, the other half says
whether it is so (yes, no, undecided), at which cost, and which margin so many samples can show. NAME is that of a
search, the newest one unless it is given; every number is computed from the stored runs. A search is made by

  decbench run experiment=iso_quality [objective=nfe|query_tokens|latency_s] [margin=1] [trials=16] [method=a,b ...]
"""

import hashlib
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from harness.commands.results.words import parse
from harness.config.composition import compose
from harness.config.job import Refused
from harness.config.ranges import Knob, Space, read_space
from harness.errors import ConfigError, MissingDependency
from harness.results import iso_quality
from harness.results.canonical import canonical_json
from harness.results.comparison import load
from harness.results.iso_quality import OBJECTIVES, Found, Search, Subject, Trial
from harness.results.non_inferiority import Compared, compared, halves
from harness.results.requests import new_sweep, write_requests
from harness.results.store import Store
from harness.runs.execution import execute
from harness.runs.plan import plan
from harness.runs.runner import RunRecord
from harness.runs.sweep import Sweep

FORMATS = ("markdown", "csv")


def main(argv: Sequence[str]) -> int:
    """Show a search that is stored, or write it to a file."""
    words = parse(argv, options=("--format", "--output", "--figure"))
    if len(words.rest) > 1:
        raise ConfigError(f"iso_quality {' '.join(words.rest)}: takes the name of one search")
    form = words.options.get("--format", FORMATS[0])
    if form not in FORMATS:
        raise ConfigError(f"--format={form}: no such format; known: {', '.join(FORMATS)}")
    made = iso_quality.read_search(words.store, words.rest[0] if words.rest else None)
    found = _found(words.store, made)
    rows = iso_quality.rows_of(made, found)
    text = iso_quality.csv(rows) if form == "csv" else iso_quality.markdown(made, rows)
    if not words.written("--output", text):
        sys.stdout.write(text)
    if "--figure" in words.options:
        for path in _drawn(made, found, Path(words.options["--figure"])):
            sys.stdout.write(f"{path}\n")
    return 0


def _found(store: Store, made: Search) -> list[Found]:
    found = iso_quality.found_of(store, made)
    if not found:
        raise ConfigError(f"{made.name or made.search_id}: none of its runs is stored and graded; run the search again")
    return found


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One method that is searched: its jobs, one per task and seed, and the knobs that were not set."""

    method: str
    jobs: tuple[tuple[str, ...], ...]
    knobs: tuple[Knob, ...]


def search(sweep: Sweep, console: Console, *, as_json: bool) -> int:
    """Search the knobs of every method of a sweep, keep the record, and print what was found."""
    base, space = sweep.base, read_space(sweep.base.search)
    asked = _asked(sweep, space)
    _refuse(base, asked)
    carry = _Carrying(sweep=sweep, console=console)
    subjects = [_searched(one, space, base, carry) for one in asked]
    told = [canonical_json([one.method, *one.jobs]) for one in asked]
    made = Search(
        search_id=_digest([*told, base.objective, base.margin, space.split]),
        name=base.name,
        created=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}",
        objective=base.objective,
        margin=base.margin,
        split=space.split,
        subjects=tuple(subjects),
    )
    iso_quality.write_search(carry.store, made)
    carry.note()
    return _report(carry, made, as_json=as_json)


def _digest(told: Sequence[object]) -> str:
    return hashlib.sha256(canonical_json(list(told)).encode()).hexdigest()[:12]


def _asked(sweep: Sweep, space: Space) -> list[Asked]:
    """Return the methods of a sweep: its jobs that differ in task and seed alone are one."""
    groups: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for job in sweep.jobs:
        alike = tuple(one for one in job if one.partition("=")[0] not in ("task", "seed"))
        groups.setdefault(alike, []).append(tuple(job))
    found = []
    for alike, jobs in groups.items():
        method, given = compose(jobs[0]).method.name, {one.partition("=")[0] for one in alike}
        knobs = tuple(one for one in space.knobs.get(method, ()) if one.key not in given)
        found.append(Asked(method=method, jobs=tuple(jobs), knobs=knobs))
    return found


def _refuse(base: DictConfig, asked: Sequence[Asked]) -> None:
    """Raise ConfigError for a search that cannot be, before anything runs."""
    if base.objective not in OBJECTIVES:
        raise ConfigError(f"objective={base.objective}: cannot be made small; known: {', '.join(OBJECTIVES)}")
    if not 0 < base.margin < 100:
        raise ConfigError(f"margin={base.margin:g}: must be percentage points above 0 and below 100, such as 1")
    if base.trials < 1:
        raise ConfigError(f"trials={base.trials}: must be at least 1")
    if base.objective == "latency_s" and base.measure.name != "timed":
        raise ConfigError(f"objective=latency_s: needs times, and measure={base.measure.name} has none; measure=timed")
    for one in asked:
        if not one.knobs:
            how = f"give ranges, search.knobs.{one.method}={{method.KNOB: [a, b]}}, or leave the method out"
            raise ConfigError(f"method={one.method}: has no knobs to search; {how}")


@dataclass(kw_only=True)
class _Carrying:
    """Carries out settings of a search as ordinary sweeps."""

    sweep: Sweep
    console: Console

    def __post_init__(self) -> None:
        self.records: dict[str, RunRecord] = {}
        self.base = self.sweep.base
        self.store = Store(root=self.base.results_dir)

    def run(self, jobs: Sequence[Sequence[str]], *, required: bool = False) -> tuple[str, ...]:
        """Return the runs of jobs; none where one of them cannot be or failed, unless it is required."""
        self.base.on_error = "stop" if required else "record"
        made = plan(replace(self.sweep, jobs=[[*job, f"on_error={self.base.on_error}"] for job in jobs]))
        if any(isinstance(one.job, Refused) for one in made.jobs) and not required:
            return ()
        records = execute(made, self.console)
        self.records |= {one.run_id: one for one in records}
        return tuple(one.run_id for one in records) if all(one.status == "ok" for one in records) else ()

    def note(self) -> None:
        """Store which runs were asked for."""
        from harness.commands.run import noting

        records, columns = [*self.records.values()], ("setting_id", "run_id", "attempt", "status")
        asked = {"name": self.base.name, "created": datetime.now(UTC), "decodings": None}
        rows = [
            {name: one.row[name] for name in columns} | {"resumed": one.resumed, "label": _label(one)} | asked
            for one in records
        ]
        with noting(records, self.console):
            write_requests(self.store, new_sweep(), rows)


def _label(one: RunRecord) -> str:
    return f"{one.row['model']} {one.row['setting']} {one.row['task']}"


def _searched(one: Asked, space: Space, base: DictConfig, carry: _Carrying) -> Subject:
    from harness.runs.search import search as tried

    plain = [_as_baseline(job, space.baseline) for job in one.jobs]
    baseline, runs = carry.run(list(dict.fromkeys(plain)), required=True), {}

    def evaluate(knobs: tuple[str, ...]) -> Compared | None:
        runs[knobs] = carry.run([[*job, *knobs] for job in one.jobs])
        found = _compared(carry.store, runs[knobs], baseline, base.objective, space.split)
        told = "cannot be" if found is None else _told(found)
        carry.console.print(f"{one.method} {' '.join(knobs)}: {told}", highlight=False, soft_wrap=True, markup=False)
        return found

    tried(one.knobs, evaluate, margin=base.margin / 100, trials=base.trials, seed=space.split)
    trials = tuple(Trial(knobs=knobs, runs=of) for knobs, of in runs.items())
    return Subject(name=one.method, baseline=baseline, trials=trials)


def _as_baseline(job: Sequence[str], baseline: str) -> tuple[str, ...]:
    """Return a job with the baseline in place of its method."""
    kept = [one for one in job if one.partition("=")[0].partition(".")[0].partition("/")[0].lstrip("+~") != "method"]
    return (*kept, *shlex.split(baseline))


def _compared(
    store: Store, runs: Sequence[str], baseline: Sequence[str], objective: str, split: int
) -> Compared | None:
    """Compare a setting on the half that is searched; the other half is not looked at."""
    measured = {one.run["run_id"]: one for one in load(store, [*runs, *baseline])}
    base = [measured[one] for one in baseline if one in measured]
    pairs = iso_quality.paired(runs, base, measured) if runs and len(base) == len(baseline) else None
    return None if pairs is None else compared(*pairs, halves(base, split).search, objective)


def _told(found: Compared) -> str:
    difference = found.difference
    ends = f"[{100 * (difference.low or 0):.2f}, {100 * (difference.high or 0):.2f}]"
    return f"{found.cost:.4g} of {found.base_cost:.4g}, accuracy {100 * difference.value:+.2f} {ends}"


def _report(carry: _Carrying, made: Search, *, as_json: bool) -> int:
    found = _found(carry.store, made)
    rows = iso_quality.rows_of(made, found)
    folder, name = Path(carry.base.results_dir) / "figures", made.name or made.search_id
    text = iso_quality.markdown(made, rows)
    carry.console.print(text, highlight=False, soft_wrap=True, markup=False)
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / f"{name}.md", folder / f"{name}.table.csv"]
    for path, content in zip(written, (text, iso_quality.csv(rows)), strict=True):
        path.write_text(content, encoding="utf-8")
    try:
        written += _drawn(made, found, folder)
    except MissingDependency as error:
        carry.console.print(f"no figure: {error}", style="yellow", soft_wrap=True, markup=False)
    for path in written:
        carry.console.print(f"written: {path}", highlight=False, soft_wrap=True, markup=False)
    if as_json:
        told: dict[str, Any] = {"search": made.search_id, "results_dir": str(carry.store.root), "rows": rows}
        sys.stdout.write(json.dumps(told) + "\n")
    return 0


def _drawn(made: Search, found: Sequence[Found], folder: Path) -> list[Path]:
    from harness.results.figures.making import make_search, save

    figure = make_search(made, found)
    return save(figure, folder / figure.name)
