"""From a store to one HTML page: what is shown, as much of it as fits, and the text of the page."""

import base64
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from harness.errors import ConfigError
from harness.results.comparison import Measured, graded
from harness.results.figures.scatter import TheoryPoint
from harness.results.html.films import Rows
from harness.results.html.leaderboard import area_rows, as_row, standings
from harness.results.html.libraries import library
from harness.results.html.packing import packed, packed_text
from harness.results.html.run_details import SHOWN, RunRows, Turns, index_entry
from harness.results.requests import read_requests
from harness.results.scan import Scan
from harness.results.schemas import RUNS, SAMPLES, empty
from harness.results.selection import matching
from harness.results.store import Chosen, Store
from harness.results.trace import SAMPLE_COLUMNS, STEP_COLUMNS, first_decodings

LARGEST_BYTES = 30_000_000
_FILMS = 8
_TOGETHER = 64
"""Rows and configurations of so many runs are packed together: they are nearly the same."""

_NO_SAMPLES = empty(SAMPLES)
_MODULES = ("format", "chunks", "film", "grid", "viewer", "table", "board", "plots", "runs", "main")

Spelling = Callable[[Mapping[str, Any]], Callable[[int], str]]
"""Returns how tokens are written, from the configuration of a run."""

Asking = Callable[[Mapping[str, Any], Rows], Mapping[str, Turns]]
"""Returns what some samples of a run were asked, by name: role and text of every turn."""

Theory = Callable[[Rows], Sequence[TheoryPoint]]
"""Returns what an ideal sampler reaches on the tasks of runs."""

Decoding = Callable[[Mapping[str, Any], Rows], Mapping[str, Rows]]
"""Decodes some samples of a run again: returns the steps of each, by its name."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """How much of every run is shown: samples listed (all that fit, without a number), and samples that can be played.

    `asked` tells the prompts of these, `decode` makes the steps of those of runs that were not traced. `theory` says
    what their tasks allow.
    """

    samples: int | None = None
    films: int = _FILMS
    asked: Asking | None = None
    decode: Decoding | None = None
    theory: Theory | None = None


@dataclass(frozen=True, kw_only=True)
class Page:
    """The text of a page, and what its reader should know of it: a line each."""

    html: str
    notes: tuple[str, ...]


def page(store: Store, filters: Mapping[str, Collection[str]], spelling: Spelling, shown: Shown) -> Page:
    """Return the page of the runs that pass `filters`; the same text for the same store.

    Raises ConfigError where no run passes or is good, or where more is asked for than fits, and MissingDependency
    without the libraries of the page.
    """
    template = _template()
    runs = _runs(store, filters)
    good = [run["run_id"] for run in runs if run["status"] == "ok"]
    if not good:
        told = f"none of {len(runs)} runs is good" if runs else "no run is like this"
        asked = " ".join(f"{column}={','.join(sorted(values))}" for column, values in sorted(filters.items()))
        raise ConfigError(f"{asked or f'results_dir={store.root}'}: {told}; decbench results list shows what is stored")
    chosen = store.chosen(good)
    measured = graded(chosen, chosen.table("runs"), good)
    rows = _rows(chosen, runs, spelling, shown)
    found = standings(_compared(measured)) if measured else []
    theory = shown.theory([one.run for one in measured]) if shown.theory else ()
    board = {
        "standings": [as_row(one) for one in found],
        "areas": area_rows(found),
        "theory": [vars(point) for point in theory],
        "columns": {field.name: _told(field.metadata) for field in RUNS},
        "filters": {column: sorted(values) for column, values in sorted(filters.items())},
    }
    fixed = {
        "board": board,
        "version": version("decbench"),
        "style": _own("page.css"),
        "datatables_style": library("datatables_style"),
        "plotly": _plotly(),
        "modules": _modules(),
        "datatables": packed_text(library("datatables")),
    }
    return _fitting(template, fixed, rows, shown)


def _runs(store: Store, filters: Mapping[str, Collection[str]]) -> list[dict[str, Any]]:
    return matching(Scan(store.folder), filters, RUNS.names, names=read_requests(store).names())


def _told(metadata: Mapping[bytes, bytes]) -> list[str]:
    return [metadata[key].decode() for key in (b"unit", b"meaning")]


def _compared(measured: Sequence[Measured]) -> list[Measured]:
    """Leave out traced runs of a task where each was also made otherwise: settings are not to be compared twice."""
    otherwise = {one.run["setting_id"] for one in measured if one.run["measure"] != "traced"}
    only_traced = {_place(one) for one in measured if one.run["setting_id"] not in otherwise}
    return [one for one in measured if one.run["measure"] != "traced" or _place(one) in only_traced]


def _place(one: Measured) -> tuple[str, str]:
    return one.run["model"], one.run["task"]


def _rows(chosen: Chosen, runs: Sequence[Mapping[str, Any]], spelling: Spelling, shown: Shown) -> list[RunRows]:
    listed = dict.fromkeys([*SHOWN, *SAMPLE_COLUMNS])
    samples = {one.run_id: first_decodings(part) for one, part in chosen.parts("samples", [*listed])}
    steps = _steps(chosen, {run["run_id"] for run in runs if run["measure"] == "traced"}, samples, shown.films)
    made = []
    for run in runs:
        own, known = samples.get(run["run_id"], _NO_SAMPLES), steps.get(run["run_id"])
        played = own.slice(0, shown.films).to_pylist()
        again = known is None and bool(played) and shown.decode is not None
        if again:
            assert shown.decode is not None
            known = dict(shown.decode(run, played))
        asked = shown.asked(run, played) if shown.asked and played else {}
        spelled = spelling(json.loads(run["config"]))
        made.append(RunRows(run=run, samples=own, steps=known or {}, spelled=spelled, again=again, asked=asked))
    return made


def _steps(
    chosen: Chosen, traced: Collection[str], samples: Mapping[str, pa.Table], films: int
) -> dict[str, Mapping[str, Rows]]:
    """Return the steps of the samples that can be played, by run and sample, of runs that have any."""
    some = [one for one in chosen.attempts if one.run_id in traced and one.run_id in samples]
    found = {}
    for one, part in replace(chosen, attempts=some).parts("steps", STEP_COLUMNS):
        played = samples[one.run_id]["sample_id"].slice(0, films).combine_chunks()
        if (rows := first_decodings(part)).num_rows:
            found[one.run_id] = _by_sample(rows.filter(pc.field("sample_id").isin(played)))
    return found


def _by_sample(rows: pa.Table) -> Mapping[str, Rows]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows.to_pylist():
        found.setdefault(row["sample_id"], []).append(row)
    return found


def _fitting(template: Any, fixed: dict[str, Any], rows: Sequence[RunRows], shown: Shown) -> Page:
    """Return the page with as many samples of each run as are asked for, or else as fit."""
    longest = max(len(one.samples) for one in rows)
    count = longest if shown.samples is None else min(shown.samples, longest)
    asked = shown.samples is not None
    while True:
        html = _rendered(template, fixed, rows, count, shown.films)
        size = len(html.encode("utf-8"))
        if size <= LARGEST_BYTES:
            notes = [] if asked or count >= longest else [f"the first {count} of {longest} samples of a run are listed"]
            return Page(html=html, notes=tuple(notes))
        if asked or not count:
            raise ConfigError(_too_large(size, count, asked=asked))
        count = min(count - 1, int(count * 0.95 * LARGEST_BYTES / size))


def _too_large(size: int, count: int, *, asked: bool) -> str:
    told = f"samples={count}: " if asked else ""
    would = "leave samples= out for as many as fit, or choose fewer runs" if asked else "choose fewer runs"
    return (
        f"{told}the page of these runs takes {size / 1e6:.1f} MB, more than {LARGEST_BYTES / 1e6:.0f}; {would}, "
        "such as task=NAME or model=NAME"
    )


def _rendered(template: Any, fixed: dict[str, Any], rows: Sequence[RunRows], samples: int, films: int) -> str:
    chunks, index, prompts, abouts = {}, [], {}, []
    for at, one in enumerate(rows):
        if at % _TOGETHER == 0:
            abouts.append({})
        abouts[-1][one.run["run_id"]] = one.about()
        details = one.details(samples, films)
        chunks[f"run-{one.run['run_id']}"] = packed(details | {"about": len(abouts) - 1})
        index.append(index_entry(one.run, [film["sample"] for film in details["films"]]))
        prompts |= {film["prompt"]: one.asked[film["sample"]] for film in details["films"] if film["prompt"]}
    chunks |= {f"about-{at}": packed(of) for at, of in enumerate(abouts)} | {"prompts": packed(prompts)}
    board = fixed["board"] | {"runs": index}
    return template.render(**(fixed | {"board": packed(board), "chunks": chunks}))


def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: _own(name)),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("page.html.j2")


@cache
def _plotly() -> str:
    """Return the largest part of the page, which is the same for all."""
    return packed_text(library("plotly"))


def _modules() -> dict[str, str]:
    """Return the addresses of the page's modules, by name: their own text, so that nothing has to be fetched."""
    texts = {name: _own(f"{name}.js").encode() for name in _MODULES}
    return {name: f"data:text/javascript;base64,{base64.b64encode(t).decode()}" for name, t in texts.items()}


def _own(name: str) -> str:
    return files("harness.results.html").joinpath("page", name).read_text("utf-8")
