"""The ideal sampler by enumeration, with rational arithmetic: what the closed forms are compared with."""

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import permutations

from tasks.lists.instance import ListInstance

Items = tuple[str, ...]


def problem(op: str, n: int, **given: object) -> ListInstance:
    """Return `op` on the first n letters, with the word "W" where the operation takes one."""
    word = "W" if op.startswith(("insert", "replace")) else None
    values = {"items": tuple("abcdefghij"[:n]), "word": word} | given
    return ListInstance(op=op, id="", split="", seed=0, **values)


def answers_of(op: str, n: int, *, allow_identity: bool = False) -> list[Items]:
    """Return all answers of `op` on n letters."""
    asked = problem(op, n)
    return list(permutations(asked.items)) if allow_identity else list(asked.answers())


def mass(answers: Sequence[Items], answer: Items, steps: Sequence[Sequence[int]]) -> Fraction:
    """Return the probability that the ideal sampler ends at `answer` when it commits `steps` in order."""
    consistent, chance = list(answers), Fraction(1)
    for positions in steps:
        for p in positions:
            chance *= Fraction(sum(other[p] == answer[p] for other in consistent), len(consistent))
        consistent = [other for other in consistent if all(other[p] == answer[p] for p in positions)]
    return chance


def success(answers: Sequence[Items], steps: Sequence[Sequence[int]]) -> Fraction:
    """Return the probability that the ideal sampler ends at any of `answers`."""
    return sum((mass(answers, answer, steps) for answer in answers), Fraction(0))


def divergence(answers: Sequence[Items], steps: Sequence[Sequence[int]]) -> float:
    """Return KL(uniform over answers || ideal sampler) in nats."""
    return -math.fsum(math.log(len(answers) * mass(answers, a, steps)) for a in answers) / len(answers)


def left_to_right(counts: Sequence[int]) -> list[range]:
    """Return the positions of each step when `counts` of them are committed from the left."""
    ends = [sum(counts[: step + 1]) for step in range(len(counts))]
    return [range(end - count, end) for end, count in zip(ends, counts, strict=True)]
