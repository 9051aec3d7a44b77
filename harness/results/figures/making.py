"""From a definition and a store to files that say what is in them."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError, DataError, listed
from harness.results.figures.columns import text_of
from harness.results.figures.definition import Definition
from harness.results.figures.frame import Frame
from harness.results.figures.scatter import TheoryPoint
from harness.results.figures.selected import Filters, Selected, select
from harness.results.figures.style import drawing
from harness.results.iso_quality import Found, Search, notes
from harness.results.published import Paper, PublishedTable, beside, caption
from harness.results.store import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".svg", ".pdf", ".png", ".csv")
_SETTINGS = ("model", "task", "protocol", "gen_length", "batch_size", "batching", "dtype", "device", "measure")
_MOST_NAMED = 4
_MOVED = "Markers that would hide each other are moved up or down."

Theory = Callable[[Sequence[Mapping[str, Any]]], Sequence[TheoryPoint]]


@dataclass(frozen=True, kw_only=True)
class Made:
    """A figure, the data that it draws, and what is written into its files; all for one definition."""

    name: str
    figure: "Figure"
    data: Frame
    caption: str
    provenance: dict[str, Any]


def make(store: Store, definition: Definition, filters: Filters | None = None, theory: Theory | None = None) -> Made:
    """Draw a figure from stored runs.

    `theory` gives what an ideal sampler reaches on the tasks of runs. Raises ConfigError where no run has what is
    drawn, and MissingDependency without matplotlib.
    """
    selected = select(store, definition, filters)
    return draw(selected, points_of(selected, theory))


def points_of(selected: Selected, theory: Theory | None) -> Sequence[TheoryPoint]:
    """Return what an ideal sampler reaches on the tasks of runs, where their figure shows it."""
    return theory(selected.runs) if theory and selected.definition.theory else ()


def draw(selected: Selected, theory: Sequence[TheoryPoint]) -> Made:
    """Draw a figure from its runs; raises what `make` does."""
    definition = selected.definition
    kind: Any = import_module(f"harness.results.figures.{definition.kind}")
    with drawing():
        frame = kind.data(selected, **({"theory": theory} if definition.theory else {}))
        if not len(frame):
            raise ConfigError(f"{definition.name}: {_lacking(selected)}")
        figure = kind.draw(frame, definition)
    caption = f"{caption_of(selected)} {kind.INTERVAL[:1].upper()}{kind.INTERVAL[1:]}. {_MOVED}"
    return Made(name=definition.name, figure=figure, data=frame, caption=caption, provenance=_provenance(selected))


def make_published(store: Store, paper: Paper, table: PublishedTable) -> Made:
    """Draw a published table beside what stored runs measure; raise MissingDependency without matplotlib."""
    from harness.results.figures.published import draw

    with drawing():
        frame = beside(store, table)
        figure = draw(frame, table)
    measured = sorted({run for runs in frame["runs"] for run in runs.split()})
    provenance = {"decbench": version("decbench"), "paper": paper.paper, "source": table.source, "runs": measured}
    return Made(
        name=f"{paper.name} {table.name}",
        figure=figure,
        data=frame,
        caption=caption(paper, table),
        provenance=provenance,
    )


def make_search(search: Search, found: Sequence[Found]) -> Made:
    """Draw what a search has found; raise MissingDependency without matplotlib."""
    from harness.results.figures import iso_quality

    with drawing():
        frame = iso_quality.data(search, found)
        figure = iso_quality.draw(frame, search)
    provenance = {"decbench": version("decbench"), "search": search.search_id, "split": search.split,
                  "runs": sorted({run for one in found for run in one.runs})}  # fmt: skip
    told = f"{notes(search, ())[0]} {iso_quality.INTERVAL[:1].upper()}{iso_quality.INTERVAL[1:]}. {_MOVED}"
    return Made(name=search.name or search.search_id, figure=figure, data=frame, caption=told, provenance=provenance)


def make_rows(
    kind: str, rows: Sequence[Mapping[str, Any]], *, summary: str, provenance: Mapping[str, Any], **drawn: Any
) -> Made:
    """Draw rows that come from no store: of `kind`, a module with `draw` and `INTERVAL`, which is told `drawn` as well.

    Raises MissingDependency without matplotlib.
    """
    module: Any = import_module(f"harness.results.figures.{kind}")
    with drawing():
        import pandas as pd

        frame = pd.DataFrame([*rows])
        figure = module.draw(frame, **drawn)
    told = f"{summary} {module.INTERVAL[:1].upper()}{module.INTERVAL[1:]}."
    held = {"decbench": version("decbench"), **provenance}
    return Made(name=kind, figure=figure, data=frame, caption=told, provenance=held)


def files_of(path: Path) -> list[Path]:
    """Return the files of a figure: `path` with each suffix. A name may hold a full stop: none is taken from it."""
    return [path.parent / f"{path.name}{suffix}" for suffix in SUFFIXES]


def save(made: Made, path: Path) -> list[Path]:
    """Write `path` as svg, pdf, png and csv, the same bytes for the same data; return the paths.

    Caption and provenance (JSON) stand in the metadata of the pictures: Description and Source of svg and png, Subject
    and Keywords of pdf. Raises DataError where the folder cannot be written.
    """
    svg, pdf, png, csv = files_of(path)
    source = json.dumps(made.provenance, sort_keys=True)
    told = {"Title": made.name, "Description": made.caption, "Source": source}
    in_pdf = {"Title": made.name, "Subject": made.caption, "Keywords": source, "Creator": "decbench"}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with drawing():
            made.figure.savefig(svg, metadata={**told, "Creator": "decbench", "Date": None})
            made.figure.savefig(pdf, metadata={**in_pdf, "Producer": None, "CreationDate": None})
            made.figure.savefig(png, metadata={**told, "Software": "decbench"})
        made.data.to_csv(csv, index=False, float_format="%.6g")
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path.parent}: cannot be written ({reason}); choose another folder") from error
    return [svg, pdf, png, csv]


def _lacking(selected: Selected) -> str:
    definition = selected.definition
    drawn = ", ".join((*definition.x, *definition.y)) or definition.kind
    traced = any(run["measure"] == "traced" for run in selected.runs)
    hint = "" if traced else "; steps are stored with measure=traced, times with measure=timed"
    return f"none of its {len(selected.runs)} runs has what is drawn ({drawn}){hint}"


def caption_of(selected: Selected) -> str:
    """Return what the runs have in common, and how many samples there are, as sentences for a caption."""
    settings = [f"{column}: {_named(selected, column)}" for column in _SETTINGS]
    counts = [run["n"] for run in selected.runs if run["n"] is not None]
    n = f"n = {min(counts)}" + (f" to {max(counts)}" if max(counts) > min(counts) else "") if counts else "n unknown"
    summary = selected.definition.summary.strip().rstrip(".")
    return f"{summary or selected.definition.name}. {'; '.join(settings)}; {n} samples per run."


def _named(selected: Selected, column: str) -> str:
    return listed(sorted({text_of(run, column) for run in selected.runs}), _MOST_NAMED)


def _provenance(selected: Selected) -> dict[str, Any]:
    definition = selected.definition
    asked = {name: getattr(definition, name) for name in ("kind", "x", "y", "groups", "panels", "log", "width")}
    on = {
        column: sorted({str(run[column]) for run in selected.runs})
        for column in ("git_commit", "dirty", "packages_sha256", "driver", "device")
    }
    return {
        "decbench": version("decbench"),
        "figure": {"name": definition.name, **asked},
        "filters": {column: sorted(values) for column, values in definition.runs.items()},
        "runs": {run["run_id"]: run["setting_id"] for run in selected.runs},
        **on,
    }
