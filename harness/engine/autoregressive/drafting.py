"""The state of a batch of autoregressive generations, and the parts that an autoregressive method is made of.

A policy is a frozen object that holds parameters only; what changes during a generation lives in the sequences.
Shapes: B rows, L positions, K drafted tokens, T tokens of a round, N scored positions, V vocabulary. Positions are
absolute.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from harness.engine.autoregressive.sequences import Sequences, first
from harness.engine.shared.generation import GIVEN
from harness.engine.shared.model import LanguageModel, ModelKind
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Prediction
from harness.engine.shared.records import Ledger
from harness.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Drafted tokens: the first `count_B` of each row of `tokens_BK`, the rest is padding.

    `probabilities_BKV` are the distributions that the tokens were drawn from; None means that the drafter is
    deterministic (each distribution is one-hot).
    """

    tokens_BK: Tensor
    count_B: Tensor
    probabilities_BKV: Tensor | None = None

    @classmethod
    def empty(cls, sequences: Sequences) -> Self:
        """Return no drafts."""
        return cls(tokens_BK=sequences.tokens_BL[:, :0], count_B=torch.zeros_like(sequences.length_B))

    def clip(self, count_B: Tensor) -> Self:
        """Return the proposal with at most `count_B` tokens per row, no wider than its longest row."""
        count_B = torch.minimum(self.count_B, count_B)
        width, q_BKV = int(count_B.max()), self.probabilities_BKV
        return replace(
            self,
            tokens_BK=self.tokens_BK[:, :width],
            count_B=count_B,
            probabilities_BKV=None if q_BKV is None else q_BKV[:, :width],
        )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Per row: how many drafted tokens stand, and the model's own token behind them.

    `token_gap_BT` is how far the model's choice was from the next best token at each of these places
    (`harness.engine.shared.prediction.token_gap`); None where two tokens' order decided nothing.
    """

    accepted_B: Tensor
    token_B: Tensor
    token_gap_BT: Tensor | None = None

    @classmethod
    def exact_match(
        cls,
        prediction: Prediction,
        tokens_N: Tensor,
        proposal: Proposal,
        sequences: Sequences,
        token_gap_N: Tensor | None = None,
    ) -> Self:
        """Accept drafts as long as they equal `tokens_N`, the model's choice at the scored positions.

        The result is what the model would emit one token at a time, whatever was drafted.
        """
        width = proposal.tokens_BK.shape[1]
        place_T = torch.arange(width + 1, device=tokens_N.device)
        # Rows with few drafts are padded beyond what was scored, possibly beyond the last position.
        position_BT = (sequences.length_B[:, None] + place_T).clamp(max=prediction.shape[1] - 1)
        wanted_BT = prediction.scatter(tokens_N, GIVEN).gather(1, position_BT)
        agrees_BK = (wanted_BT[:, :width] == proposal.tokens_BK) & first(proposal.count_B, width)
        accepted_B = agrees_BK.long().cumprod(1).sum(1)
        gap_BL = None if token_gap_N is None else prediction.scatter(token_gap_N, torch.inf)
        return cls(
            accepted_B=accepted_B,
            token_B=wanted_BT.gather(1, accepted_B[:, None]).squeeze(1),
            token_gap_BT=None if gap_BL is None else gap_BL.gather(1, position_BT),
        )


@dataclass(frozen=True, kw_only=True)
class Round:
    """One call of the model: what was drafted, what it said, what was kept. Round 0 is the prefill, without drafts.

    `verdict` is what the acceptor said; `after` may hold fewer tokens, cut behind a stop token. `token_margin_B` is the
    smallest gap by which a token that the round emitted was decided, infinite where none was.
    """

    index: int
    before: Sequences
    proposal: Proposal
    prediction: Prediction
    verdict: Verdict
    after: Sequences
    token_margin_B: Tensor

    @property
    def n_drafted_B(self) -> Tensor:
        """Number of drafted tokens that the model scored."""
        return self.proposal.count_B

    @property
    def n_accepted_B(self) -> Tensor:
        """Number of drafted tokens that were accepted."""
        return self.verdict.accepted_B


class Drafter(Protocol):
    """Which tokens probably come next."""

    def propose(self, model: LanguageModel, sequences: Sequences, limit_B: Tensor, ledger: Ledger) -> Proposal:
        """Return at most `limit_B` tokens per row, fewer or none at will.

        `model` is the target; to a drafter that asks another one (`AsksDraft`) it is `Models`, which has both. Calls of
        a model go through `ledger` with `Role.DRAFT`.
        """
        ...


@runtime_checkable
class AsksDraft(Drafter, Protocol):
    """A drafter that asks a model beside the target, one of the kinds that `asks` names."""

    asks: ClassVar[frozenset[ModelKind]]


class DraftLength(Protocol):
    """How many tokens to draft."""

    def limit(self, sequences: Sequences) -> Tensor:
        """Return the largest number of tokens to draft, per row."""
        ...

    def update(self, completed: Round) -> None:
        """Learn from a round, in `completed.after.memory`."""
        ...


class Acceptor(Protocol):
    """Which drafted tokens stand, and which token follows them."""

    def __call__(self, prediction: Prediction, proposal: Proposal, sequences: Sequences) -> Verdict:
        """Judge the drafts; `prediction` covers each row's positions `length_B` to `length_B + count_B`."""
        ...


@policy("method/drafter", "empty")
class EmptyDrafter:
    """Draft nothing: plain decoding, one token per call."""

    def propose(self, model: LanguageModel, sequences: Sequences, limit_B: Tensor, ledger: Ledger) -> Proposal:
        """Return no drafts."""
        return Proposal.empty(sequences)


@policy("method/draft_length", "fixed")
class FixedLength:
    """Draft up to `length` tokens in every round (default: K of Chen et al., arXiv:2302.01318)."""

    length: int = 4

    def __post_init__(self) -> None:
        if self.length < 0:
            raise ConfigError(f"draft_length.length must be >= 0 (0 drafts nothing), got {self.length}")

    def limit(self, sequences: Sequences) -> Tensor:
        """Return `length` for every row."""
        return torch.full_like(sequences.length_B, self.length)

    def update(self, completed: Round) -> None:
        """Learn nothing."""


@dataclass(frozen=True, kw_only=True)
class AutoregressiveMethod:
    """An autoregressive method: a choice of policies. The defaults draft nothing."""

    acceptor: Acceptor
    drafter: Drafter = field(default_factory=EmptyDrafter)
    draft_length: DraftLength = field(default_factory=FixedLength)
