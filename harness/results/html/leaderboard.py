"""Settings beside each other: what each reaches and costs, and which differences are more than chance."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.results.comparison import BASELINES, Comparison, Measured, baseline_of, compare
from harness.results.multiplicity import holm
from harness.results.parallelism import areas, method_of
from harness.results.pareto import front, surely_beaten
from harness.results.statistics import Estimate

COSTS = ("nfe", "query_tokens", "efe", "latency_s")
"""What fronts of accuracy are drawn over: less is better."""

_SIGNIFICANT = 0.05


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A setting among those of its model on one task, or over all tasks (`task` is None).

    `p_holm` is McNemar's mid-p against the baseline, corrected for all settings that are compared with it. `verdict`
    says what follows at 5 percent: better, worse, open, baseline, or none without a baseline. `front` are the costs at
    which no other setting beats it, `beaten` those at which another one does whatever the accuracies within their
    intervals. Means over fewer runs than others of the model have are on no front.
    """

    task: str | None
    comparison: Comparison
    verdict: str
    p_holm: float | None = None
    front: tuple[str, ...] = ()
    beaten: tuple[str, ...] = ()


def standings(measured: Sequence[Measured]) -> list[Standing]:
    """Return every setting over all tasks, if there are several, and on each task: by task, then by model."""
    per_task = compare(measured, per_task=True)
    tasks = list(dict.fromkeys(one.tasks[0] for one in per_task))
    groups = [(None, compare(measured))] if len(tasks) > 1 else []
    groups += [(task, [one for one in per_task if one.tasks[0] == task]) for task in tasks]
    first = _baselines(measured)
    found = []
    for task, comparisons in groups:
        for model in dict.fromkeys(one.model for one in comparisons):
            found += _beside(task, [one for one in comparisons if one.model == model], first)
    return found


def _baselines(measured: Sequence[Measured]) -> set[str]:
    """Return the names of the runs that others are compared with."""
    may_be = [one for one in measured if one.run["method"] in BASELINES.values()]
    return {one.run["run_id"] for one in may_be if baseline_of(one, may_be) is one}


def _beside(task: str | None, comparisons: Sequence[Comparison], baselines: set[str]) -> list[Standing]:
    compared = [one for one in comparisons if one.against is not None and not {*one.run_ids} <= baselines]
    p_values = holm([one.against.p_value for one in compared if one.against is not None])
    adjusted = {id(one): p for one, p in zip(compared, p_values, strict=True)}
    made = []
    for one in comparisons:
        p = adjusted.get(id(one))
        verdict = "baseline" if {*one.run_ids} <= baselines else _verdict(one, p)
        made.append(Standing(task=task, comparison=one, verdict=verdict, p_holm=p))
    return _with_fronts(made)


def _verdict(one: Comparison, p: float | None) -> str:
    if one.against is None or p is None:
        return "none"
    if p >= _SIGNIFICANT:
        return "open"
    return "better" if one.against.gained > one.against.lost else "worse"


def _with_fronts(found: list[Standing]) -> list[Standing]:
    accuracies = [one.comparison.accuracy for one in found]
    most = max(len(one.comparison.run_ids) for one in found)
    # Means over fewer runs are of other samples.
    alike_S = np.array([len(one.comparison.run_ids) == most for one in found])
    value_S = np.where(alike_S, np.array([one.value for one in accuracies], float), np.nan)
    range_S2 = np.array([(one.low, one.high) for one in accuracies], float)
    flags = {}
    for cost in COSTS:
        cost_S = np.array([getattr(one.comparison, cost) for one in found], float)
        flags[cost] = front(cost_S, value_S), surely_beaten(np.stack([cost_S, cost_S], 1), range_S2)
    return [
        replace(
            one,
            front=tuple(cost for cost in COSTS if flags[cost][0][at]),
            beaten=tuple(cost for cost in COSTS if flags[cost][1][at]),
        )
        for at, one in enumerate(found)
    ]


def area_rows(found: Sequence[Standing]) -> list[dict[str, Any]]:
    """Return the area under parallelism of every method over all tasks, if there are several, and on each task."""
    per_task = [one.comparison for one in found if one.task is not None]
    tasks = list(dict.fromkeys(one.tasks[0] for one in per_task))
    groups: list[tuple[str | None, list[Comparison]]] = [(None, per_task)] if len(tasks) > 1 else []
    groups += [(task, [one for one in per_task if one.tasks[0] == task]) for task in tasks]
    return [
        {"task": task, "model": one.model, "method": one.method, "area": one.value, "points": one.points,
         "tasks": len(one.tasks)}
        for task, comparisons in groups
        for one in areas(comparisons)
    ]  # fmt: skip


def as_row(standing: Standing) -> dict[str, Any]:
    """Return a standing as the page knows it; estimates are [value, low, high]."""
    one, against = standing.comparison, standing.comparison.against
    row: dict[str, Any] = {
        "model": one.model,
        "task": standing.task,
        "tasks": len(one.tasks),
        "family": one.family,
        "method": one.method,
        "variant": method_of(one),
        "setting": one.setting,
        "runs": list(one.run_ids),
        "n": one.n,
        "accuracy": _listed(one.accuracy),
        "worst_template": one.worst_template,
        "unfinished": one.unfinished,
        **{name: getattr(one, name) for name in ("nfe", "tpf", "query_tokens", "efe", "latency_s")},
        "verdict": standing.verdict,
        "p_holm": standing.p_holm,
        "front": list(standing.front),
        "beaten": list(standing.beaten),
    }
    if against is None:
        return row | dict.fromkeys(_AGAINST)
    estimates = against.accuracy_difference, against.speedup_nfe, against.speedup_efe, against.speedup_wall
    told = (against.baseline, *map(_listed, estimates), against.lost, against.gained, against.p_value)
    return row | dict(zip(_AGAINST, told, strict=True))


_AGAINST = ("baseline", "difference", "times_nfe", "times_efe", "times_wall", "lost", "gained", "p")


def _listed(one: Estimate | None) -> list[float | None] | None:
    return None if one is None else [one.value, one.low, one.high]
