"""The fastest setting of each method that loses at most a margin: from the record of a search and stored runs alone.

A record says which runs were tried for which method, and how they are judged; every number comes from the runs. It is
one file per search, `searches/ID.json`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import IO, Any

from harness.errors import ConfigError, DataError
from harness.results.comparison import Measured, load
from harness.results.export import as_csv, as_markdown
from harness.results.non_inferiority import Compared, best_of, compared, halves
from harness.results.store import Store

OBJECTIVES = {"nfe": "calls", "query_tokens": "query tokens", "latency_s": "seconds"}
"""What can be made small: columns of samples, and how a reader knows them."""

_FOLDER = "searches"
_COLUMNS = ("model", "method", "setting", "verdict", "cost", "base_cost", "times_less", "times_less_low", "accuracy",
            "difference", "low", "high", "n", "margin", "shown_margin", "search_difference", "search_low", "trials",
            "runs")  # fmt: skip
_SHOWN = ("model", "setting", "at most {margin:g} lost", "{cost}", "times less", "accuracy %", "Δ accuracy %", "n",
          "shown margin", "trials")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One try: the overrides of its knobs, and its runs; none where the setting cannot be."""

    knobs: tuple[str, ...]
    runs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A method, the runs of its baseline, and what was tried."""

    name: str
    baseline: tuple[str, ...]
    trials: tuple[Trial, ...]


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search: `margin` in percentage points, `split` the seed by which samples are halved."""

    search_id: str
    name: str | None
    created: str
    objective: str
    margin: float
    split: int
    subjects: tuple[Subject, ...]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search found for a method: the run row of the chosen setting, and both halves; trials on the first."""

    subject: Subject
    run: Mapping[str, Any]
    runs: tuple[str, ...]
    searched: Compared
    reported: Compared
    tried: tuple[Compared, ...]


def write_search(store: Store, search: Search) -> None:
    """Keep the record of a search; an older one of the same search is replaced."""

    def fill(file: IO[bytes]) -> None:
        file.write(json.dumps(asdict(search), indent=1).encode())

    with store.writing():
        store.folder.make(_FOLDER)
        store.folder.write(f"{_FOLDER}/{search.search_id}.json", fill)


def read_search(store: Store, name: str | None) -> Search:
    """Return the newest search of a name, or of all; raise ConfigError, with what there is, where there is none."""
    files = [one for one in store.folder.names(_FOLDER) if one.endswith(".json") and not one.startswith(".")]
    every = [_read(store, file) for file in files]
    found = [one for one in every if name in (None, one.name, one.search_id)]
    if not found:
        known = ", ".join(sorted({str(one.name) for one in every})) or "none; decbench run experiment=iso_quality"
        raise ConfigError(f"{name or store.root}: no such search is stored; known: {known}")
    return max(found, key=lambda one: (one.created, one.search_id))


def _read(store: Store, file: str) -> Search:
    try:
        option = json.loads(store.folder.read(f"{_FOLDER}/{file}"))
        subjects = [
            Subject(name=one["name"], baseline=tuple(one["baseline"]), trials=tuple(
                Trial(knobs=tuple(each["knobs"]), runs=tuple(each["runs"])) for each in one["trials"]
            ))
            for one in option.pop("subjects")
        ]  # fmt: skip
        return Search(**option, subjects=tuple(subjects))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{store.folder.where(f'{_FOLDER}/{file}')}: is no record of a search ({error})") from error


def found_of(store: Store, search: Search) -> list[Found]:
    """Judge what was tried, from the store alone; a method of which no trial can be compared is left out."""
    ids = [one for each in search.subjects for one in (*each.baseline, *(run for t in each.trials for run in t.runs))]
    measured = {one.run["run_id"]: one for one in load(store, ids)}
    found = [judged(one, measured, search.objective, search.margin, search.split) for one in search.subjects]
    return [one for one in found if one is not None]


def judged(
    subject: Subject, measured: Mapping[str, Measured], objective: str, margin: float, split: int
) -> Found | None:
    """Choose a trial on one half of the samples and compare it on the other; None where none can be compared."""
    base = [measured[one] for one in subject.baseline if one in measured]
    if not base or len(base) < len(subject.baseline):
        return None
    half, tried = halves(base, split), []
    for trial in subject.trials:
        pairs = paired(trial.runs, base, measured)
        if pairs is not None:
            tried.append((trial, pairs, compared(pairs[0], pairs[1], half.search, objective)))
    if not tried:
        return None
    trial, pairs, searched = tried[best_of([one for _, _, one in tried], margin / 100)]
    return Found(
        subject=subject,
        run=pairs[0][0].run,
        runs=trial.runs,
        searched=searched,
        reported=compared(pairs[0], pairs[1], half.report, objective),
        tried=tuple(one for _, _, one in tried),
    )


def paired(
    runs: Sequence[str], base: Sequence[Measured], measured: Mapping[str, Measured]
) -> tuple[list[Measured], list[Measured]] | None:
    """Return the runs of a trial and those of the baseline that answer the same samples, or None where one lacks."""
    by_place = {_place(one): one for one in base}
    mine = [measured[one] for one in runs if one in measured]
    others = [by_place.get(_place(one)) for one in mine]
    known = [one for one in others if one is not None]
    if len(known) < len(by_place) or len(mine) != len(known):
        return None
    alike = all(one.answers_what(other) for one, other in zip(mine, known, strict=True))
    return (mine, known) if alike else None


def _place(one: Measured) -> tuple[str, str, int]:
    return one.run["task"], str(one.run["template"]), one.run["seed"]


def rows_of(search: Search, found: Sequence[Found]) -> list[dict[str, Any]]:
    """Return one row per method, the cheapest of those that lose at most the margin first; accuracies in percent."""
    rows = [_row(search, one) for one in found]
    order = ["yes", "undecided", "no"]
    return sorted(rows, key=lambda row: (row["model"], order.index(row["verdict"]), row["cost"]))


def _row(search: Search, one: Found) -> dict[str, Any]:
    told, half = one.reported, one.searched
    return {
        "model": one.run["model"],
        "method": one.run["method"],
        "setting": one.run["setting"],
        "verdict": told.outcome(search.margin / 100).value,
        "cost": told.cost,
        "base_cost": told.base_cost,
        "times_less": told.ratio.value,
        "times_less_low": told.ratio.low,
        "accuracy": 100 * told.accuracy,
        "difference": 100 * told.difference.value,
        "low": 100 * (told.difference.low or 0),
        "high": 100 * (told.difference.high or 0),
        "n": told.n,
        "margin": search.margin,
        "shown_margin": 100 * told.shown_margin,
        "search_difference": 100 * half.difference.value,
        "search_low": 100 * (half.difference.low or 0),
        "trials": len(one.tried),
        "runs": " ".join(one.runs),
    }


def csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return every row in full."""
    return as_csv(rows, _COLUMNS)


def markdown(search: Search, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a table for reading, and what it rests on below it."""
    names = [one.format(margin=search.margin, cost=OBJECTIVES[search.objective]) for one in _SHOWN]
    lines = [
        (
            row["model"], row["setting"], row["verdict"], row["cost"], f"{row['times_less']:.2f}",
            f"{row['accuracy']:.1f}", f"{row['difference']:+.2f} [{row['low']:.2f}, {row['high']:.2f}]", row["n"],
            f"{row['shown_margin']:.2f}", row["trials"],
        )
        for row in rows
    ]  # fmt: skip
    table = as_markdown([dict(zip(names, line, strict=True)) for line in lines], names)
    return f"{table}\n" + "".join(f"{line}\n" for line in notes(search, rows))


def notes(search: Search, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what a reader needs below the table; which margin the samples can show, where it is not the asked one."""
    lines = [
        f"Fewest {OBJECTIVES[search.objective]} at which the lower 95 % bound of the paired difference to the baseline "
        f"is above -{search.margin:g} points; chosen on one half of the samples, reported on the other "
        f"(split by sample, seed {search.split})."
    ]
    short = [row for row in rows if row["shown_margin"] > search.margin]
    if short:
        told = ", ".join(f"{row['setting']} {row['shown_margin']:.2f} (n = {row['n']})" for row in short)
        lines.append(
            f"Too few samples for a margin of {search.margin:g} points; what they can show of a setting that loses "
            f"nothing, 8 times of 10: {told}."
        )
    return lines
