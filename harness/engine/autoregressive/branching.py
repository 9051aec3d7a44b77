"""Rows of one sample: how they fork and are pruned, what is written over them, and which of them is the answer.

Shapes: B rows, R rows that are left of a sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from harness.engine.autoregressive.sequences import Sequences
from harness.engine.shared.generation import GIVEN, Generation
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Prediction
from harness.engine.shared.randomness import forked_seeds

MOST_ROWS = 4096
"""Rows of one sample: more than any method was published with, and as many as small models have memory for."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Which rows go on, in their new order: repeats fork, what is missing is pruned.

    `memory` is what the rows are told, `seed_B` are new seeds of theirs, None for those that they had.
    """

    index_B: Tensor
    seed_B: Tensor | None = None
    memory: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A row that has ended, by a stop token or not, and whether an answer can be read in it.

    `memory` holds the numbers that policies kept for the row.
    """

    generation: Generation
    stopped: bool
    readable: bool
    memory: dict[str, float]


class Branching(Protocol):
    """Which rows a sample has: how they fork and are pruned, and what they come to."""

    drafts: ClassVar[bool]
    """Whether what goes on is known before a call, so that drafts can be scored in it."""
    votes: ClassVar[bool]
    """Whether rows that the answer comes from vote for it; else the first is the answer, and others are beside it."""

    @property
    def synchronous(self) -> bool:
        """Whether the rows of a sample share a call, rather than have one each."""
        ...

    def spread(self, prediction: Prediction, sequences: Sequences) -> Spread | None:
        """Return the rows that go on from a call; None says that every row goes on by itself."""
        ...

    def over(self, ended: Sequence[Branch], sequences: Sequences, rows_R: Tensor) -> bool:
        """Say whether a sample is done of which some rows have ended, and go on `rows_R` of `sequences`, if any."""
        ...

    def settled(self, ended: Sequence[Branch]) -> Sequence[Branch]:
        """Return the branches that the answer comes from, the best first; at least one."""
        ...


@policy("method/branching", "single")
class Single:
    """One row per sample, which is its answer."""

    drafts: ClassVar[bool] = True
    votes: ClassVar[bool] = False

    @property
    def synchronous(self) -> bool:
        """Yes."""
        return True

    def spread(self, prediction: Prediction, sequences: Sequences) -> Spread | None:
        """Leave all rows as they are."""
        return None

    def over(self, ended: Sequence[Branch], sequences: Sequences, rows_R: Tensor) -> bool:
        """Say yes."""
        return True

    def settled(self, ended: Sequence[Branch]) -> Sequence[Branch]:
        """Return the one."""
        return ended


def fork(sequences: Sequences, spread: Spread) -> Sequences:
    """Return the rows that go on; what a sample has generated so far is counted with its first row."""
    forked = sequences.rows(spread.index_B)
    samples = int(sequences.sample_B.max()) + 1
    generated_S = torch.zeros(samples, dtype=torch.int64, device=sequences.sample_B.device)
    generated_S.index_add_(0, sequences.sample_B, sequences.generated_B)
    repeated_B = (forked.sample_B[:, None] == forked.sample_B).tril(-1).any(1)
    memory = forked.memory
    memory |= spread.memory
    return replace(
        forked,
        generated_B=generated_S[forked.sample_B].masked_fill(repeated_B, 0),
        seed_B=forked.seed_B if spread.seed_B is None else spread.seed_B,
    )


class Revision(Protocol):
    """What is written over a row from outside: tokens taken back, others put in their place."""

    def __call__(self, sequences: Sequences, stop_ids: tuple[int, ...]) -> Sequences:
        """Return the sequences that go on from a round; asked before rows that have stopped leave."""
        ...


@policy("method/revision", "never")
class NeverRevise:
    """Let stand what was committed."""

    def __call__(self, sequences: Sequences, stop_ids: tuple[int, ...]) -> Sequences:
        """Return the sequences as they are."""
        return sequences


def rewritten(sequences: Sequences, row: int, keep: int, tokens: Sequence[int]) -> Sequences:
    """Return the sequences with a row's response cut to `keep` tokens and others put behind, which must fit.

    Those count as given. The next call computes them, and draws with other numbers than those that were used.
    """
    start = int(sequences.prompt_length_B[row]) + keep
    end = start + len(tokens)
    assert end < int(sequences.limit_B[row]), "there is room for a token behind"
    tokens_BL, decided_at_BL = sequences.tokens_BL.clone(), sequences.decided_at_BL.clone()
    tokens_BL[row, start:end] = torch.tensor(list(tokens), device=tokens_BL.device)
    decided_at_BL[row, start:end] = GIVEN
    at_1 = torch.tensor([row], device=tokens_BL.device)
    # A number that no row of a sample has: the first one would go on with the draws of the second.
    moved_1 = forked_seeds(sequences.seed_B[at_1], -torch.ones_like(at_1))
    return replace(
        sequences,
        tokens_BL=tokens_BL,
        decided_at_BL=decided_at_BL,
        length_B=sequences.length_B.index_fill(0, at_1, end),
        computed_B=torch.minimum(sequences.computed_B, sequences.computed_B.index_fill(0, at_1, start)),
        seed_B=sequences.seed_B.index_copy(0, at_1, moved_1),
    )
