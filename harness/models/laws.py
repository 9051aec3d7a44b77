"""Exact laws of answers: uniform over the valid answers of one instance, conditioned on what is revealed.

A law counts answers in integers, so its marginals are exact fractions. Places count from the start of the
response; behind an answer every place holds the end token.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol


class Law(Protocol):
    """A uniform law over at least one answer."""

    def given(self, place: int, token: int) -> "Law | None":
        """Return the law of the answers with `token` at `place`, or None if there are none."""
        ...

    def counts(self, place: int) -> Mapping[int, int]:
        """Return how many answers have which token at `place`; tokens that none has are left out."""
        ...

    def joint_entropy(self, places: Sequence[int]) -> float:
        """Return the entropy, in nats, of the tokens at `places` taken together."""
        ...


@dataclass(frozen=True, kw_only=True)
class Listed:
    """The law of explicitly listed, distinct answers."""

    answers: tuple[tuple[int, ...], ...]
    end_id: int

    def _token(self, answer: tuple[int, ...], place: int) -> int:
        return answer[place] if place < len(answer) else self.end_id

    def given(self, place: int, token: int) -> "Listed | None":
        """Return the law of the answers with `token` at `place`, or None if there are none."""
        left = tuple(a for a in self.answers if self._token(a, place) == token)
        return replace(self, answers=left) if left else None

    def counts(self, place: int) -> Mapping[int, int]:
        """Return how many answers have which token at `place`."""
        return Counter(self._token(a, place) for a in self.answers)

    def joint_entropy(self, places: Sequence[int]) -> float:
        """Return the entropy of the tokens at `places` in nats."""
        return entropy(Counter(tuple(self._token(a, p) for p in places) for a in self.answers).values())


@dataclass(frozen=True, kw_only=True)
class Shuffled:
    """The law of the arrangements of distinct items, in closed form.

    With `allow_identity` all n! arrangements are answers, otherwise all but the list itself. `placed` maps places
    to the tokens revealed there.
    """

    items: tuple[int, ...]
    end_id: int
    allow_identity: bool
    placed: Mapping[int, int] = field(default_factory=dict)

    @cached_property
    def _unused(self) -> frozenset[int]:
        return frozenset(self.items).difference(self.placed.values())

    @cached_property
    def _excluded(self) -> int:
        """1 if the excluded arrangement agrees with what is placed, else 0."""
        return int(not self.allow_identity and all(self.items[p] == t for p, t in self.placed.items()))

    @cached_property
    def total(self) -> int:
        """Number of answers."""
        return math.factorial(len(self._unused)) - self._excluded

    def given(self, place: int, token: int) -> "Shuffled | None":
        """Return the law of the answers with `token` at `place`, or None if there are none."""
        if place >= len(self.items) or place in self.placed:
            return self if token in self.counts(place) else None
        if token not in self._unused:
            return None
        law = replace(self, placed={**self.placed, place: token})
        return law if law.total else None

    def counts(self, place: int) -> Mapping[int, int]:
        """Return how many answers have which token at `place`."""
        if place >= len(self.items):
            return {self.end_id: self.total}
        if place in self.placed:
            return {self.placed[place]: self.total}
        others = math.factorial(len(self._unused) - 1)
        counted = {x: others - (self._excluded and x == self.items[place]) for x in self._unused}
        return {token: count for token, count in counted.items() if count}

    def joint_entropy(self, places: Sequence[int]) -> float:
        """Return the entropy of the tokens at `places` in nats."""
        free = {p for p in places if p < len(self.items) and p not in self.placed}
        ways = math.factorial(len(self._unused) - len(free))
        choices = math.perm(len(self._unused), len(free))
        # All choices of tokens for the free places are equally likely, but the one that the list itself makes.
        return _entropy_of_groups(((choices - 1, ways), (1, ways - self._excluded)), self.total)


def entropy(counts: Iterable[int]) -> float:
    """Return the entropy in nats of a law given by counts."""
    groups = Counter(counts)
    return _entropy_of_groups(
        ((times, count) for count, times in groups.items()), sum(c * times for c, times in groups.items())
    )


def _entropy_of_groups(groups: Iterable[tuple[int, int]], total: int) -> float:
    """Return the entropy of outcomes given as (how many, count of each)."""
    return math.fsum(n * (c / total) * math.log(total / c) for n, c in groups if n and c)
