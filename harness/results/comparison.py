"""Settings side by side, each against its paired baseline.

A baseline decodes one token per step with the same model on the same samples, under everything else that moves
a number: template, seed, lengths, batch, device, dtype, measurement. Nothing is compared across models.

What is counted, resampled and tested is a sample: what several seeds or templates make of it is its mean, and no
further sample.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from harness.results.canonical import canonical_setting
from harness.results.multiplicity import holm
from harness.results.parts import as_rows
from harness.results.repeated import Spread, over_seeds
from harness.results.schemas import BUDGET, shown
from harness.results.statistics import Estimate, mcnemar, paired_means, wilson
from harness.results.store import Chosen, Store

BASELINES = {"diffusion": "llada", "autoregressive": "ar_greedy"}
_CONDITIONS = ("gen_length", "batch_size", "batching", "device", "dtype", "measure")
_PAIRED = ("model", "family", "task", "protocol", "template", "seed", *_CONDITIONS)
_SAMPLE = ["sample_id", "prompt_sha256"]
_UNFINISHED = "unfinished"
MEASURED = ("correct", "nfe", "query_tokens", "tokens_out", "tokens_canvas", "prompt_tokens", "latency_s", _UNFINISHED)
"""What is known of every sample of a run."""

_LENGTH_TOLERANCE = 0.05
_EQUAL = 1e-9
_CORRECT, _NFE, _EFE, _LATENCY = range(4)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A successful run: its row, and its samples with repetitions averaged, ordered by sample."""

    run: dict[str, Any]
    samples: pa.Table

    def column(self, name: str) -> Any:
        """Return one quantity as an [N] array of float64; nan where it is not known."""
        return self.samples[name].to_numpy()

    @property
    def keys(self) -> list[tuple[str, str]]:
        """What tells its samples: their names, and the digests of their prompts."""
        return list(zip(*(self.samples[name].to_pylist() for name in _SAMPLE), strict=True))

    def answers_what(self, other: "Measured") -> bool:
        """Say whether its samples are those of another run."""
        return self.samples.select(_SAMPLE).equals(other.samples.select(_SAMPLE))

    def among(self, keys: Collection[tuple[str, str]]) -> "Measured":
        """Return the run with some of its samples alone."""
        return replace(self, samples=self.samples.filter([key in keys for key in self.keys]))


@dataclass(frozen=True, kw_only=True)
class AgainstBaseline:
    """What a setting gains and loses; ratios above 1 mean less work or time than the baseline.

    `lost` and `gained` count the samples that are answered less and more often. `p_value` is McNemar's mid-p of them,
    which is a sign test where a sample has several answers, and `holm_p` the same among all settings that are compared
    with the baseline, None for the baseline itself. `length_change` is the relative change of mean `tokens_out`.
    """

    baseline: str
    accuracy_difference: Estimate
    speedup_nfe: Estimate
    speedup_efe: Estimate
    speedup_wall: Estimate | None
    lost: int
    gained: int
    p_value: float
    holm_p: float | None
    length_change: float

    @property
    def changes_length(self) -> bool:
        """Say whether answers are so much longer or shorter that speedups need saying so."""
        return abs(self.length_change) > _LENGTH_TOLERANCE


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One setting over one or more tasks, which weigh equally; `against` is None where a baseline is missing.

    `accuracy` has a Wilson interval over all `n` samples, each counted once whatever its seeds and templates;
    `worst_template` is the lowest mean over templates; `seeds` is how accuracy spreads over them, None where there is
    one; `unfinished` counts the samples that were ended because they used up their model calls. Work is None where that
    of any sample is not known.
    """

    model: str
    family: str
    method: str
    setting: str
    tasks: tuple[str, ...]
    run_ids: tuple[str, ...]
    n: int
    accuracy: Estimate
    worst_template: float
    nfe: float | None
    tpf: float | None
    query_tokens: float | None
    efe: float | None
    latency_s: float | None
    unfinished: int = 0
    seeds: Spread | None = None
    against: AgainstBaseline | None


def load(store: Store, run_ids: Sequence[str]) -> list[Measured]:
    """Return the graded runs among `run_ids` whose samples can be read, in the order given."""
    chosen = store.chosen(run_ids)
    return graded(chosen, chosen.table("runs"), run_ids)


def graded(
    chosen: Chosen, stored: pa.Table, run_ids: Sequence[str], columns: Collection[str] = MEASURED
) -> list[Measured]:
    """Return what `load` does, of attempts and their rows of the table runs; `columns` are those of samples to read.

    Runs of the same samples share what names these: of millions of samples numbers alone are in memory.
    """
    rows = as_rows(stored)
    runs = {row["run_id"]: row for row in rows if row["status"] == "ok" and row["accuracy"] is not None}
    read = ["finish_reason" if column == _UNFINISHED else column for column in columns]
    orders, means = Orders(), dict[str, pa.Table]()
    for attempt, part in chosen.parts("samples", [*_SAMPLE, *read]):
        if part.num_rows and attempt.run_id in runs:
            means[attempt.run_id] = _means(part, columns, orders)
    wanted = dict.fromkeys(run_id for run_id in run_ids if run_id in means)
    return [Measured(run=runs[one], samples=means[one]) for one in wanted]


@dataclass(frozen=True, kw_only=True)
class Order:
    """The samples that rows are of: `keys` in the order of rows, and `ordered`; `places`, [N], are where they stand.

    Where several rows are of one sample, `places` are None: its repetitions are to be averaged.
    """

    keys: pa.Table
    ordered: pa.Table
    places: Any


class Orders:
    """Orders that were met: runs of one task have the same, and sorting names takes longer than all else."""

    def __init__(self) -> None:
        self._met: dict[tuple[object, ...], list[Order]] = {}

    def of(self, rows: pa.Table) -> Order:
        """Return the order of rows, the same object for the same names."""
        keys = rows.select(_SAMPLE)
        met = self._met.setdefault((len(keys), *(keys[name][0].as_py() for name in _SAMPLE)), [])
        found = next((one for one in met if one.keys.equals(keys)), None)
        if found is None:
            # Copied, since parts are views of all that was read with them.
            found = _order(keys.take(pa.array(range(len(keys)))))
            met.append(found)
        return found


def _order(keys: pa.Table) -> Order:
    ascending = [(name, "ascending") for name in _SAMPLE]
    ordered = keys.group_by(_SAMPLE, use_threads=False).aggregate([]).sort_by(ascending)
    if len(ordered) < len(keys):
        return Order(keys=keys, ordered=ordered, places=None)
    places = pc.sort_indices(keys, ascending)  # type: ignore[attr-defined]
    return Order(keys=keys, ordered=ordered, places=places.to_numpy())


def _means(read: pa.Table, columns: Collection[str], orders: Orders) -> pa.Table:
    """Return some numbers of the samples of a run, means over repetitions, ordered by sample."""
    order = orders.of(read)
    if order.places is not None:
        # Arrow takes longer to set about this than numpy to do it.
        numbers = {name: _numbers(read, name).to_numpy()[order.places].astype(np.float64) for name in columns}
        return pa.table({key: order.ordered[key] for key in _SAMPLE} | numbers)
    repeated = {name: _numbers(read, name).cast(pa.float64()) for name in columns}
    grouped = pa.table({key: read[key] for key in _SAMPLE} | repeated).group_by(_SAMPLE, use_threads=False)
    means = grouped.aggregate([(name, "mean") for name in columns]).sort_by([(key, "ascending") for key in _SAMPLE])
    return pa.table({key: order.ordered[key] for key in _SAMPLE} | {name: means[f"{name}_mean"] for name in columns})


def _numbers(read: pa.Table, name: str) -> pa.ChunkedArray:
    if name != _UNFINISHED:
        return read[name]
    return pc.fill_null(pc.equal(read["finish_reason"], BUDGET), False)  # type: ignore[attr-defined]


def compare(measured: Sequence[Measured], *, per_task: bool = False) -> list[Comparison]:
    """Return one comparison per model and setting, or also per task: by model, then in order of appearance.

    A setting is spelled as in its first run.

    Baselines are looked for among `measured`. A run condition that varies (such as the batch size) is part of
    the setting, and so is the protocol: no mean mixes two of them.
    """
    varying = [key for key in (*_CONDITIONS, "protocol") if len({_condition(one, key) for one in measured}) > 1]
    groups: dict[tuple[str, ...], list[Measured]] = {}
    spelled: dict[str, str] = {}
    for one in measured:
        label = " ".join([one.run["setting"], *(f"{key}={_condition(one, key)}" for key in varying)])
        label = spelled.setdefault(canonical_setting(label), label)
        task = one.run["task"] if per_task else ""
        groups.setdefault((one.run["model"], label, task), []).append(one)
    models = list(dict.fromkeys(one.run["model"] for one in measured))
    by_model = sorted(groups.items(), key=lambda item: models.index(item[0][0]))
    return _adjusted([_comparison(label, group, measured) for (_, label, _), group in by_model])


def _adjusted(made: Sequence[Comparison]) -> list[Comparison]:
    """Give p-values what Holm's rule makes of them: a family is what is compared with one baseline on the same tasks.

    The baseline itself is no hypothesis.
    """
    families: dict[tuple[object, ...], list[int]] = {}
    for at, one in enumerate(made):
        if one.against is not None and one.against.holm_p is not None:
            families.setdefault((one.model, one.against.baseline, one.tasks), []).append(at)
    adjusted = list(made)
    for places in families.values():
        found = [one.against for one in (made[at] for at in places) if one.against is not None]
        for at, against, p in zip(places, found, holm([one.p_value for one in found]), strict=True):
            adjusted[at] = replace(made[at], against=replace(against, holm_p=p))
    return adjusted


def _condition(one: Measured, key: str) -> object:
    return shown(key, one.run[key])


def baseline_of(one: Measured, measured: Sequence[Measured]) -> Measured | None:
    """Return the run that decodes the same samples under the same conditions one token at a time, or None.

    Among several it is the one with the fewest changed knobs.
    """
    candidates = [
        other
        for other in measured
        if other.run["method"] == BASELINES.get(one.run["family"])
        and all(other.run[key] == one.run[key] for key in _PAIRED)
        and other.answers_what(one)
        and _decodes_one_at_a_time(other)
    ]
    return min(candidates, key=lambda c: (c.run["setting"].count("="), c.run["setting"]), default=None)


def _decodes_one_at_a_time(one: Measured) -> bool:
    autoregressive = one.run["family"] == "autoregressive"
    return autoregressive or bool((one.column("nfe") >= one.column("tokens_canvas")).all())


def _comparison(label: str, group: Sequence[Measured], measured: Sequence[Measured]) -> Comparison:
    first, cells = group[0].run, by_sample(group)
    n = sum(len(one.samples) for one in cells)
    accuracy = fmean(float(one.column("correct").mean()) for one in cells)
    interval = wilson(round(accuracy * n), n)
    nfe, tokens = _mean(cells, "nfe"), _mean(cells, "tokens_out")
    return Comparison(
        model=first["model"],
        family=first["family"],
        method=first["method"],
        setting=label,
        tasks=tuple(one.run["task"] for one in cells),
        run_ids=tuple(one.run["run_id"] for one in group),
        n=n,
        accuracy=Estimate(value=accuracy, low=interval.low, high=interval.high),
        worst_template=_worst_template(group, accuracy),
        nfe=_known(nfe),
        tpf=_known(tokens / nfe if nfe else math.nan),
        query_tokens=_known(_mean(cells, "query_tokens")),
        efe=_known(fmean(float(_full_forwards(one).mean()) for one in cells)),
        latency_s=_known(_mean(cells, "latency_s")),
        unfinished=sum(int((one.column(_UNFINISHED) > 0).sum()) for one in cells),
        seeds=spread(group),
        against=_against(group, [baseline_of(one, measured) for one in group]),
    )


def by_sample(group: Sequence[Measured]) -> list[Measured]:
    """Return one run per task, in which a sample's numbers are means over the runs that answer it.

    Runs of a task differ in seed or template: they ask the same samples again, and make no further ones. What is not
    known of one of them is not known of the mean.
    """
    tasks: dict[str, list[Measured]] = {}
    for one in group:
        tasks.setdefault(one.run["task"], []).append(one)
    return [_mean_of(runs) for runs in tasks.values()]


def _mean_of(runs: Sequence[Measured]) -> Measured:
    if len(runs) == 1:
        return runs[0]
    first, *others = runs
    numbers = [name for name in first.samples.column_names if name not in _SAMPLE]
    if all(first.answers_what(one) for one in others):
        # As a rule: no sample has to be looked for.
        means = {name: np.mean([one.column(name) for one in runs], axis=0) for name in numbers}
        return replace(first, samples=pa.table({key: first.samples[key] for key in _SAMPLE} | means))
    grouped = pa.concat_tables([one.samples for one in runs]).group_by("sample_id", use_threads=False)
    kept = pc.ScalarAggregateOptions(skip_nulls=False)
    found = grouped.aggregate([("prompt_sha256", "min"), *((name, "mean", kept) for name in numbers)])
    found = found.rename_columns({f"{name}_mean": name for name in numbers} | {"prompt_sha256_min": "prompt_sha256"})
    return replace(first, samples=found.sort_by("sample_id"))


def spread(group: Sequence[Measured], column: str = "correct") -> Spread | None:
    """Return how a quantity spreads over seeds, None where there is one, or not every seed ran everywhere."""
    ordered = sorted(group, key=lambda one: one.run["seed"])
    seeds = [list(runs) for _, runs in groupby(ordered, key=lambda one: one.run["seed"])]
    asked = [sorted((one.run["task"], str(one.run["template"])) for one in runs) for runs in seeds]
    if len(seeds) < 2 or any(one != asked[0] for one in asked):
        return None
    return over_seeds([_mean(by_sample(runs), column) for runs in seeds])


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _worst_template(group: Sequence[Measured], accuracy: float) -> float:
    by_template: dict[str, list[Measured]] = {}
    for one in group:
        by_template.setdefault(one.run["template"], []).append(one)
    means = [_mean(by_sample(runs), "correct") for runs in by_template.values()]
    return min(means) if len(means) > 1 else accuracy


def against(group: Sequence[Measured], base: Sequence[Measured]) -> AgainstBaseline:
    """Return what runs gain and lose against other ones: as many, each of the same samples in the same order."""
    found = _against(group, base)
    assert found is not None
    return found


def _against(group: Sequence[Measured], baselines: Sequence[Measured | None]) -> AgainstBaseline | None:
    known = [one for one in baselines if one is not None]
    if len(known) < len(group):
        return None

    cells, base = by_sample(group), by_sample(known)
    lost, gained = discordant(base, cells)
    pair = paired_means([_stack(one) for one in base], [_stack(one) for one in cells])
    wall, p_value = pair.ratio(_LATENCY), mcnemar(lost, gained).mid_p
    return AgainstBaseline(
        baseline=known[0].run["setting"],
        accuracy_difference=pair.gain(_CORRECT),
        speedup_nfe=pair.ratio(_NFE),
        speedup_efe=pair.ratio(_EFE),
        speedup_wall=None if math.isnan(wall.value) else wall,
        lost=lost,
        gained=gained,
        p_value=p_value,
        holm_p=None if [*map(id, group)] == [*map(id, known)] else p_value,
        length_change=_relative_change(_mean(cells, "tokens_out"), _mean(base, "tokens_out")),
    )


def discordant(first: Sequence[Measured], second: Sequence[Measured]) -> tuple[int, int]:
    """Return how many samples the second answers less often than the first, and more often; one run per task each."""
    gains = [b.column("correct") - a.column("correct") for a, b in zip(first, second, strict=True)]
    return sum(int((one < -_EQUAL).sum()) for one in gains), sum(int((one > _EQUAL).sum()) for one in gains)


def _relative_change(value: float, reference: float) -> float:
    return value / reference - 1 if reference else math.inf if value else 0.0


def _stack(one: Measured) -> Any:
    columns = one.column("correct"), one.column("nfe"), _full_forwards(one), one.column("latency_s")
    return np.stack(columns, axis=1)


def _full_forwards(one: Measured) -> Any:
    return one.column("query_tokens") / (one.column("prompt_tokens") + one.column("tokens_canvas"))


def _mean(group: Sequence[Measured], column: str) -> float:
    return fmean(float(one.column(column).mean()) for one in group)
