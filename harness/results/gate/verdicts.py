"""Verdicts of the gate: every setting of the baseline and of the runs, what differs, and whether that is red."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from harness.results.canonical import canonical_json
from harness.results.gate.differences import Check, Difference, difference
from harness.results.gate.observed import Answer, Setting
from harness.results.multiplicity import holm
from harness.results.statistics import mcnemar

SIGNIFICANT = 0.05
_SHOWN = 16


class Colour(Enum):
    """`red` blames the change; `known` is as red without it; `tie` and `drawn` are differences that rounding makes."""

    RED = "red"
    KNOWN = "known"
    TIE = "tie"
    DRAWN = "drawn"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that differs from the baseline, in `samples` of them; `sample` and `step` are the first.

    `value` is a digest of what was found: the same without the change, the change is not to blame.
    """

    check: str
    colour: Colour
    detail: str
    samples: int = 0
    sample: str | None = None
    step: int | None = None
    value: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of a setting: `setting` is the run, or the baseline where there is no run."""

    setting: Setting
    findings: tuple[Finding, ...] = ()

    @property
    def red(self) -> bool:
        """Whether the change has to be explained."""
        return any(one.colour is Colour.RED for one in self.findings)


def verdicts(baseline: Mapping[str, Setting], runs: Sequence[Setting]) -> list[Verdict]:
    """Compare runs with their baseline: one verdict per run, then one per setting of the baseline without a run."""
    found = [_verdict(baseline.get(run.setting_id), run) for run in runs]
    ran = {run.setting_id for run in runs}
    missing = [Verdict(setting=one, findings=(_MISSING,)) for name, one in baseline.items() if name not in ran]
    return [*_with_accuracies(found, baseline), *missing]


_MISSING = Finding(check="missing", colour=Colour.RED, detail="in the baseline, but nothing ran")


def blameless(found: Iterable[Verdict], without: Iterable[Verdict]) -> list[Verdict]:
    """Return verdicts in which nothing is red that is so, and has the same value, `without` the change."""
    known = {
        (one.setting.setting_id, each.check, each.value)
        for one in without
        for each in one.findings
        if each.colour is Colour.RED
    }

    def judged(verdict: Verdict, one: Finding) -> Finding:
        same = (verdict.setting.setting_id, one.check, one.value) in known
        return replace(one, colour=Colour.KNOWN) if same and one.colour is Colour.RED else one

    return [replace(each, findings=tuple(judged(each, one) for one in each.findings)) for each in found]


def _verdict(base: Setting | None, run: Setting) -> Verdict:
    if run.failure is not None:
        return Verdict(setting=run, findings=(_red("failed", run.failure),))
    if base is None:
        detail = "ran, but has no baseline; --accept says why it should have one"
        return Verdict(setting=run, findings=(_red("extra", detail),))
    by_name = {one.name: one for one in base.answers}
    names = {one.name for one in run.answers}
    found = [*_of_samples(sorted(by_name.keys() - names), sorted(names - by_name.keys()))]
    pairs = [(by_name[one.name], one) for one in run.answers if one.name in by_name]
    parted = [one for pair in pairs if (one := difference(*pair, run.dtype)) is not None]
    return Verdict(setting=run, findings=(*found, *_findings(parted, run), *_of_draws(parted, pairs)))


def _red(check: str, detail: str) -> Finding:
    return Finding(check=check, colour=Colour.RED, detail=detail, value=_digest(detail))


def _of_samples(gone: Sequence[tuple[str, int]], new: Sequence[tuple[str, int]]) -> Iterator[Finding]:
    for names, told in ((gone, "of the baseline were not decoded"), (new, "are not in the baseline")):
        if names:
            made = _red("samples", f"{len(names)} {told}")
            yield replace(made, samples=len(names), sample=names[0][0], value=_digest(names))


def _colour(one: Difference) -> Colour:
    if one.check not in (Check.OUTPUTS, Check.STEPS):
        return Colour.RED
    if one.tie:
        return Colour.TIE
    return Colour.DRAWN if one.drawn else Colour.RED


def _findings(parted: Sequence[Difference], run: Setting) -> Iterator[Finding]:
    groups: dict[tuple[Check, Colour], list[Difference]] = {}
    for one in parted:
        groups.setdefault((one.check, _colour(one)), []).append(one)
    for (check, colour), group in groups.items():
        first, names = group[0], {one.sample for one in group}
        yield Finding(
            check=check.value,
            colour=colour,
            detail=first.detail,
            samples=len(group),
            sample=first.sample,
            step=first.step,
            value=_digest([_seen(one, check) for one in run.answers if one.sample in names]),
        )


def _seen(answer: Answer, check: Check) -> object:
    values = {Check.PROMPT: answer.prompt, Check.COUNTERS: answer.work, Check.VERDICTS: answer.correct}
    return [answer.sample, answer.repetition, values.get(check, answer.decisions)]


def _of_draws(parted: Sequence[Difference], pairs: Sequence[tuple[Answer, Answer]]) -> Iterator[Finding]:
    """Compare counters by their interval where tokens that were drawn differ: neither has the right ones."""
    if not any(_colour(one) is Colour.DRAWN for one in parted):
        return

    from harness.results.statistics import paired_means

    answers = [one for pair in pairs for one in pair]
    names = [name for name in answers[0].counters if all(one.counters[name] is not None for one in answers)]
    base, run = (_means_of([pair[side] for pair in pairs], names) for side in (0, 1))
    means = paired_means([base], [run])
    for column, name in enumerate(names):
        gain = means.gain(column)
        assert gain.low is not None and gain.high is not None
        if gain.low > 0 or gain.high < 0:
            detail = f"mean {name} {base[:, column].mean():.4g} -> {run[:, column].mean():.4g}, beyond its interval"
            yield replace(_red("counters", detail), samples=len(run), value=_digest(run[:, column].tolist()))


def _means_of(answers: Sequence[Answer], names: Sequence[str]) -> Any:
    """Return the counters of every sample, [N, C]: means over its repetitions, which are no further samples."""
    import numpy as np

    by_sample: dict[str, list[list[float]]] = {}
    for one in answers:
        by_sample.setdefault(one.sample, []).append([float(one.counters[name] or 0) for name in names])
    return np.array([np.mean(repeated, axis=0) for repeated in by_sample.values()])


def _with_accuracies(found: Sequence[Verdict], baseline: Mapping[str, Setting]) -> list[Verdict]:
    """Add what the exact paired test says of accuracies, corrected (Holm) for the number of settings."""
    lost_gained = [_discordant(baseline.get(one.setting.setting_id), one.setting) for one in found]
    p_values = holm([mcnemar(*counts).exact for counts in lost_gained])
    judged = []
    for verdict, (lost, gained), p in zip(found, lost_gained, p_values, strict=True):
        if p < SIGNIFICANT:
            detail = f"{lost} answers lost, {gained} gained (McNemar, exact, Holm over {len(found)}: p = {p:.2g})"
            value = _digest([one.correct for one in verdict.setting.answers])
            finding = replace(_red("accuracy", detail), samples=lost + gained, value=value)
            verdict = replace(verdict, findings=(*verdict.findings, finding))
        judged.append(verdict)
    return judged


def _discordant(base: Setting | None, run: Setting) -> tuple[int, int]:
    """Return how many answers were lost and gained; each sample counts once, whatever its repetitions."""
    before = {one.sample: one.correct for one in (base.answers if base else ()) if one.repetition == 0}
    pairs = [(before.get(one.sample), one.correct) for one in run.answers if one.repetition == 0]
    return pairs.count((True, False)), pairs.count((False, True))


def _digest(value: object) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:_SHOWN]
