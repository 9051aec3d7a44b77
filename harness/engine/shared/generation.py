"""What both loops return, and how they fail."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

GIVEN = -1
"""`decided_at` of prompt, constraints and positions not decided yet."""

UNDECIDED = -2
"""`decided_at` of positions that a generation has left undecided."""


class DecodeError(RuntimeError):
    """Decoding cannot go on; the message says why. `sample` is the row that it was noticed in, if it was in one."""

    def __init__(self, message: str, sample: int | None = None) -> None:
        super().__init__(message)
        self.sample = sample


@dataclass(frozen=True, kw_only=True)
class Outside:
    """What is known of a row that was decoded where nobody sees, under the names of the samples table.

    `unseen` says in words what its counts cannot tell; `unknown` names the columns that are null for that; `reported`
    holds what whoever decoded it says itself, which wins.
    """

    unseen: tuple[str, ...]
    unknown: frozenset[str]
    reported: Mapping[str, object] = field(default_factory=dict)

    def over(self, row: Mapping[str, object]) -> dict[str, object]:
        """Return columns without what is not known, and with what was reported."""
        known = {name: None if name in self.unknown else value for name, value in row.items()}
        return known | {name: value for name, value in self.reported.items() if name in row}


@dataclass(frozen=True, kw_only=True)
class Generation:
    """The result of one row: response tokens, when each was committed, and what the loop did.

    `decided_at` counts steps (rounds of the draft-verify loop) from 0, those included that closed nothing; -1
    means given, -2 left undecided (`tokens` then has the mask there); what a finish rule fills counts as decided by the
    last step. `tokens_generated` counts discarded tokens too, filled ones not. `first_call` is the model call, from 0,
    after which the first response position had its token (-1 if it was given or has none): what a reader waits for.
    `calls` is the number of calls from the one that it began with to the one that ended it.
    `stopped_at` is the step, from 0, at which a stopper had everything committed (-1: it did not).
    `out_of_budget` says that the loop ended the row before it was finished.
    `token_margin` is the smallest gap in log probability, in nats, between a committed token and the next best one,
    None where none was the best of several; `choice_margin` the smallest gap between what decided whether a position
    is committed and a position decided the other way, None where nothing was compared.
    `others` are further rows of the sample that its answer may come from, the best first, where text decides;
    `beside` are further answers, the best first, where it asked for several.
    `outside` is there where the row was decoded by somebody else's code; `decided_at` is empty then.
    """

    sample: int
    tokens: tuple[int, ...]
    decided_at: tuple[int, ...]
    idle: int
    forced: int
    remasked: int
    tokens_generated: int
    first_call: int
    stopped_at: int = -1
    out_of_budget: bool = False
    outside: Outside | None = None
    # Left out of comparisons: what calls were made is no part of an answer, and two batches may round differently.
    calls: int = field(default=0, compare=False)
    token_margin: float | None = field(default=None, compare=False)
    choice_margin: float | None = field(default=None, compare=False)
    others: tuple["Generation", ...] = ()
    beside: tuple["Generation", ...] = ()

    @property
    def answer(self) -> tuple[int, ...]:
        """The tokens before the first position that was left undecided."""
        end = self.decided_at.index(UNDECIDED) if UNDECIDED in self.decided_at else len(self.tokens)
        return self.tokens[:end]


def known_margin(gap: float) -> float | None:
    """Return a margin as it is reported: None for an infinite one."""
    return gap if math.isfinite(gap) else None
