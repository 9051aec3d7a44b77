"""Rows that a call computes twice: as they are, and a twin of each by another routing, with keys and values of its own.

Shapes: B rows.
"""

from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from harness.engine.autoregressive.drafting import Acceptor, Verdict
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.shared.model import JoinableStore, LanguageModel, Store, keep_rows
from harness.engine.shared.prediction import Prediction
from harness.engine.shared.routing import Routing


@runtime_checkable
class WeighsTwins(Acceptor, Protocol):
    """An acceptor that may have the target's calls compute a twin of every row, and weighs the two; it takes no drafts.

    `twins` says whether it ever does, with these parameters: `twin` is asked before every call.
    """

    @property
    def twins(self) -> bool:
        """Say whether rows may have twins."""
        ...

    def twin(self, sequences: Sequences, layers: int) -> Routing | None:
        """Return the routing of the twins in the next call, of a target of so many layers; None: there are none."""
        ...

    def weigh(self, prediction: Prediction, twin: Prediction, sequences: Sequences) -> Verdict:
        """Return the next tokens, given what is predicted of the rows and of their twins."""
        ...


class TwinStore:
    """Keys and values of rows and of their twins: row b has the rows 2b and 2b + 1 of `both`."""

    def __init__(self, both: Store) -> None:
        self.both = both

    @property
    def slots(self) -> int:
        """Number of positions that fit."""
        return self.both.slots

    def rows(self, index_B: Tensor) -> "TwinStore":
        """Return a copy with the rows of `index_B` and their twins, in that order, repeats allowed."""
        return TwinStore(self.both.rows(_with_twins(index_B)))

    def keep(self, index_B: Tensor) -> "TwinStore":
        """Drop all rows but those of `index_B` and their twins, and return what is left."""
        return TwinStore(keep_rows(self.both, _with_twins(index_B)))

    def grown(self, slots: int) -> "TwinStore":
        """Return a copy with more slots, which hold nothing yet."""
        return TwinStore(self.both.grown(slots))

    def extended(self, rows: int) -> "TwinStore":
        """Return a copy with so many more rows and twins behind its own, which hold nothing yet."""
        return TwinStore(self.both.extended(2 * rows))

    def joined(self, other: "TwinStore") -> "TwinStore":
        """Return a copy with the rows and twins of another store behind its own."""
        assert isinstance(self.both, JoinableStore), "rows can begin beside others where keys and values are in rows"
        return TwinStore(self.both.joined(other.both))


def _with_twins(index_B: Tensor) -> Tensor:
    return torch.stack([2 * index_B, 2 * index_B + 1], 1).flatten()


def with_twins(model: LanguageModel, sequences: Sequences) -> Sequences:
    """Return rows whose store has room for their twins; those that have none have computed nothing yet."""
    if isinstance(sequences.store, TwinStore):
        return sequences
    assert not bool(sequences.computed_B.any()), "a twin begins with its row"
    return replace(sequences, store=TwinStore(model.new_store(2 * sequences.num_rows, sequences.store.slots)))


def pairs(sequences: Sequences) -> Sequences:
    """Return every row and, behind it, its twin."""
    assert isinstance(sequences.store, TwinStore)
    index_B = torch.arange(sequences.num_rows, device=sequences.length_B.device)
    doubled = sequences.rows(index_B.repeat_interleave(2), of=lambda store, at: store)
    return replace(doubled, store=sequences.store.both)
