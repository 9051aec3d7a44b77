"""Published tables beside what stored runs measure: the rows and columns of a paper, and a gap where nothing was run.

A file (`conf/published`) holds the values of a paper as printed, with their source, and for every row and column which
runs would measure it. A cell is measured by all runs that pass the filters of its table, row and column; several weigh
equally. What compares with a baseline compares with the cell of the baseline's row or column.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from statistics import fmean
from typing import Any

from harness.errors import ConfigError
from harness.results.convergence import emerged, emergences
from harness.results.export import latex_text
from harness.results.figures.columns import check_column, text_of
from harness.results.figures.definition import read_filters
from harness.results.figures.frame import Frame
from harness.results.repeated import num_samples
from harness.results.scan import Scan
from harness.results.selection import matching
from harness.results.statistics import Estimate, wilson
from harness.results.store import Store

Filters = Mapping[str, frozenset[str]]
Run = Mapping[str, Any]

QUANTITIES = {
    "accuracy": "accuracy, %",
    "accuracy_gain": "accuracy, points gained",
    "tps": "tokens per second",
    "nfe": "model calls",
    "tpf": "tokens per call",
    "latency_s": "seconds per sample",
    "speedup_tps": "throughput, times",
    "speedup_nfe": "fewer calls, times",
    "speedup_wall": "less time, times",
    "steps_share": "calls, % of the baseline's",
    "emerged_25": "emerged by 25 % of the steps, %",
    "emerged_50": "emerged by 50 % of the steps, %",
}
"""What tables hold, and how a reader knows it; accuracies and shares in percent."""

_GAP = "-"
_COLUMNS = ("model", "method", "setting", "task", "protocol", "n", "accuracy", "tps", "nfe", "tpf", "latency_s",
            "config", "device", "gen_length", "measure")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """A table: filters of all its runs, of its rows (`down`) and columns (`across`), and printed values.

    `cells` holds, by row and column, one value per quantity, None where there is none. `baseline` names a row or a
    column.
    """

    name: str
    title: str
    source: str
    runs: Filters
    down: Mapping[str, Filters]
    across: Mapping[str, Filters]
    quantities: tuple[str, ...]
    cells: Mapping[tuple[str, str], tuple[float | None, ...]]
    baseline: str | None = None
    experiment: str | None = None

    def baseline_of(self, row: str, column: str) -> tuple[str, str] | None:
        """Return row and column of the cell that another one is compared with."""
        if self.baseline is None:
            return None
        return (self.baseline, column) if self.baseline in self.down else (row, self.baseline)


@dataclass(frozen=True, kw_only=True)
class Paper:
    """The tables of a paper."""

    name: str
    paper: str
    tables: tuple[PublishedTable, ...]


def read_paper(option: Mapping[str, Any], name: str) -> Paper:
    """Return the tables of a file; raise ConfigError, naming the place, for what does not fit together."""
    tables = tuple(_table(one, f"{name}: {one.get('name')}") for one in option["tables"])
    return Paper(name=name, paper=option["paper"], tables=tables)


def _table(option: Mapping[str, Any], where: str) -> PublishedTable:
    down, across = (
        {label: _filters(one, f"{where}: {label}") for label, one in option[key].items()} for key in ("down", "across")
    )
    quantities = tuple(option["quantities"])
    for one in quantities:
        if one not in QUANTITIES:
            raise ConfigError(f"{where}: {one}: no such quantity; known: {', '.join(QUANTITIES)}")
    cells = {}
    if list(option["cells"]) != list(down):
        raise ConfigError(f"{where}: cells: must have the rows {', '.join(down)}")
    for row, values in option["cells"].items():
        if len(values) != len(across) or any(len(one) != len(quantities) for one in values):
            raise ConfigError(f"{where}: {row}: must have {len(across)} cells of {len(quantities)} values")
        cells |= {(row, column): tuple(one) for column, one in zip(across, values, strict=True)}
    baseline = option.get("baseline")
    if baseline is not None and baseline not in (*down, *across):
        raise ConfigError(f"{where}: baseline: {baseline}: is no row and no column")
    return PublishedTable(
        name=option["name"], title=option["title"], source=option["source"], quantities=quantities, cells=cells,
        runs=_filters(option["runs"], where), down=down, across=across, baseline=baseline,
        experiment=option.get("experiment"),
    )  # fmt: skip


def _filters(option: object, where: str) -> Filters:
    found = read_filters(option, where)
    for column in found:
        check_column(column, where)
    return found


def beside(store: Store, table: PublishedTable) -> Frame:
    """Return one row per cell and quantity: `published`, `measured` with its interval, `n` and the `runs` behind it."""
    import pandas as pd

    found = matching(Scan(store.folder), {"status": {"ok"}}, _COLUMNS)
    having = {quantity: [run for run in found if _has(run, quantity)] for quantity in table.quantities}
    rows = []
    for (row, column), values in table.cells.items():
        base = table.baseline_of(row, column)
        for quantity, printed in zip(table.quantities, values, strict=True):
            mine = passing(having[quantity], table, row, column)
            others = passing(having[quantity], table, *base) if base else []
            measured = _measured(quantity, mine, others, store)
            rows.append({"row": row, "column": column, "quantity": quantity, "published": printed,
                         "measured": measured and measured.value, "low": measured and measured.low,
                         "high": measured and measured.high,
                         "n": num_samples(mine) if measured else None,
                         "runs": " ".join(run["run_id"] for run in mine) if measured else ""})  # fmt: skip
    return pd.DataFrame(rows)


def passing(runs: Sequence[Run], table: PublishedTable, row: str, column: str) -> list[Run]:
    """Return the newest run of every setting that passes all filters of a cell."""
    filters = [*table.runs.items(), *table.down[row].items(), *table.across[column].items()]
    passing = [run for run in runs if all(_text(run, key) in allowed for key, allowed in filters)]
    return list({(run["setting_id"], run["device"]): run for run in passing}.values())


def _text(run: Run, column: str) -> str:
    text = text_of(run, column)
    return "null" if text == "none" else text.lower() if text in ("True", "False") else text


def _has(run: Run, quantity: str) -> bool:
    """Say whether a run can tell a quantity: an older one may, where the newest of its setting cannot."""
    if quantity.startswith("emerged"):
        return run["measure"] == "traced"
    column, _ = _AGAINST.get(quantity, (quantity, None))
    return run[column] is not None


def _measured(quantity: str, runs: Sequence[Run], base: Sequence[Run], store: Store) -> Estimate | None:
    """Return what runs measure, None where they do not: nothing was run, or a ratio lacks its baseline."""
    if not runs:
        return None
    if quantity == "accuracy":
        return _accuracy(runs)
    if quantity.startswith("emerged"):
        return _emerged(store, runs, float(quantity.rpartition("_")[2]))
    if quantity in _PLAIN:
        return _point(_mean(runs, quantity))
    if not base:
        return None
    column, relation = _AGAINST[quantity]
    mine, other = _mean(runs, column), _mean(base, column)
    return None if mine is None or not other or not mine else _point(relation(mine, other))


_PLAIN = ("tps", "nfe", "tpf", "latency_s")
_AGAINST: dict[str, tuple[str, Callable[[float, float], float]]] = {
    "speedup_tps": ("tps", lambda mine, other: mine / other),
    "speedup_nfe": ("nfe", lambda mine, other: other / mine),
    "speedup_wall": ("latency_s", lambda mine, other: other / mine),
    "steps_share": ("nfe", lambda mine, other: 100 * mine / other),
    "accuracy_gain": ("accuracy", lambda mine, other: 100 * (mine - other)),
}


def _point(value: float | None) -> Estimate | None:
    return None if value is None else Estimate(value=value, low=None, high=None)


def _mean(runs: Sequence[Run], column: str) -> float | None:
    known = [run[column] for run in runs]
    return None if any(one is None for one in known) else fmean(known)


def _accuracy(runs: Sequence[Run]) -> Estimate | None:
    mean = _mean(runs, "accuracy")
    if mean is None:
        return None
    n = num_samples(runs)
    ends = wilson(round(mean * n), n)
    return Estimate(value=100 * mean, low=100 * (ends.low or 0), high=100 * (ends.high or 0))


def _emerged(store: Store, runs: Sequence[Run], percent: float) -> Estimate | None:
    found = emerged(emergences(store, [run["run_id"] for run in runs]), percent)
    if found is None:
        return None
    share = found.share
    return Estimate(value=100 * share.value, low=100 * (share.low or 0), high=100 * (share.high or 0))


def markdown(paper: Paper, table: PublishedTable, frame: Frame) -> str:
    """Return a table whose cells are published / measured, a dash where there is nothing."""
    heads, rows = _laid_out(table, frame, str)
    lines = [["", *heads], ["---"] * (1 + len(heads)), *rows]
    return f"{caption(paper, table)}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def latex(paper: Paper, table: PublishedTable, frame: Frame) -> str:
    """Return the same as a table environment with the rules of booktabs."""
    heads, rows = _laid_out(table, frame, latex_text)
    lines = "".join(f"{' & '.join(line)} \\\\\n" for line in rows)
    return (
        f"% needs \\usepackage{{booktabs}}\n\\begin{{table}}\n\\caption{{{latex_text(caption(paper, table))}}}\n"
        f"\\begin{{tabular}}{{l{'r' * len(heads)}}}\n\\toprule\n"
        f"{' & '.join(['', *heads])} \\\\\n\\midrule\n{lines}\\bottomrule\n\\end{{tabular}}\n\\end{{table}}\n"
    )


def caption(paper: Paper, table: PublishedTable) -> str:
    """Return what a table is, where its values were printed, and how its cells read."""
    wanted = f" Run by decbench run -m experiment={table.experiment}." if table.experiment else ""
    return (
        f"{table.title} ({paper.paper}, {table.source}). Cells: published / measured [Wilson 95 %], - where nothing "
        f"was printed or run.{wanted}"
    )


def _laid_out(table: PublishedTable, frame: Frame, escape: Callable[[str], str]) -> tuple[list[str], list[list[str]]]:
    cells = {(one.row, one.column, one.quantity): one for one in frame.itertuples()}
    heads = [(column, quantity) for column in table.across for quantity in table.quantities]
    titles = [escape(f"{column}: {QUANTITIES[quantity]}") for column, quantity in heads]
    rows = [[escape(row), *(escape(_cell(cells[row, *head])) for head in heads)] for row in table.down]
    return titles, rows


def _cell(one: Any) -> str:
    printed, measured = map(_number, (one.published, one.measured))
    ends = "" if _number(one.low) == _GAP else f" [{one.low:.1f}, {one.high:.1f}]"
    return f"{printed} / {measured}{ends}"


def _number(value: float | None) -> str:
    return _GAP if value is None or isnan(value) else f"{value:.4g}"
