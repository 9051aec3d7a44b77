"""What a sweep says at its end: the table, the figure, and which runs are missing and why."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import ConfigError, MissingDependency
from harness.results.comparison import Comparison, Measured, compare, graded
from harness.results.drafting import Drafted
from harness.results.figures.definition import Definition
from harness.results.parallelism import Area
from harness.results.parts import as_rows
from harness.results.store import Store

if TYPE_CHECKING:
    from pyarrow import Table
    from rich.console import Console

    from harness.results.figures.making import Theory

_PIPE_COLUMNS = 100


@dataclass(frozen=True, kw_only=True)
class SweepSummary:
    """The results of a sweep: paths of its figure, its table as markdown, and all of it as JSON-able `values`."""

    figures: tuple[Path, ...]
    markdown: str
    values: dict[str, object]


def summarize(
    results_dir: Path | str,
    run_ids: Sequence[str],
    console: "Console",
    figure_path: Path | None,
    definition: Definition | None = None,
    theory: "Theory | None" = None,
    settings: Mapping[str, str] | None = None,
) -> SweepSummary:
    """Print the tables of the runs, write figure and tables to `figure_path` with their suffixes, return all.

    Runs that failed, were skipped or cannot be read are listed with their reason. Without matplotlib the figure is
    left out and the console says so. Areas under parallelism are shown where a method has several settings, and the
    shares of answers that have emerged where the figure is about them. `settings` are how the sweep spells those of its
    runs, by `run_id`; others are spelled as stored.
    """
    from harness.results import convergence, drafting, table
    from harness.results.convergence import emergences
    from harness.results.parallelism import areas

    store = Store(root=results_dir)
    chosen = store.chosen(run_ids)
    runs = chosen.table("runs")
    measured = [_spelled(one, settings or {}) for one in graded(chosen, runs, run_ids)]
    overall, per_task = compare(measured), compare(measured, per_task=True)
    every_area = areas(per_task)
    under = every_area if any(area.points > 1 for area in every_area) else []
    emerged = emergences(store, run_ids) if definition is not None and definition.kind == "convergence" else []
    drafted = drafting.drafting(overall, measured)
    markdown = table.markdown(overall, under) if overall else ""
    if drafted:
        markdown += f"\n\n{drafting.markdown(drafted)}"
    if emerged:
        shares = convergence.markdown(emerged)
        markdown += f"\n\n{shares}"
        console.print(shares, highlight=False, soft_wrap=True, markup=False)
    if overall:
        _print_tables(console, overall, per_task, under, drafted)
    missing = _missing(runs, run_ids, {one.run["run_id"] for one in measured})
    for line in missing:
        console.print(
            f"{line['status']}: {line['run']}: {line['reason']}", style="yellow", soft_wrap=True, markup=False
        )
    figures = _drawn(store, definition, run_ids, figure_path, theory, console) if definition and figure_path else ()
    if overall and figure_path:
        figure_path.parent.mkdir(parents=True, exist_ok=True)
        (figure_path.parent / f"{figure_path.name}.md").write_text(markdown + "\n")
    values = {
        "overall": [asdict(one) for one in overall],
        "per_task": [asdict(one) for one in per_task],
        "areas": [asdict(one) for one in under],
        "drafts": [asdict(one) for one in drafted],
        "missing": missing,
        "figures": [str(path) for path in figures],
    }
    return SweepSummary(figures=figures, markdown=markdown, values=values)


def _print_tables(
    console: "Console",
    overall: Sequence[Comparison],
    per_task: Sequence[Comparison],
    areas: Sequence[Area],
    drafted: Sequence[Drafted],
) -> None:
    """Print all tables, those without rows left out, and behind them what a reader needs to know."""
    from harness.results import drafting, table

    wide = console if console.is_terminal else _plain(console)
    tables = [table.overview(overall), *table.by_task(per_task, narrow=console.is_terminal)]
    tables += [*([table.parallelism(areas)] if areas else []), *([drafting.grid(drafted)] if drafted else [])]
    for grid in tables:
        wide.print(grid, highlight=False)
    notes = [*([table.AREA_NOTE] if areas else []), *(drafting.notes(drafted) if drafted else [])]
    for note in (*table.notes(overall), *notes):
        wide.print(note, style="dim", highlight=False, markup=False)


def _spelled(one: Measured, settings: Mapping[str, str]) -> Measured:
    setting = settings.get(one.run["run_id"], one.run["setting"])
    return replace(one, run=one.run | {"setting": setting})


def _plain(console: "Console") -> "Console":
    from rich.console import Console

    return Console(file=console.file, width=max(_PIPE_COLUMNS, console.width), color_system=None)


def _missing(runs: "Table", run_ids: Sequence[str], measured: set[str]) -> list[dict[str, str]]:
    stored = {row["run_id"]: row for row in as_rows(runs)}
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
    store: Store,
    definition: Definition,
    run_ids: Sequence[str],
    path: Path,
    theory: "Theory | None",
    console: "Console",
) -> tuple[Path, ...]:
    """Return the files of a figure, drawn unless they show these runs already."""
    from harness.results.figures import drawn
    from harness.results.figures.making import draw, points_of, save
    from harness.results.figures.selected import select

    try:
        selected = select(store, definition, {"run_id": run_ids})
        points = points_of(selected, theory)
        origin = drawn.origin_of(selected, points)
        if there := drawn.current(path, origin):
            return tuple(there)
        written = save(draw(selected, points), path)
    except (ConfigError, MissingDependency) as error:
        console.print(f"no figure: {error}", style="yellow", soft_wrap=True, markup=False)
        return ()
    drawn.note(path, origin, written)
    return tuple(written)
