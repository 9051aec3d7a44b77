"""The runs of a figure, and their samples and steps, each named by panel and group."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.errors import ConfigError
from harness.results.figures.columns import DERIVED, MEASURED_ON, REUSED, text_of
from harness.results.figures.definition import KINDS, Definition
from harness.results.figures.frame import Frame
from harness.results.requests import read_requests
from harness.results.scan import Scan
from harness.results.schemas import RUNS, SAMPLES
from harness.results.selection import matching, stored_columns
from harness.results.store import Store

Filters = Mapping[str, Iterable[str]]
_CONDITIONS = ("gen_length", "batch_size", "batching", "device", "dtype", "protocol")
_BESIDES = ("model", "method", "setting", "task", "template", "seed", "n", "measure", "config", "git_commit",
            "dirty", "packages_sha256", "driver", "throttled", "busy")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Selected:
    """Runs as rows of plain values; of runs that measured the same, the newest one that has it all.

    They stand as the sweep asked for them that last did, whichever ended first, those that no sweep asked for before
    all others, oldest first: so do panels and groups.
    """

    store: Store
    runs: tuple[dict[str, Any], ...]
    definition: Definition

    @property
    def ids(self) -> list[str]:
        """Names of the runs."""
        return [run["run_id"] for run in self.runs]

    def group(self, run: Mapping[str, Any]) -> str:
        """Return the name of the group that a run is in, without what is equal for all."""
        return " · ".join(text_of(run, column) for column in self._telling)

    def panel(self, run: Mapping[str, Any]) -> str:
        """Return the name of the panel that a run is in; empty where there is one panel."""
        return text_of(run, self.definition.panels) if self.definition.panels else ""

    def setting(self, run: Mapping[str, Any]) -> str:
        """Return what a run did: its setting, and the conditions in which the runs differ."""
        return " ".join([run["setting"], *(f"{one}={text_of(run, one)}" for one in self._conditions)])

    def named(self, table: str, columns: Sequence[str]) -> Frame:
        """Return columns of samples or steps of all runs, with those of runs, as they are called in the figure."""
        import pandas as pd

        rows = self.store.read(table, self.ids, columns).select(["run_id", *columns]).to_pandas()
        names = pd.DataFrame(
            [
                {"run_id": run["run_id"], "panel": self.panel(run), "group": self.group(run),
                 "setting": self.setting(run), "model": run["model"], "task": run["task"]}
                for run in self.runs
            ]
        )  # fmt: skip
        return names.merge(rows, on="run_id")

    @cached_property
    def _telling(self) -> Sequence[str]:
        """The columns that tell groups apart; found once, since it takes a look at every run."""
        groups = self.definition.groups
        return self._varying(groups) or groups[-1:]

    @cached_property
    def _conditions(self) -> Sequence[str]:
        """The conditions in which runs differ and that the figure does not show otherwise."""
        shown = {*self.definition.x, *self.definition.groups, self.definition.panels}
        return self._varying([one for one in _CONDITIONS if one not in shown])

    def _varying(self, columns: Sequence[str]) -> list[str]:
        return [one for one in columns if len({text_of(run, one) for run in self.runs}) > 1]


def select(store: Store, definition: Definition, filters: Filters | None = None) -> Selected:
    """Return the runs that pass the filters of a definition and further ones.

    Raises ConfigError where none does, where protocols would be mixed, and where what was measured on different
    machines would be.
    """
    allowed = {"status": {"ok"}, **{column: set(values) for column, values in definition.runs.items()}}
    for column, values in (filters or {}).items():
        allowed[column] = allowed[column] & {*values} if column in definition.runs else {*values}
    columns = stored_columns([*_CONDITIONS, *_BESIDES, *filter(_of_runs, definition.columns)])
    asked = read_requests(store)
    found = matching(Scan(store.folder), allowed, columns, names=asked.names())
    if not found:
        told = " ".join(f"{column}={','.join(sorted(values))}" for column, values in sorted(allowed.items()))
        raise ConfigError(
            f"{definition.name}: no run in {store.root} has {told}; decbench results list shows what is stored"
        )
    if REUSED in definition.columns:
        _add_reuse(store, found)
    place = {str(row["run_id"]): at for at, row in enumerate(asked.rows)}
    runs = sorted(_newest(found, definition), key=lambda run: place.get(run["run_id"], -1))
    selected = Selected(store=store, runs=tuple(runs), definition=definition)
    _refuse_mixtures(selected)
    return selected


def _of_runs(column: str) -> bool:
    return column not in DERIVED and (column in RUNS.names or column not in SAMPLES.names)


def _newest(runs: Sequence[dict[str, Any]], definition: Definition) -> tuple[dict[str, Any], ...]:
    """Return the newest run of each setting that has all that is drawn, or the newest one; conditions that matter tell
    apart.

    Device and batches change no answer: they tell runs apart where times or memory are drawn, or they are drawn.
    """
    drawn = {*definition.columns}
    conditions = [one for one in ("batch_size", "batching", "device") if drawn & MEASURED_ON or one in drawn]
    best: dict[tuple[Any, ...], dict[str, Any]] = {}
    for run in runs:
        key = (run["setting_id"], *(run[one] for one in conditions))
        if key not in best or _whole(run, definition) or not _whole(best[key], definition):
            best[key] = run
    chosen = {id(one) for one in best.values()}
    return tuple(run for run in runs if id(run) in chosen)


def _whole(run: Mapping[str, Any], definition: Definition) -> bool:
    """Say whether a run has every column that a figure looks at, and the steps that its kind reads."""
    needed = [one for one in definition.columns if one in RUNS.names or one == REUSED]
    steps = run["measure"] == "traced" or not KINDS[definition.kind].of_steps
    return steps and all(run[one] is not None for one in needed)


def _refuse_mixtures(selected: Selected) -> None:
    definition = selected.definition
    apart = {*definition.groups, definition.panels}
    mixed = ["protocol", *(["device"] if {*definition.columns} & MEASURED_ON else [])]
    for column in mixed:
        values = sorted({text_of(run, column) for run in selected.runs})
        if len(values) > 1 and column not in apart:
            raise ConfigError(
                f"{definition.name}: its runs have several values of {column}, {', '.join(values)}, which no figure "
                f"mixes; choose one, {column}={values[0]}, or name {column} under groups or panels"
            )


def _add_reuse(store: Store, runs: Sequence[dict[str, Any]]) -> None:
    """Give every run the share of visible positions that its calls took from caches, None without steps."""
    rows = store.read("steps", [run["run_id"] for run in runs], ["n_computed", "n_reused"])
    sums = {
        row["run_id"]: (row["n_computed_sum"], row["n_reused_sum"])
        for row in rows.group_by("run_id").aggregate([("n_computed", "sum"), ("n_reused", "sum")]).to_pylist()
    }
    for run in runs:
        computed, reused = sums.get(run["run_id"], (0, 0))
        run[REUSED] = reused / (computed + reused) if computed and reused is not None else None
