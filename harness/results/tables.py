"""Tables of stored runs: one row per group, columns per panel and quantity, the best and its ties marked.

What is best is looked for among the rows of one model. A value ties with the best one where it is not significantly
worse on the same samples: exact McNemar of verdicts, paired bootstrap of counts and times, both at 5 percent among all
that are compared with the best one (Holm).
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from harness.results.comparison import MEASURED, Measured, by_sample, discordant, graded
from harness.results.export import latex_text
from harness.results.figures.columns import MORE_IS_BETTER, label, number_of, scale
from harness.results.figures.frame import Frame
from harness.results.figures.selected import Selected
from harness.results.multiplicity import holm
from harness.results.repeated import num_samples
from harness.results.statistics import mcnemar, paired_means

_SIGNIFICANT = 0.05
_DIGITS = {"accuracy": 1, "accuracy_strict": 1, "nfe": 1, "query_tokens": 0, "tpf": 2, "tps": 1}
NOTE = "Bold: best of its model. Dagger: not significantly worse on the same samples (McNemar, paired bootstrap; Holm)"
_COLUMNS = ["panel", "column", "model", "group", "value", "n", "best", "tie", "runs"]


def data(selected: Selected) -> Frame:
    """Return one row per cell: `best` and `tie` as the module says, None where a tie cannot be told."""
    import pandas as pd

    answered = _Answered(_measured(selected))
    cells: dict[tuple[str, str, str], dict[str, list[dict[str, Any]]]] = {}
    for run in selected.runs:
        for column in selected.definition.y:
            if number_of(run, column, selected.definition.name) is not None:
                key = (selected.panel(run), column, run["model"])
                cells.setdefault(key, {}).setdefault(selected.group(run), []).append(run)
    rows = []
    for (panel, column, model), groups in cells.items():
        values = {group: fmean(float(run[column]) for run in runs) for group, runs in groups.items()}
        best = (max if column in MORE_IS_BETTER else min)(values.values())
        leader = groups[next(group for group, value in values.items() if value == best)]
        ties = _ties(
            {group: _p_value(leader, runs, column, answered) for group, runs in groups.items() if values[group] != best}
        )
        for group, runs in groups.items():
            tie = values[group] == best or ties[group]
            rows.append({"panel": panel, "column": column, "model": model, "group": group, "value": values[group],
                         "n": num_samples(runs), "best": values[group] == best, "tie": tie,
                         "runs": " ".join(run["run_id"] for run in runs)})  # fmt: skip
    return pd.DataFrame(rows, columns=_COLUMNS)


def _measured(selected: Selected) -> dict[str, Measured]:
    """Return what is to be compared of the samples of each run, by its name, and nothing else."""
    chosen = selected.store.chosen(selected.ids)
    runs = chosen.table("runs", ["status", "accuracy", "task"])
    columns = [one for one in MEASURED if one in ("correct", *selected.definition.y)]
    return {one.run["run_id"]: one for one in graded(chosen, runs, selected.ids, columns)}


def _ties(p_values: Mapping[str, float | None]) -> dict[str, bool | None]:
    """Return which groups are not significantly worse than the best one; None where that cannot be told."""
    known = {group: p for group, p in p_values.items() if p is not None}
    adjusted = dict(zip(known, holm([*known.values()]), strict=True))
    return {group: adjusted[group] >= _SIGNIFICANT if group in known else None for group in p_values}


Condition = tuple[str, str, int]


class _Answered:
    """What groups of runs answered; the means over the runs of a task are made once, though columns ask again."""

    def __init__(self, samples: Mapping[str, Measured]) -> None:
        self._samples = samples
        self._cells: dict[tuple[str, ...], list[Measured]] = {}

    def runs(self, group: Sequence[Mapping[str, Any]]) -> dict[Condition, Measured] | None:
        """Return the runs of a group by task, template and seed, sorted; None where one is unread or there are two."""
        read = {
            (run["task"], run["template"], run["seed"]): self._samples[run["run_id"]]
            for run in group
            if run["run_id"] in self._samples
        }
        return {key: read[key] for key in sorted(read, key=str)} if len(read) == len(group) else None

    def cells(self, runs: Mapping[Condition, Measured]) -> list[Measured]:
        """Return one run per task, as `by_sample` makes it."""
        key = tuple(one.run["run_id"] for one in runs.values())
        if key not in self._cells:
            self._cells[key] = by_sample([*runs.values()])
        return self._cells[key]


def _p_value(
    best: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]], column: str, answered: _Answered
) -> float | None:
    """Return the p-value of runs that are as good as the best ones; None where their samples are not the same."""
    top, others = answered.runs(best), answered.runs(runs)
    if top is None or others is None or top.keys() != others.keys():
        return None
    if not all(one.answers_what(others[condition]) for condition, one in top.items()):
        return None
    first, second = answered.cells(top), answered.cells(others)
    if column == "accuracy":
        return mcnemar(*discordant(first, second)).exact
    if any(column not in one.samples.column_names for one in (*first, *second)):
        return None
    best_cells, cells = ([one.column(column)[:, None] for one in side] for side in (first, second))
    return paired_means(best_cells, cells).gain_p(0)


def as_csv(frame: Frame, caption: str) -> str:
    """Return every cell in full, a line each."""
    return frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def as_markdown(frame: Frame, caption: str) -> str:
    """Return the table, and below it the caption and what marks mean."""
    heads, rows = _laid_out(frame, {"best": "**{}**", "tie": "{}†", "none": "{}", "gap": "-"})
    titles = ["", *(f"{panel} {label(column)}".strip() for panel, column in heads)]
    lines = [titles, ["---", *["---:"] * len(heads)], *rows]
    escaped = ([cell.replace("|", r"\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped) + f"\n{caption}\n{NOTE} (†).\n"


def as_latex(frame: Frame, caption: str) -> str:
    """Return a table environment with the rules of booktabs, the columns of a panel under one heading."""
    marks = {"best": r"\textbf{{{}}}", "tie": r"{}$^{{\dagger}}$", "none": "{}", "gap": "--"}
    heads, rows = _laid_out(frame, marks, escape=latex_text)
    panels = list(dict.fromkeys(panel for panel, _ in heads))
    lines, at = [], 2
    if panels != [""]:
        over, rules = [], []
        for panel in panels:
            width = sum(one == panel for one, _ in heads)
            over.append(rf"\multicolumn{{{width}}}{{c}}{{{latex_text(panel)}}}")
            rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
            at += width
        lines += [f" & {' & '.join(over)} \\\\", " ".join(rules)]
    lines += [f" & {' & '.join(latex_text(label(column)) for _, column in heads)} \\\\", r"\midrule"]
    lines += [f"{' & '.join(row)} \\\\" for row in rows]
    return (
        f"% needs \\usepackage{{booktabs}}\n\\begin{{table}}\n\\caption{{{latex_text(caption)} {NOTE}.}}\n"
        f"\\begin{{tabular}}{{l{'r' * len(heads)}}}\n\\toprule\n" + "\n".join(lines) + "\n"
        "\\bottomrule\n\\end{tabular}\n\\end{table}\n"
    )  # fmt: skip


FORMATS: dict[str, Callable[[Frame, str], str]] = {
    "markdown": as_markdown,
    "latex": as_latex,
    "csv": as_csv,
}


def _laid_out(
    frame: Frame, marks: Mapping[str, str], escape: Callable[[str], str] = str
) -> tuple[list[tuple[str, str]], list[list[str]]]:
    """Return panel and quantity of every column, and the rows, labels first."""
    columns = list(dict.fromkeys(frame["column"]))
    heads = [(panel, column) for panel in dict.fromkeys(frame["panel"]) for column in columns]
    cells = {(one.group, one.panel, one.column): one for one in frame.itertuples()}
    rows = []
    for group in dict.fromkeys(frame["group"]):
        found = [cells.get((group, *head)) for head in heads]
        rows.append([escape(group), *(_cell(one, marks) for one in found)])
    return heads, rows


def _cell(one: Any, marks: Mapping[str, str]) -> str:
    if one is None:
        return marks["gap"]
    text = f"{scale(one.column) * one.value:.{_DIGITS.get(one.column, 3)}f}"
    return marks["best" if one.best else "tie" if one.tie else "none"].format(text)
