"""Several samples of one prompt: the first to finish answer (First Finish Search), or all of them do (majority vote).

Papers: First Finish Search, Agarwal et al., arXiv:2505.18149; self-consistency, Wang et al., arXiv:2203.11171.

N rows go on from one prompt, which is computed once, and draw their tokens with numbers of their own. With `k` of them
ended by a stop token, in the order (call, row), the others are aborted; the answer is voted among these. k = N is
majority voting, N = 1 plain sampling. Where fewer stop, all rows vote. With `require_answer` a row without an answer
that can be read does not count. Reading texts and counting votes is the runner's part (`harness.runs.votes`).

| symbol | argument | default |
|---|---|---|
| N | N | 4 |
| k | k | 1; 0 waits for all |
| tau, p | temperature, top_p of the acceptor | 0.6, 0.95 |

Deviation: no distinct opening strings (`prefixes` of the follow-up).

`synchronous` is one batch of rows in lockstep, one call for all. Otherwise every row is a worker with calls of its own,
and the k-th completion stops the others: at equal pace the same answer, in N times the calls. Drafts are made for all
rows at once in both. They change no row, but the calls in which rows stop: who is first, also among equals of a vote.

Aborted rows count for what they had generated: for k = 1, N times the length of the shortest.

Invariants: calls = length of the k-th to stop; N=1 equals `ar_sample`; the first row is that of `ar_sample`; sequential
cost does not grow with N.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from harness.engine.autoregressive.branching import MOST_ROWS, Branch, Spread
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Prediction
from harness.engine.shared.randomness import forked_seeds
from harness.errors import FieldError, within


@policy("method/branching", "samples")
class Samples:
    """Draw `N` answers at once, and go on until `k` have stopped (0: all have ended); see the module."""

    N: int = 4
    k: int = 1
    require_answer: bool = False
    synchronous: bool = True
    drafts: ClassVar[bool] = True
    votes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        within(1, MOST_ROWS, N=self.N)
        if not 0 <= self.k <= self.N:
            raise FieldError("k", self.k, f"lie in [0, N={self.N}] (0 waits for all)")

    def spread(self, prediction: Prediction, sequences: Sequences) -> Spread | None:
        """Fork every prompt into `N` rows behind its first call; leave all others as they are."""
        begins_B = sequences.length_B == sequences.prompt_length_B
        if self.N == 1 or not bool(begins_B.any()):
            return None
        count_B = torch.where(begins_B, self.N, 1)
        index_R = torch.arange(len(count_B), device=count_B.device).repeat_interleave(count_B)
        number_R = torch.arange(len(index_R), device=count_B.device) - (count_B.cumsum(0) - count_B)[index_R]
        return Spread(index_B=index_R, seed_B=forked_seeds(sequences.seed_B[index_R], number_R))

    def over(self, ended: Sequence[Branch], sequences: Sequences, rows_R: Tensor) -> bool:
        """Say whether `k` have stopped."""
        return 0 < self.k <= len(self._finishers(ended))

    def settled(self, ended: Sequence[Branch]) -> Sequence[Branch]:
        """Return the first `k` that have stopped, or all where fewer have."""
        finishers = self._finishers(ended)
        return finishers[: self.k] if 0 < self.k <= len(finishers) else ended

    def _finishers(self, ended: Sequence[Branch]) -> list[Branch]:
        return [one for one in ended if one.stopped and (one.readable or not self.require_answer)]
