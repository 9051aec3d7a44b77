"""Where two decodings of one sample part, and whether rounding can have parted them."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import zip_longest

from harness.results.gate.observed import Answer, Step

# Rounding of a logit, carried through a model: in single and double precision a thousand last bits of a number near
# one; half types round every activation, but add up in single precision, so that some ten of theirs remain.
_DECIDED_BY = {"float64": 2.0**-42, "float32": 2.0**-13, "bfloat16": 2.0**-2, "float16": 2.0**-5}


class Check(Enum):
    """What is compared: the prompt, the answer, the order in which it was decided, its cost, its verdict."""

    PROMPT = "prompt"
    OUTPUTS = "outputs"
    STEPS = "steps"
    COUNTERS = "counters"
    VERDICTS = "verdicts"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How one answer differs from its baseline; `step` is the first that differs, None where none is known.

    `tie` says that the numbers which decided there were nearer to each other than the dtype can tell, `drawn` that a
    token was drawn, so that nothing says how near they were.
    """

    check: Check
    sample: str
    step: int | None
    detail: str
    tie: bool = False
    drawn: bool = False


def smallest_decided(dtype: str | None) -> float:
    """Return the margin, in nats or units of a score, below which numbers of a dtype do not decide."""
    return _DECIDED_BY.get(dtype or "float32", _DECIDED_BY["float32"])


def difference(base: Answer, run: Answer, dtype: str | None) -> Difference | None:
    """Return how an answer differs from its baseline, None where it does not."""
    if base.prompt != run.prompt:
        return Difference(check=Check.PROMPT, sample=run.sample, step=None, detail="asks another question")
    traced = bool(base.steps and run.steps)
    if base.decisions != run.decisions if traced else base.decisions[:2] != run.decisions[:2]:
        return _of_decisions(base, run, dtype, traced=traced)
    if base.work != run.work if traced else base.counters != run.counters:
        step = _first([one.work for one in base.steps], [one.work for one in run.steps]) if traced else None
        if step is None and traced:
            step = len(run.steps) - 1
        return Difference(check=Check.COUNTERS, sample=run.sample, step=step, detail=_counted(base, run))
    if base.correct != run.correct:
        detail = f"the same answer, {_verdict(base)} -> {_verdict(run)}"
        return Difference(check=Check.VERDICTS, sample=run.sample, step=None, detail=detail)
    return None


def _of_decisions(base: Answer, run: Answer, dtype: str | None, *, traced: bool) -> Difference:
    if traced:
        step = _first([one.decision for one in base.steps], [one.decision for one in run.steps])
        worked = _first([one.work for one in base.steps], [one.work for one in run.steps])
        # Work that differs before any decision does was not changed by rounding one.
        caused = worked is not None and (step is None or worked < step)
        step = worked if caused else step
    else:
        step, caused = _first_decided(base, run), False
    margins = _margins(base, run, step) if traced else (base.margin, run.margin)
    return Difference(
        check=Check.OUTPUTS if base.tokens != run.tokens else Check.STEPS,
        sample=run.sample,
        step=step,
        detail=_done(base.steps, run.steps, step) if traced and step is not None else _token(base, run),
        tie=not caused and _tie(*margins, dtype, traced=traced),
        drawn=base.drawn and run.drawn,
    )


def _tie(base: float | None, run: float | None, dtype: str | None, *, traced: bool) -> bool:
    """Say whether rounding may have decided: numbers that are equal on both sides are told apart by rule, not by it."""
    if traced and base == run == 0:
        return False
    return base is not None and base < smallest_decided(dtype)


def _margins(base: Answer, run: Answer, step: int | None) -> tuple[float | None, float | None]:
    def at(answer: Answer) -> float | None:
        return answer.steps[step].margin if step is not None and step < len(answer.steps) else answer.margin

    return at(base), at(run)


def _first(base: Sequence[object], run: Sequence[object]) -> int | None:
    pairs = enumerate(zip_longest(base, run))
    return next((index for index, (one, other) in pairs if one != other), None)


def _first_decided(base: Answer, run: Answer) -> int | None:
    """Return the earliest step at which a position was decided that differs in token or step."""
    one, other = (list(zip(each.tokens, each.decided_at, strict=False)) for each in (base, run))
    missing = (None, -1)
    differing = [pair for pair in zip_longest(one, other, fillvalue=missing) if pair[0] != pair[1]]
    steps = [step for pair in differing for _, step in pair if step >= 0]
    return min(steps, default=None)


def _done(base: Sequence[Step], run: Sequence[Step], step: int) -> str:
    one, other = (each[step] if step < len(each) else None for each in (base, run))
    if one and other and one.decision == other.decision:
        worked = (
            ("positions computed", one.computed, other.computed),
            ("drafts accepted", one.accepted, other.accepted),
        )
        told = [f"{what} {before} -> {now}" for what, before, now in worked if before != now]
        return f"{', '.join(told)}, and another answer later"
    return f"{_told(one)} -> {_told(other)}"


def _told(step: Step | None) -> str:
    if step is None:
        return "ended"
    pairs = " ".join(f"{place}:{token}" for place, token in zip(step.at, step.tokens, strict=True))
    parts = {"committed": pairs, "took back": _listed(step.remasked), "replaced": _listed(step.edited)}
    return ", ".join(f"{name} {what}" for name, what in parts.items() if what) or "committed nothing"


def _listed(positions: Sequence[int]) -> str:
    return " ".join(map(str, positions))


def _token(base: Answer, run: Answer) -> str:
    at = _first(base.tokens, run.tokens)
    if at is None:
        return "the same answer, decided in another order"
    one, other = (str(each.tokens[at]) if at < len(each.tokens) else "nothing" for each in (base, run))
    return f"position {at}: token {one} -> {other}"


def _counted(base: Answer, run: Answer) -> str:
    names = [name for name in base.counters if base.counters[name] != run.counters.get(name)]
    told = [f"{name} {base.counters[name]} -> {run.counters.get(name)}" for name in names]
    return ", ".join(told) or "the same totals, spent at other steps"


def _verdict(answer: Answer) -> str:
    return {True: "right", False: "wrong", None: "not graded"}[answer.correct]
