"""Comparisons as tables: for a terminal, for a pipe and as markdown."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from harness.results.comparison import Comparison
from harness.results.parallelism import Area
from harness.results.statistics import Estimate

if TYPE_CHECKING:
    from rich.table import Table

UNKNOWN = "-"
LENGTH_MARK = "*"
_TASKS_PER_TABLE = 6
_SETTING_WIDTH = 23
_HEADER = ("setting", "accuracy %", "nfe", "tpf", "efe", "query", "ms", "x wall", "x nfe", "x efe")
_AREA_HEADER = ("method", "points", "tasks", "AUP")
NOTES: tuple[str, ...] = (
    "accuracy [Wilson 95 %]; nfe: model calls; tpf: tokens per call; efe: full forwards; query: tokens",
    "x: speedup [95 %] over one token per step with the same model and samples, never across models",
)
AREA_NOTE = "AUP: area under accuracy % over tokens per call, mean over tasks; it depends on the operating points"
LENGTH_NOTE = f"{LENGTH_MARK} answers more than 5 % longer or shorter than the baseline's"


def overview(comparisons: Sequence[Comparison]) -> "Table":
    """Return one row per model and setting; readable at 100 columns."""
    from rich.text import Text

    table = _grid(_HEADER)
    for model, rows in groupby(comparisons, key=lambda one: one.model):
        table.add_row(Text(model, "bold"), *[""] * (len(_HEADER) - 1))
        for one in rows:
            table.add_row(*map(Text, _cells(one)))
        table.add_section()
    return table


def by_task(comparisons: Sequence[Comparison], *, narrow: bool = True) -> "Iterator[Table]":
    """Yield tables of one row per model and setting and one column per task, each cell accuracy and mean nfe.

    Takes comparisons made per task; at most six tasks share a table. Where lines are `narrow`, names of tasks are
    broken.
    """
    from rich.text import Text

    cells = {(one.model, one.setting, one.tasks[0]): one for one in comparisons}
    tasks = list(dict.fromkeys(task for _, _, task in cells))
    settings = dict.fromkeys((model, setting) for model, setting, _ in cells)
    for start in range(0, len(tasks), _TASKS_PER_TABLE):
        some = tasks[start : start + _TASKS_PER_TABLE]
        table = _grid(("accuracy % / nfe", *(task.replace("_", "_\n", 1) if narrow else task for task in some)))
        for model, rows in groupby(settings, key=lambda row: row[0]):
            table.add_row(Text(model, "bold"), *[""] * len(some))
            for _, setting in rows:
                found = [cells.get((model, setting, task)) for task in some]
                table.add_row(Text(f" {setting}"), *[_task_cell(one) for one in found])
            table.add_section()
        yield table


def parallelism(areas: Sequence[Area]) -> "Table":
    """Return one row per model and method: its operating points and the area under them."""
    from rich.text import Text

    table = _grid(_AREA_HEADER)
    for model, rows in groupby(areas, key=lambda one: one.model):
        table.add_row(Text(model, "bold"), *[""] * (len(_AREA_HEADER) - 1))
        for one in rows:
            table.add_row(Text(f" {one.method}"), *_area_cells(one))
        table.add_section()
    return table


def markdown(comparisons: Sequence[Comparison], areas: Sequence[Area] = ()) -> str:
    """Return the overview as a markdown table, the paired difference of accuracy included, and the areas."""
    header = ("model", *_HEADER, "Δ accuracy %", "p (Holm)")
    rows = [(one.model, *(cell.strip() for cell in _cells(one)), _difference(one), _p(one)) for one in comparisons]
    lines = [*_markdown_lines(header, rows), "", *(f"{note}  " for note in notes(comparisons))]
    if areas:
        rows = [(one.model, one.method, *_area_cells(one)) for one in areas]
        lines += ["", *_markdown_lines(("model", "method", *_AREA_HEADER[1:]), rows), "", f"{AREA_NOTE}  "]
    return "\n".join(lines)


def _markdown_lines(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (header, ("---",) * len(header), *rows)]


def _area_cells(one: Area) -> tuple[str, str, str]:
    return str(one.points), str(len(one.tasks)), f"{one.value:.0f}"


def notes(comparisons: Sequence[Comparison]) -> list[str]:
    """Return the lines that a reader needs below the table."""
    lines: list[str] = list(NOTES)
    if any(one.against is not None and one.against.changes_length for one in comparisons):
        lines.append(LENGTH_NOTE)
    fewest, most = min(len(one.run_ids) for one in comparisons), max(len(one.run_ids) for one in comparisons)
    if fewest < most:
        few = ", ".join(f"{one.model} {one.setting}" for one in comparisons if len(one.run_ids) < most)
        lines.append(f"means over fewer than {most} runs, not comparable with the others: {few}")
    unfinished = [one for one in comparisons if one.unfinished]
    if unfinished:
        listed = ", ".join(f"{one.model} {one.setting} {one.unfinished} of {one.n}" for one in unfinished)
        lines.append(f"samples that used up their model calls and were ended as they stood: {listed}")
    spread = [one for one in comparisons if one.seeds is not None]
    if spread:
        listed = ", ".join(f"{one.model} {one.setting} {_seeds(one)}" for one in spread)
        lines.append(f"accuracy % over seeds, mean ± deviation (smallest to largest): {listed}")
    worst = [one for one in comparisons if one.worst_template < one.accuracy.value]
    if worst:
        listed = ", ".join(f"{one.model} {one.setting} {100 * one.worst_template:.1f}" for one in worst)
        lines.append(f"accuracy % under the worst template: {listed}")
    return lines


def _grid(header: Sequence[str]) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=0)
    first, *others = header
    table.add_column(first, overflow="fold", min_width=_SETTING_WIDTH)
    for title in others:
        table.add_column(title, justify="right", overflow="fold")
    return table


def _cells(one: Comparison) -> tuple[str, ...]:
    return (
        f" {one.setting}",
        _accuracy(one.accuracy),
        _number(one.nfe, 1),
        _number(one.tpf, 2),
        _number(one.efe, 1),
        _number(one.query_tokens, 0),
        _number(None if one.latency_s is None else 1000 * one.latency_s, 1),
        *_speedups(one),
    )


def _speedups(one: Comparison) -> tuple[str, str, str]:
    if one.against is None:
        return UNKNOWN, UNKNOWN, UNKNOWN
    wall, mark = one.against.speedup_wall, LENGTH_MARK if one.against.changes_length else ""
    return (
        UNKNOWN if wall is None else f"{wall.value:.2f} [{wall.low:.2f}, {wall.high:.2f}]{mark}",
        f"{one.against.speedup_nfe.value:.1f}",
        f"{one.against.speedup_efe.value:.1f}",
    )


def _accuracy(accuracy: Estimate) -> str:
    assert accuracy.low is not None and accuracy.high is not None
    return f"{100 * accuracy.value:.1f} [{100 * accuracy.low:.0f}, {100 * accuracy.high:.0f}]"


def _difference(one: Comparison) -> str:
    if one.against is None:
        return UNKNOWN
    change = one.against.accuracy_difference
    return f"{100 * change.value:+.1f} [{100 * (change.low or 0):.1f}, {100 * (change.high or 0):.1f}]"


def _seeds(one: Comparison) -> str:
    assert one.seeds is not None and one.seeds.deviation is not None
    mean, deviation = 100 * one.seeds.mean.value, 100 * one.seeds.deviation
    ends = f"{100 * one.seeds.smallest:.1f} to {100 * one.seeds.largest:.1f}"
    return f"{mean:.1f} ± {deviation:.1f} ({ends}) of {one.seeds.seeds}"


def _p(one: Comparison) -> str:
    return UNKNOWN if one.against is None or one.against.holm_p is None else f"{one.against.holm_p:.2g}"


def _task_cell(one: Comparison | None) -> str:
    return UNKNOWN if one is None else f"{100 * one.accuracy.value:.0f} / {_number(one.nfe, 1)}"


def _number(value: float | None, digits: int) -> str:
    return UNKNOWN if value is None else f"{value:.{digits}f}"
