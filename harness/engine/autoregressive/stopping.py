"""What is decided while a drafter makes one token after the other: what it shows of each, and who looks at it.

Shapes: B rows, R rows that draft, C channels, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from harness.engine.autoregressive.sequences import Sequences


@dataclass(frozen=True, kw_only=True)
class Drafted:
    """The tokens that a drafter has just made, the `step`-th of their round (from 1), for the rows `row_R`.

    `logits_RV` are what they were made of: log probabilities up to a constant, temperature included. `state_RC` are the
    hidden states that these were read from, behind the final norm: those of the token before, which was fed last. They
    are there for who asks for them (`StopsDrafting`).
    """

    step: int
    row_R: Tensor
    token_R: Tensor
    logits_RV: Tensor
    sequences: Sequences
    state_RC: Tensor | None = None

    def probability_R(self) -> Tensor:
        """Return the probability that the drafter gave each token."""
        return self.logits_RV.softmax(-1).gather(1, self.token_R[:, None])[:, 0]


KeepGoing = Callable[[Drafted], Tensor]
"""Says which of the rows [R] of what was drafted are to draft another token."""
