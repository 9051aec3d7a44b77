"""Assistants: models that draft for one target, from its hidden states, between its embeddings and its head.

Shapes: B rows, N tokens of the target that an assistant has not seen yet, C channels, V vocabulary.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class LendsEnds(Protocol):
    """A target between whose embeddings and head another model can run."""

    def embed(self, tokens: Tensor) -> Tensor:
        """Return the embeddings [..., C] of tokens [...], of no position yet."""
        ...

    def head(self, states: Tensor) -> Tensor:
        """Return raw logits [..., V] of states [..., C] that are behind a norm."""
        ...


@dataclass(frozen=True, kw_only=True)
class Context:
    """What an assistant is shown of its target beside the tokens of a call.

    `states_BNC` are those of tokens that it has not seen yet, the target's layers side by side. Nothing is computed of
    these but keys and values, for `positions_BN`, which get to the slots `slots_BN`. `ends` are the target's.
    """

    states_BNC: Tensor
    positions_BN: Tensor
    slots_BN: Tensor
    ends: LendsEnds
