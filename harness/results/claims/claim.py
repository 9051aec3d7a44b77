"""What a claim is: who says what where, in which settings it would show, and what has to be true there.

A claim with a published value asks for that value in its own setting; only its verdict can be that it is reproduced.
Any other claim is of a mechanism, checked on models that its paper never saw: it holds, fails, or is undecided there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Compare(Enum):
    """How settings are looked at.

    `value`: one alone; `ratio`: the first over the second, `saving`: the second over the first; `difference`: the
    first less the second; `rises`, `falls`: the metric along any number of them; `equal`: the answers, token by token.
    """

    VALUE = "value"
    RATIO = "ratio"
    SAVING = "saving"
    DIFFERENCE = "difference"
    RISES = "rises"
    FALLS = "falls"
    EQUAL = "equal"


@dataclass(frozen=True, kw_only=True)
class Side:
    """One setting on one or more tasks, which weigh equally: the overrides of `decbench run` but for the task."""

    overrides: tuple[str, ...]
    tasks: tuple[str, ...]

    @property
    def command(self) -> str:
        """The command that makes its runs."""
        task = [f"task={','.join(self.tasks)}"] if self.tasks else []
        return " ".join(["decbench run", *self.overrides, *task])


@dataclass(frozen=True, kw_only=True)
class Check:
    """What is looked at, and the bounds, both included, within which a mechanism holds; accuracies in percent."""

    compare: Compare
    sides: tuple[Side, ...]
    metric: str | None = None
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published value; it is reproduced within `tolerance`, in its own unit.

    `bound` is `at_least` or `at_most` where the paper says so, `hardware` what an absolute speed was measured on.
    """

    value: float
    unit: str
    tolerance: float
    bound: str | None = None
    hardware: str | None = None

    def __str__(self) -> str:
        sign = {None: "", "at_least": "at least ", "at_most": "at most "}[self.bound]
        return f"{sign}{self.value:g} {self.unit}".strip()


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim; `needs` are parts by kind that it takes, `not_comparable` is why nothing here can be held against it."""

    id: str
    system: str
    paper: str
    place: str
    text: str
    checks: tuple[Check, ...] = ()
    published: Published | None = None
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    not_comparable: str | None = None

    @property
    def sides(self) -> tuple[Side, ...]:
        """Every setting that it speaks of, once."""
        return tuple(dict.fromkeys(side for check in self.checks for side in check.sides))
