"""What a sweep says at its end: the table, the figure, and which runs are missing and why."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import MissingDependency
from harness.results import drawn
from harness.results.comparison import compare, graded
from harness.results.store import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame
    from pyarrow import Table
    from rich.console import Console

    from harness.results.figures import TheoryPoint

_PIPE_COLUMNS = 100


@dataclass(frozen=True, kw_only=True)
class SweepSummary:
    """The results of a sweep: paths of its figure, its table as markdown, and all of it as JSON-able `values`."""

    figures: tuple[Path, ...]
    markdown: str
    values: dict[str, object]


def summarize(
    results_dir: Path,
    run_ids: Sequence[str],
    console: "Console",
    figure_path: Path | None,
    theory: "Sequence[TheoryPoint]" = (),
    kind: str = "calls",
) -> SweepSummary:
    """Print the tables of the runs, write figure and tables beside `figure_path` (svg, png, csv, md), return all.

    Runs that failed, were skipped or cannot be read are listed with their reason. Without matplotlib the figure is
    left out and the console says so. Areas under parallelism are shown where a method has several settings. `kind` is
    the figure: `calls`, accuracy over calls; `areas`; or `convergence`, of traced runs that predict whole responses.
    """
    from harness.results import convergence, parallelism, table
    from harness.results.convergence import emergences
    from harness.results.figures import accuracy_over_calls
    from harness.results.parallelism import areas

    store = Store(root=results_dir)
    runs, samples = store.read_together(["runs", "samples"], run_ids)
    measured = graded(runs, samples, run_ids)
    overall, per_task = compare(measured), compare(measured, per_task=True)
    every_area = areas(per_task)
    under = every_area if any(area.points > 1 for area in every_area) else []
    emerged = emergences(store, run_ids) if kind == "convergence" else []
    markdown = table.markdown(overall, under) if overall else ""
    if emerged:
        shares = convergence.markdown(emerged)
        markdown += f"\n\n{shares}"
        console.print(shares, highlight=False, soft_wrap=True, markup=False)
    if overall:
        wide = console if console.is_terminal else _plain(console)
        for grid in (table.overview(overall), *table.by_task(per_task), *([table.parallelism(under)] if under else [])):
            wide.print(grid, highlight=False)
        for note in (*table.notes(overall), *([table.AREA_NOTE] if under else [])):
            wide.print(note, style="dim", highlight=False, markup=False)
    missing = _missing(runs, run_ids, {one.run["run_id"] for one in measured})
    for line in missing:
        console.print(
            f"{line['status']}: {line['run']}: {line['reason']}", style="yellow", soft_wrap=True, markup=False
        )
    kinds: dict[str, tuple[Sequence[object], Callable[[], tuple[Figure, DataFrame]]]] = {
        "calls": ([one for one in per_task if one.nfe], lambda: accuracy_over_calls(per_task, theory)),
        "areas": (every_area, lambda: parallelism.draw(every_area)),
        "convergence": (emerged, lambda: convergence.draw(emerged)),
    }
    shown, draw = kinds[kind]
    origin = drawn.origin_of((kind, per_task, theory, emerged)) if shown else None
    figures = _drawn(origin, draw, figure_path, console) if per_task and figure_path else ()
    if overall and figure_path:
        figure_path.parent.mkdir(parents=True, exist_ok=True)
        figure_path.with_suffix(".md").write_text(markdown + "\n")
    values = {
        "overall": [asdict(one) for one in overall],
        "per_task": [asdict(one) for one in per_task],
        "areas": [asdict(one) for one in under],
        "missing": missing,
        "figures": [str(path) for path in figures],
    }
    return SweepSummary(figures=figures, markdown=markdown, values=values)


def _plain(console: "Console") -> "Console":
    from rich.console import Console

    return Console(file=console.file, width=max(_PIPE_COLUMNS, console.width), color_system=None)


def _missing(runs: "Table", run_ids: Sequence[str], measured: set[str]) -> list[dict[str, str]]:
    stored = {row["run_id"]: row for row in runs.to_pylist()}
    lines: list[dict[str, str]] = []
    for run_id in dict.fromkeys(run_ids):
        row = stored.get(run_id)
        if run_id in measured:
            continue
        if row is None:
            lines.append({"status": "lost", "run": run_id, "reason": "its file cannot be read"})
        elif row["status"] == "ok" and row["accuracy"] is None:
            lines.append({"status": "not graded", "run": _name(row), "reason": "; ".join(row["warnings"])})
        elif row["status"] == "ok":
            lines.append({"status": "lost", "run": _name(row), "reason": "its samples cannot be read"})
        else:
            lines.append({"status": row["status"], "run": _name(row), "reason": row["error"] or "no reason recorded"})
    return lines


def _name(row: dict[str, str]) -> str:
    return " ".join(row[key] for key in ("model", "setting", "task") if row[key] is not None)


def _drawn(
    origin: str | None, draw: "Callable[[], tuple[Figure, DataFrame]]", path: Path, console: "Console"
) -> tuple[Path, ...]:
    """Return the files of a figure, drawn unless they were from this `origin`; None is nothing to be drawn."""
    from harness.results import figures

    if origin is None:
        console.print("no figure: no run has what it shows", style="yellow")
        return ()
    if there := drawn.current(path, origin):
        return tuple(there)
    try:
        written = figures.save(*draw(), path)
    except MissingDependency as error:
        console.print(f"no figure: {error}", style="yellow", soft_wrap=True, markup=False)
        return ()
    drawn.note(path, origin, written)
    return tuple(written)
