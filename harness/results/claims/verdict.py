"""From what is stored to a verdict: pure, by paired intervals over samples (`harness.results.statistics`).

A published value is reproduced (within its tolerance), within the interval of what was measured, or differs. A
mechanism holds where the whole interval lies within its bounds, fails where it lies outside, and is undecided between.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

import numpy as np

from harness.results.claims.claim import Check, Claim, Compare, Published, Side
from harness.results.claims.evidence import Cell, Missing
from harness.results.claims.metrics import ACCURACY, METRICS, Floats, Metric
from harness.results.statistics import Estimate, PairedMeans, paired_means, wilson

_CERTAIN = 0.025
"""What lies beyond one end of a 95 % interval."""
_REPLICATES = 2_000
"""Hundreds of intervals are asked for at once, and what they decide is printed to two digits."""


class Outcome(Enum):
    """What a claim has come to, as it is printed."""

    REPRODUCED = "reproduced"
    WITHIN = "within interval"
    DIFFERS = "differs"
    HOLDS = "mechanism holds"
    FAILS = "mechanism fails"
    UNDECIDED = "mechanism undecided"
    NOT_COMPARABLE = "not comparable"
    NOT_RUN = "not run"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """An outcome, why, and on what it rests: the number of samples, and the runs by id."""

    outcome: Outcome
    because: str
    measured: Estimate | None = None
    n: int = 0
    run_ids: tuple[str, ...] = ()


Evidence = Mapping[Side, Sequence[Cell] | Missing]


class _Unlike(Exception):
    """Two settings were measured in ways that cannot be compared."""


def judge(claim: Claim, evidence: Evidence, lacking: Sequence[str] = ()) -> Verdict:
    """Return the verdict on a claim; `evidence` has every one of its sides, `lacking` are needs that do not exist."""
    if claim.not_comparable:
        return Verdict(outcome=Outcome.NOT_COMPARABLE, because=claim.not_comparable)
    missing = [one for side in claim.sides if isinstance(one := evidence[side], Missing)]
    if missing or lacking or not claim.checks:
        parts = dict.fromkeys([*lacking, *(part for one in missing for part in one.parts)])
        reasons = dict.fromkeys(one.reason for one in missing if one.reason)
        told = [f"not built: {', '.join(parts)}"] if parts else list(reasons)
        return Verdict(outcome=Outcome.NOT_RUN, because="; ".join(told) or "no check is written for what it needs")
    cells = {side: found for side in claim.sides if not isinstance(found := evidence[side], Missing)}
    used = [cell for side in claim.sides for cell in cells[side]]
    try:
        verdicts = [_checked(check, claim.published, [cells[side] for side in check.sides]) for check in claim.checks]
    except _Unlike as unlike:
        return Verdict(outcome=Outcome.NOT_COMPARABLE, because=str(unlike), run_ids=_ids(used))
    order = (Outcome.FAILS, Outcome.UNDECIDED)
    outcome = next((one for one in order if one in [v.outcome for v in verdicts]), verdicts[0].outcome)
    return Verdict(
        outcome=outcome,
        because="; ".join(one.because for one in verdicts),
        measured=verdicts[0].measured,
        n=verdicts[0].n,
        run_ids=_ids(used),
    )


def _ids(cells: Sequence[Cell]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(cell.run_id for cell in cells))


def _checked(check: Check, published: Published | None, sides: Sequence[Sequence[Cell]]) -> Verdict:
    n = sum(len(cell.samples) for cell in sides[0])
    _alike(check, sides)
    if check.compare is Compare.EQUAL:
        return _equal(sides[0], sides[1], n)
    assert check.metric is not None
    metric = METRICS[check.metric]
    if check.compare in (Compare.RISES, Compare.FALLS):
        return _ordered(check, metric, sides, n)
    measured = _estimate(check, metric, sides)
    if math.isnan(measured.value):
        raise _Unlike(f"{check.metric} is not known of every sample")
    if published is None:
        return _bounded(check, metric, measured, n)
    if published.hardware and metric.timed and check.compare is Compare.VALUE:
        used = str(sides[0][0].conditions["device"])
        if published.hardware.lower() not in used.lower():
            raise _Unlike(f"published on {published.hardware}, measured on {used} ({_told(measured, published.unit)})")
    return _against_published(published, measured, n)


def _alike(check: Check, sides: Sequence[Sequence[Cell]]) -> None:
    """Raise where settings were not asked the same samples, or were timed under other conditions."""
    for first, second in pairwise(sides):
        for one, other in zip(first, second, strict=True):
            if one.samples != other.samples:
                raise _Unlike(f"{one.run_id} and {other.run_id} were asked other samples")
            if check.metric and METRICS[check.metric].timed and one.conditions != other.conditions:
                told = ", ".join(f"{k} {v} / {other.conditions[k]}" for k, v in one.conditions.items())
                raise _Unlike(f"{one.run_id} and {other.run_id} were timed under other conditions: {told}")


def _equal(first: Sequence[Cell], second: Sequence[Cell], n: int) -> Verdict:
    pairs = [pair for a, b in zip(first, second, strict=True) for pair in zip(a.answers, b.answers, strict=True)]
    unlike = sum(one != other for one, other in pairs)
    outcome = Outcome.FAILS if unlike else Outcome.HOLDS
    because = f"{unlike} of {n} answers differ" if unlike else f"all {n} answers are equal"
    return Verdict(outcome=outcome, because=because, n=n)


def _ordered(check: Check, metric: Metric, sides: Sequence[Sequence[Cell]], n: int) -> Verdict:
    """Judge every step along a row of settings by the interval of its difference; standing still is no step back."""
    means = [float(metric.of(_means(side))) for side in sides]
    back = 1 if check.compare is Compare.FALLS else -1
    steps = [_difference(_paired(second, first), metric, back) for first, second in pairwise(sides)]
    worst = max(steps, key=lambda step: step.value)
    assert worst.low is not None and worst.high is not None
    outcome = Outcome.HOLDS if worst.high <= 0 else Outcome.FAILS if worst.low > 0 else Outcome.UNDECIDED
    told = ", ".join(f"{mean:.3g}" for mean in means)
    return Verdict(outcome=outcome, because=f"{check.metric} {told}", n=n)


def _paired(first: Sequence[Cell], second: Sequence[Cell]) -> PairedMeans:
    return paired_means([cell.values_NC for cell in first], [cell.values_NC for cell in second], _REPLICATES)


def _means(cells: Sequence[Cell]) -> Floats:
    return np.mean([cell.values_NC.mean(axis=0) for cell in cells], axis=0)


def _estimate(check: Check, metric: Metric, sides: Sequence[Sequence[Cell]]) -> Estimate:
    if check.compare is Compare.VALUE:
        return _alone(check, metric, sides[0])
    pair = _paired(sides[0], sides[1])
    if check.compare is Compare.DIFFERENCE:
        found = _difference(pair, metric, 1)
        return _with_the_unseen(found, sides) if check.metric == ACCURACY else found
    over = -1 if check.compare is Compare.SAVING else 1
    with np.errstate(divide="ignore", invalid="ignore"):
        value = (metric.of(pair.first_C) / metric.of(pair.second_C)) ** over
        return _spread(float(value), (metric.of(pair.first_RC) / metric.of(pair.second_RC)) ** over)


def _alone(check: Check, metric: Metric, cells: Sequence[Cell]) -> Estimate:
    value = float(metric.of(_means(cells)))
    if check.metric == ACCURACY and not math.isnan(value):
        n = sum(len(cell.samples) for cell in cells)
        share = wilson(round(value / 100 * n), n)
        assert share.low is not None and share.high is not None
        return Estimate(value=value, low=100 * share.low, high=100 * share.high)
    return _spread(value, metric.of(_paired(cells, cells).first_RC))


def _difference(pair: PairedMeans, metric: Metric, sign: int) -> Estimate:
    value = sign * (metric.of(pair.first_C) - metric.of(pair.second_C))
    return _spread(float(value), sign * (metric.of(pair.first_RC) - metric.of(pair.second_RC)))


def _spread(value: float, replicates_R: Floats) -> Estimate:
    low, high = np.percentile(replicates_R, [100 * _CERTAIN, 100 * (1 - _CERTAIN)])
    return Estimate(value=value, low=float(low), high=float(high))


def _with_the_unseen(found: Estimate, sides: Sequence[Sequence[Cell]]) -> Estimate:
    """Widen a difference of accuracies, in percent, of samples that all agree: resampling them gives no spread.

    What then could be lost or gained without having been seen is the exact bound of no event among N.
    """
    if found.low != found.high:
        return found
    n = sum(len(cell.samples) for cell in sides[0])
    unseen = 100 * (1 - _CERTAIN ** (1 / n))
    return Estimate(value=found.value, low=found.value - unseen, high=found.value + unseen)


def _bounded(check: Check, metric: Metric, measured: Estimate, n: int) -> Verdict:
    least = -math.inf if check.at_least is None else check.at_least
    most = math.inf if check.at_most is None else check.at_most
    assert measured.low is not None and measured.high is not None
    if least <= measured.low and measured.high <= most:
        outcome = Outcome.HOLDS
    elif measured.high < least or most < measured.low:
        outcome = Outcome.FAILS
    else:
        outcome = Outcome.UNDECIDED
    times = check.compare in (Compare.RATIO, Compare.SAVING)
    unit = "points" if check.metric == ACCURACY and not times else "x" if times else metric.unit
    what = {Compare.SAVING: "saved", Compare.RATIO: "ratio", Compare.DIFFERENCE: "change"}.get(check.compare, "")
    bounds = [f"at least {check.at_least:g}"] if check.at_least is not None else []
    bounds += [f"at most {check.at_most:g}"] if check.at_most is not None else []
    name = f"{check.metric} {what}".strip()
    because = f"{name} {_told(measured, unit)}, {' and '.join(bounds)} asked"
    return Verdict(outcome=outcome, because=because, measured=measured, n=n)


def _against_published(published: Published, measured: Estimate, n: int) -> Verdict:
    """Hold a measured number against the published one; a bound that is kept is reproduced however far it is kept."""
    off = measured.value - published.value
    beyond = {"at_least": -off, "at_most": off, None: abs(off)}[published.bound]
    assert measured.low is not None and measured.high is not None
    if beyond <= published.tolerance:
        outcome, by = Outcome.REPRODUCED, ""
    elif measured.low <= published.value <= measured.high:
        outcome, by = Outcome.WITHIN, ""
    else:
        outcome, by = Outcome.DIFFERS, f", by {off:+.3g} {published.unit}".rstrip()
    because = f"{published} published, {_told(measured, published.unit)} measured{by}"
    return Verdict(outcome=outcome, because=because, measured=measured, n=n)


def _told(estimate: Estimate, unit: str) -> str:
    ends = "" if estimate.low is None else f" [{estimate.low:.3g}, {estimate.high:.3g}]"
    return f"{estimate.value:.3g} {unit}{ends}"
