"""`decbench results compare`: stored runs against each other, on the samples that they have in common.

  compare FIRST SECOND ...            each of the others against the first
  compare column=value ...            every setting among these runs against its baseline, one token per step
  --seeds                             with each run those that differ from it in the seed alone
  --k 1,4                             with several answers per sample: pass@k, a right one among so many
  --json                              one JSON object, or a list of them

FIRST is a run, or several with commas between them: seeds of one setting. What is counted and resampled is a sample:
its answers under several seeds, or repeated, are one mean. Of several comparisons with one baseline, p-values are
adjusted by Holm's rule.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from harness.commands.results.words import Words, parse
from harness.errors import ConfigError, DataError, listed
from harness.results.canonical import canonical_setting
from harness.results.comparison import Comparison, Measured, against, by_sample, compare, load, spread
from harness.results.export import as_markdown
from harness.results.multiplicity import holm
from harness.results.repeated import Spread, mann_whitney, mean_pass_at_k
from harness.results.requests import read_requests
from harness.results.scan import Scan
from harness.results.schemas import shown
from harness.results.selection import attempt_of, matching, parse_filters
from harness.results.store import Store

_SAMPLES_NAMED = 10
_ALIKE = ("model", "task", "template", "protocol", "gen_length", "batch_size", "batching", "device", "dtype", "measure")
_TOLD = (
    "model",
    "setting",
    "task",
    "template",
    "protocol",
    "seed",
    "gen_length",
    "batch_size",
    "batching",
    "device",
    "dtype",
)
_TIMED_ON = ("task", "device", "batch_size", "batching")
_COLUMNS = (
    "model",
    "setting",
    "tasks",
    "n",
    "seeds",
    "accuracy %",
    "± seeds",
    "Δ accuracy %",
    "p",
    "p (Holm)",
    "x nfe",
)
Side = list[Measured]


def compare_runs(argv: Sequence[str]) -> int:
    """Print what runs gain and lose against the first of them, or against their baselines."""
    words = parse(argv, flags=("--json", "--seeds"), options=("--k",))
    tries = _tries(words.options.get("--k"))
    if words.names and words.filters:
        raise ConfigError(f"compare {words.filters[0]}: takes runs or filters, not both")
    if words.filters:
        told, text = _of_filters(words, tries)
    else:
        told, text = _of_runs(words, tries)
    sys.stdout.write(json.dumps(told, default=str) + "\n" if "--json" in words.flags else text)
    return 0


def _tries(text: str | None) -> list[int]:
    if text is None:
        return []
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in text.split(",")):
        raise ConfigError(f"--k={text}: must be whole numbers from 1, with commas between them")
    return [int(part) for part in text.split(",")]


def _of_filters(words: Words, tries: Sequence[int]) -> tuple[Any, str]:
    """Compare every setting with its baseline: as JSON-able values, and as text."""
    filters = {"status": {"ok"}, **parse_filters(words.filters)}
    rows = matching(Scan(words.store.folder), filters, (), names=read_requests(words.store).names())
    measured = load(words.store, [row["run_id"] for row in rows])
    if not measured:
        raise ConfigError(
            f"compare {' '.join(words.filters)}: no graded run; decbench results list shows what is stored"
        )
    made = compare(measured)
    told = [asdict(one) | {"pass_at_k": _passes(words.store, one.run_ids, tries)} for one in made]
    columns = (*_COLUMNS, *(f"pass@{k}" for k in tries))
    lines = [_line(one, each["pass_at_k"]) for one, each in zip(made, told, strict=True)]
    return told, as_markdown([dict(zip(columns, line, strict=True)) for line in lines], columns)


def _line(one: Comparison, passes: Mapping[int, Any]) -> list[object]:
    found, seeds = one.against, one.seeds
    compared: list[object] = [None] * 4
    if found is not None:
        p_values = [f"{found.p_value:.2g}", None if found.holm_p is None else f"{found.holm_p:.2g}"]
        compared = [_percent(found.accuracy_difference), *p_values, _interval(found.speedup_nfe)]
    shown = [_percent(passes[k]) if passes[k] else None for k in passes]
    tasks = one.tasks[0] if len(one.tasks) == 1 else len(one.tasks)
    counted = [seeds.seeds, f"{100 * (seeds.deviation or 0):.2f}"] if seeds else [1, None]
    accuracy = _percent(one.accuracy)
    return [one.model, one.setting, tasks, one.n, counted[0], accuracy, counted[1], *compared, *shown]


def _of_runs(words: Words, tries: Sequence[int]) -> tuple[Any, str]:
    """Compare sides with the first one: as JSON-able values, and as text."""
    if len(words.names) < 2:
        said = " ".join(["compare", *words.rest])
        raise ConfigError(f"{said}: takes two runs or more, or filters; decbench results list names them")
    sides = [_side(words, name) for name in words.names]
    first, *others = sides
    told = [_compared(words.store, first, one, tries) for one in others]
    if len(told) > 1:
        adjusted = holm([one.pop("p") for one in told])
        for one, p in zip(told, adjusted, strict=True):
            one["p value"] += f"; {p:.4g} among {len(told)} (Holm)"
    for one in told:
        one.pop("p", None)
    text = "\n".join("".join(f"{name:20}  {_written(value)}\n" for name, value in one.items()) for one in told)
    return told if len(told) > 1 else told[0], text


def _side(words: Words, name: str) -> Side:
    """Return the runs that a word names, or raise ConfigError or DataError for one that cannot be compared."""
    scan = Scan(words.store.folder)
    ids = [attempt_of(scan.attempts, part).run_id for part in name.split(",")]
    if "--seeds" in words.flags:
        ids = _with_seeds(scan, ids)
    measured = load(words.store, ids)
    found = {one.run["run_id"] for one in measured}
    for run_id in ids:
        if run_id not in found:
            raise DataError(f"{run_id}: has no graded samples to compare; decbench results show {run_id} says why")
    for one, other in pairwise(measured):
        if canonical_setting(one.run["setting"]) != canonical_setting(other.run["setting"]):
            settings = f"{one.run['setting']} and {other.run['setting']}"
            raise ConfigError(f"{name}: {settings} are two settings; commas join seeds and tasks of one")
    return measured


def _with_seeds(scan: Scan, ids: Sequence[str]) -> list[str]:
    """Return runs, and those that differ from one of them in the seed alone: of each seed the newest."""
    rows = matching(scan, {"status": {"ok"}}, (*_ALIKE, "setting", "seed"))
    asked = {row["run_id"]: _but_seed(row) for row in rows}
    wanted = {asked[one] for one in ids if one in asked}
    newest = {(_but_seed(row), row["seed"]): row["run_id"] for row in rows if _but_seed(row) in wanted}
    newest |= {(_but_seed(row), row["seed"]): row["run_id"] for row in rows if row["run_id"] in ids}
    return list(dict.fromkeys([*ids, *newest.values()]))


def _but_seed(row: Mapping[str, Any]) -> tuple[object, ...]:
    return (canonical_setting(row["setting"]), *(row[key] for key in _ALIKE))


def _compared(store: Store, base: Side, one: Side, tries: Sequence[int]) -> dict[str, Any]:
    first, second = by_sample(base), by_sample(one)
    shared = {task.run["task"]: {*task.keys} for task in first}
    shared = {task.run["task"]: shared.get(task.run["task"], set()) & {*task.keys} for task in second}
    n = sum(map(len, shared.values()))
    if not n:
        raise DataError(f"{_ids(base)} and {_ids(one)}: have no sample with the same prompt; compare runs of one task")
    first, second = ([task.among(shared.get(task.run["task"], ())) for task in side] for side in (first, second))
    first, second = (sorted((one for one in side if len(one.samples)), key=_task) for side in (first, second))
    found = against(second, first)
    return {
        "first": _named(base),
        "second": _named(one),
        "differ in": _differing(base, one),
        "samples": n,
        "accuracy": f"{_accuracy(first):.4f} / {_accuracy(second):.4f}",
        **_over_seeds(base, one),
        **_pass_lines(store, base, one, tries),
        "accuracy difference": _interval(found.accuracy_difference),
        "p value": f"{found.p_value:.4g} ({'McNemar, mid-p' if len(base) == len(one) == 1 else 'sign test, mid-p'})",
        "p": found.p_value,
        "fewer calls, times": _interval(found.speedup_nfe),
        "less work, times": _interval(found.speedup_efe),
        "faster, times": _interval(found.speedup_wall) if found.speedup_wall else "not timed",
        **_ranked(base, one, first, second),
        "answer length": f"{100 * found.length_change:+.1f} %",
        **_answers_that_differ(store, base, one, first),
        "lost": _moved(first, second, -1),
        "gained": _moved(first, second, 1),
    }


def _task(one: Measured) -> str:
    return one.run["task"]


def _ids(side: Side) -> str:
    return ",".join(one.run["run_id"] for one in side)


def _named(side: Side) -> str:
    run, tasks = side[0].run, dict.fromkeys(one.run["task"] for one in side)
    return f"{_ids(side)} {run['model']} {run['setting']} {','.join(tasks)}"


def _differing(base: Side, one: Side) -> list[str]:
    told = []
    for key in _TOLD:
        values = [list(dict.fromkeys(shown(key, run.run[key]) for run in side)) for side in (base, one)]
        if values[0] != values[1]:
            told.append(f"{key}: {' / '.join(','.join(map(str, each)) for each in values)}")
    return told


def _accuracy(cells: Sequence[Measured]) -> float:
    return sum(float(one.column("correct").mean()) for one in cells) / len(cells)


def _over_seeds(base: Side, one: Side) -> dict[str, str]:
    """Return how accuracies and calls spread over the seeds of both sides, where one has several."""
    told = {}
    for name, column in (("accuracy over seeds", "correct"), ("calls over seeds", "nfe")):
        found = [spread(side, column) for side in (base, one)]
        if any(found):
            told[name] = " / ".join(map(_spread, found))
    return told


def _spread(found: Spread | None) -> str:
    if found is None:
        return "one seed"
    ends = f"{found.smallest:.4g} to {found.largest:.4g}"
    return f"{_interval(found.mean)} ± {found.deviation:.2g} over {found.seeds}, {ends}"


def _pass_lines(store: Store, base: Side, one: Side, tries: Sequence[int]) -> dict[str, str]:
    found = [_passes(store, [run.run["run_id"] for run in side], tries) for side in (base, one)]
    return {f"pass@{k}": " / ".join(_interval(each[k]) if each[k] else "-" for each in found) for k in tries}


def _passes(store: Store, run_ids: Sequence[str], tries: Sequence[int]) -> dict[int, Any]:
    """Return pass@k over the samples of runs, None where a sample has fewer than k answers."""
    if not tries:
        return {}
    by_run = {row["run_id"]: row["task"] for row in store.read("runs", run_ids, ["task"]).to_pylist()}
    attempts: dict[tuple[str, str], list[bool]] = {}
    for row in store.read("samples", run_ids, ["sample_id", "correct"]).to_pylist():
        attempts.setdefault((by_run[row["run_id"]], row["sample_id"]), []).append(row["correct"])
    counts, right = [len(one) for one in attempts.values()], [sum(one) for one in attempts.values()]
    return {k: mean_pass_at_k(counts, right, k) if k <= min(counts) else None for k in tries}


def _ranked(base: Side, one: Side, first: Sequence[Measured], second: Sequence[Measured]) -> dict[str, str]:
    """Return how times of two sides rank, where both were timed under the same conditions on one task."""
    runs = [run.run for run in (*base, *one)]
    alike = all(len({run[key] for run in runs}) == 1 for key in _TIMED_ON)
    if not alike or any(run["measure"] != "timed" for run in runs):
        return {}
    found = mann_whitney(*(side[0].column("latency_s").tolist() for side in (first, second)))
    share = f"faster in {100 * found.second_smaller:.0f} % of pairs of samples"
    return {"times ranked": f"{share}, p = {found.p_value:.4g} (Mann-Whitney)"}


def _answers_that_differ(store: Store, base: Side, one: Side, cells: Sequence[Measured]) -> dict[str, list[str]]:
    """Return the samples of which two runs have different answers in repetition 0."""
    if len(base) != 1 or len(one) != 1:
        return {}
    ids = [side[0].run["run_id"] for side in (base, one)]
    found: dict[str, dict[str, list[int]]] = {run_id: {} for run_id in ids}
    for row in store.read("samples", ids, ["sample_id", "repetition", "output_ids"]).to_pylist():
        if row["repetition"] == 0:
            found[row["run_id"]][row["sample_id"]] = row["output_ids"]
    first, second = (found[run_id] for run_id in ids)
    return {"answers differ": [name for name, _ in cells[0].keys if first.get(name) != second.get(name)]}


def _moved(first: Sequence[Measured], second: Sequence[Measured], way: int) -> list[str]:
    """Return the samples that the second side answers more often (way 1) or less often (way -1)."""
    return [
        name
        for a, b in zip(first, second, strict=True)
        for (name, _), gain in zip(a.keys, b.column("correct") - a.column("correct"), strict=True)
        if way * gain > 1e-9
    ]


def _written(value: object) -> object:
    if not isinstance(value, list):
        return value
    return listed(value, _SAMPLES_NAMED) or "none"


def _interval(estimate: Any) -> str:
    ends = "" if estimate.low is None else f" [{estimate.low:.4g}, {estimate.high:.4g}]"
    return f"{estimate.value:.4g}{ends}"


def _percent(estimate: Any) -> str:
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
