"""What came of drafts, setting by setting: ratios of totals over all runs of a setting, and what target and draft cost.

Listed are the settings of models with which something is drafted, those that draft nothing among them.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from harness.results.comparison import Comparison, Measured, baseline_of

if TYPE_CHECKING:
    from rich.table import Table

_UNKNOWN = "-"
_NUMBERS = ("tau", "drafted", "stand %", "nfe", "draft", "query", "draft", "loads", "draft", "x loads", "waste %")
_HEADER = ("setting", *_NUMBERS)
_DIGITS = (2, 2, 1, 1, 1, 0, 0, 1, 1, 2, 1)
NOTES = (
    "tau: tokens per round, the target's own included; stand: of drafted tokens (of chains alone)",
    "draft: work to draft, of the number before it, but beside nfe; loads: layers; waste: tokens not in answers",
)


@dataclass(frozen=True, kw_only=True)
class Drafted:
    """One setting: numbers per sample, but for lengths and shares; None where a method has none, or it is not known."""

    model: str
    setting: str
    accepted_length: float | None
    draft_length: float | None
    acceptance_rate: float | None
    nfe: float | None
    nfe_draft: float | None
    query_tokens: float | None
    query_tokens_draft: float | None
    layer_loads: float | None
    layer_loads_draft: float | None
    times_loads: float | None
    waste: float | None
    asked: Mapping[str, Mapping[str, float]]

    @property
    def cells(self) -> tuple[str, ...]:
        """The numbers as the table has them."""
        rate, waste = (None if one is None else 100 * one for one in (self.acceptance_rate, self.waste))
        lengths = (self.accepted_length, self.draft_length, rate)
        calls = (self.nfe, None if self.accepted_length is None else self.nfe_draft)
        work = (self.query_tokens, self.query_tokens_draft, self.layer_loads, self.layer_loads_draft)
        numbers = (*lengths, *calls, *work, self.times_loads, waste)
        return tuple(map(_number, numbers, _DIGITS))


def drafting(comparisons: Sequence[Comparison], measured: Sequence[Measured]) -> list[Drafted]:
    """Return an entry for every comparison of models with which something is drafted, in their order.

    `measured` are the runs that were compared.
    """
    by_id = {one.run["run_id"]: one for one in measured}
    groups = [(one, [by_id[run_id] for run_id in one.run_ids]) for one in comparisons]
    drafts = {one.model for one, runs in groups if any(run.run.get("rounds") is not None for run in runs)}
    return [_drafted(one, runs, measured) for one, runs in groups if one.model in drafts]


def _drafted(one: Comparison, group: Sequence[Measured], measured: Sequence[Measured]) -> Drafted:
    runs = [each.run for each in group]
    base = [found.run for each in group if (found := baseline_of(each, measured)) is not None]
    loads, base_loads = _total(runs, "layer_loads"), _total(base, "layer_loads")
    rounds, drafts, accepted = (_total(runs, name) for name in ("rounds", "draft_tokens", "accepted_draft_tokens"))
    chains = all(run["acceptance_rate"] is not None for run in runs if run["draft_tokens"])
    n = sum(run["n"] for run in runs)
    names = ("nfe", "nfe_draft", "query_tokens", "query_tokens_draft", "layer_loads", "layer_loads_draft")
    means = {name: None if (total := _total(runs, name)) is None else total / n for name in names}
    kept = _ratio(_total(runs, "tokens_out"), _total(runs, "tokens_generated"))
    return Drafted(
        model=one.model,
        setting=one.setting,
        accepted_length=None if accepted is None or not rounds else 1 + accepted / rounds,
        draft_length=_ratio(drafts, rounds),
        acceptance_rate=_ratio(accepted, drafts) if chains else None,
        **means,
        times_loads=_ratio(base_loads, loads) if len(base) == len(runs) else None,
        waste=None if kept is None else 1 - kept,
        asked=_asked(runs, n),
    )


def _asked(runs: Sequence[Mapping[str, Any]], n: int) -> dict[str, dict[str, float]]:
    """Return what models by further roles were asked, per sample, by role; of runs that asked none that is nothing."""
    found: dict[str, dict[str, float]] = {}
    for run in runs:
        for role, numbers in json.loads(run.get("asked") or "{}").items():
            sums = found.setdefault(role, dict.fromkeys(numbers, 0.0))
            sums |= {name: sums[name] + run["n"] / n * mean for name, mean in numbers.items()}
    return found


def notes(drafted: Sequence[Drafted]) -> list[str]:
    """Return the lines that a reader needs below the table: what its words mean, and what other models were asked."""
    asked = [
        f"asked beside target and draft, per sample: {one.model} {one.setting}, {role}: {numbers['calls']:.1f} calls, "
        f"{numbers['query_tokens']:.0f} query tokens, {numbers['layer_loads']:.1f} layers"
        for one in drafted
        for role, numbers in one.asked.items()
    ]
    return [*NOTES, *asked]


def _total(runs: Iterable[Mapping[str, Any]], column: str) -> float | None:
    """Return the sum of a number over all samples; None where a run does not know it."""
    means = [(run["n"], run.get(column)) for run in runs]
    return None if not means or any(mean is None for _, mean in means) else sum(n * mean for n, mean in means)


def _ratio(one: float | None, other: float | None) -> float | None:
    return None if one is None or not other else one / other


def _number(value: float | None, digits: int) -> str:
    return _UNKNOWN if value is None else f"{value:.{digits}f}"


def grid(drafted: Sequence[Drafted]) -> "Table":
    """Return one row per model and setting."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=0)
    for place, title in enumerate(_HEADER):
        table.add_column(title, justify="right" if place else "left", overflow="fold", min_width=0 if place else 20)
    for model, rows in groupby(drafted, key=lambda one: one.model):
        table.add_row(Text(model, "bold"), *[""] * (len(_HEADER) - 1))
        for one in rows:
            table.add_row(Text(f" {one.setting}"), *map(Text, one.cells))
        table.add_section()
    return table


def markdown(drafted: Sequence[Drafted]) -> str:
    """Return the same as a markdown table, with its note."""
    header = ("model", *_HEADER)
    rows = [(one.model, one.setting, *one.cells) for one in drafted]
    lines = ["| " + " | ".join(row) + " |" for row in (header, ("---",) * len(header), *rows)]
    return "\n".join([*lines, "", *(f"{note}  " for note in notes(drafted))])
