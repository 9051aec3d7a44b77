"""What a run did, and what the same run does now, decoding by decoding: equal, or where they part first."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.results.gate.differences import Check, Difference, difference, smallest_decided
from harness.results.gate.observed import setting_of
from harness.results.schemas import NAMES, SAMPLES, SCHEMA_VERSION, STEPS

Row = Mapping[str, Any]
Name = tuple[str, int]

_TIMED = ("latency_s", "ttft_s", "cpu_s", "forward_s", "draft_s", "asked_s", "rest_s")
# What stood beside a row made it so wide: not always the same rows, and older stores do not know.
_OF_NEIGHBOURS = ("padded_tokens",)
# What a grader says in words may hold addresses and seconds of a program.
_WORDS = ("detail",)
_SAMPLE = [name for name in SAMPLES.names if name not in (*NAMES, *_TIMED, *_OF_NEIGHBOURS, *_WORDS)]
_STEP = [name for name in STEPS.names if name not in NAMES]
_DECIDED = ("positions", "tokens", "remasked", "edited", "n_accepted", "n_computed")


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of the tables samples and steps of one run."""

    samples: Sequence[Row]
    steps: Sequence[Row]

    def among(self, names: Collection[Name]) -> "Rows":
        """Return the rows of some decodings."""
        return Rows(
            samples=[row for row in self.samples if _name(row) in names],
            steps=[row for row in self.steps if _name(row) in names],
        )


@dataclass(frozen=True, kw_only=True)
class Parting:
    """Where one decoding is another than it was: the first step, None where no step tells, and the fields there.

    `tie` says that numbers decided which were nearer to each other than the dtype can tell, or that are all that
    differs, by less than that.
    """

    sample: str
    repetition: int
    step: int | None
    fields: tuple[str, ...]
    detail: str
    tie: bool


def partings(run: Row, stored: Rows, again: Rows, *, whole: bool) -> list[Parting]:
    """Return how decodings differ from those stored, in the order of samples; both are rows of the present columns.

    `run` is the row of the stored run. `whole` says that all samples were decoded again, so that none may be missing.
    """
    before, now = ({_name(row): row for row in one.samples} for one in (stored, again))
    answers = [{answer.name: answer for answer in setting_of(run, one.samples, one.steps).answers}
               for one in (stored, again)]  # fmt: skip
    steps = [_by_name(one.steps) for one in (stored, again)]
    found = [_absent(name, "was not decoded again") for name in before if whole and name not in now]
    older = run["schema_version"] != SCHEMA_VERSION
    for name, row in now.items():
        if name not in before:
            found.append(_absent(name, "is not among the stored ones"))
            continue
        pair, pair_steps = (before[name], row), [one.get(name, []) for one in steps]
        parted = difference(answers[0][name], answers[1][name], run["dtype"])
        if parted is not None:
            found.append(_named(name, parted, pair, pair_steps))
        elif (rest := _rest(name, pair, pair_steps, run["dtype"], older=older)) is not None:
            found.append(rest)
    return found


def _name(row: Row) -> Name:
    return row["sample_id"], row["repetition"]


def _by_name(rows: Sequence[Row]) -> dict[Name, list[Row]]:
    found: dict[Name, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["step"]):
        found.setdefault(_name(row), []).append(row)
    return found


def _absent(name: Name, told: str) -> Parting:
    return Parting(sample=name[0], repetition=name[1], step=None, fields=("sample_id",), detail=told, tie=False)


def _named(name: Name, parted: Difference, pair: tuple[Row, Row], steps: Sequence[Sequence[Row]]) -> Parting:
    """Return a difference that the gate finds, with the fields that hold it."""
    columns = _SAMPLE
    if parted.step is not None and all(len(one) > parted.step for one in steps):
        pair, columns = (steps[0][parted.step], steps[1][parted.step]), list(_DECIDED)
    fields = tuple(column for column in columns if pair[0][column] != pair[1][column])
    return Parting(
        sample=name[0],
        repetition=name[1],
        step=parted.step,
        fields=fields or (parted.check.value,),
        detail=f"{parted.check.value}: {parted.detail}",
        # A verdict, a count and a question are never decided by rounding.
        tie=parted.tie and parted.check in (Check.OUTPUTS, Check.STEPS),
    )


def _rest(
    name: Name, pair: tuple[Row, Row], steps: Sequence[Sequence[Row]], dtype: str | None, *, older: bool
) -> Parting | None:
    """Return the first other thing that differs: of a step, or of the sample; numbers that rounding moves are a tie."""
    rows = [*zip(range(len(steps[0])), *steps, strict=False)]
    places = [*((step, one, other, _STEP) for step, one, other in rows), (None, *pair, _SAMPLE)]
    ties: list[Parting] = []
    for step, one, other, columns in places:
        unequal = [column for column in columns if one[column] != other[column]]
        unequal = [column for column in unequal if not (older and one[column] is None)]
        if not unequal:
            continue
        tie = all(_near(one[column], other[column], smallest_decided(dtype)) for column in unequal)
        first = unequal[0]
        detail = f"{first} {_short(one[first])} -> {_short(other[first])}"
        told = Parting(sample=name[0], repetition=name[1], step=step, fields=tuple(unequal), detail=detail, tie=tie)
        if not tie:
            return told
        ties.append(told)
    return next(iter(ties), None)


def _near(one: object, other: object, least: float) -> bool:
    """Say whether two values differ in floats alone, and by less than the dtype decides."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_near(*pair, least) for pair in zip(one, other, strict=True))
    return one == other or (isinstance(one, float) and isinstance(other, float) and abs(one - other) < least)


def _short(value: object) -> str:
    text = " ".join(map(_short, value)) if isinstance(value, list) else "-" if value is None else f"{value}"
    return text if len(text) <= 60 else f"{text[:59]}…"
