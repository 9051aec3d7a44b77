"""The state of a batch of autoregressive generations, and the parts that an autoregressive method is made of.

A policy is a frozen object that holds parameters only; what changes during a generation lives in the sequences.
Shapes: B rows, L positions, K drafted tokens, T tokens of a round, N scored positions, V vocabulary. Positions are
absolute.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Protocol, Self

import torch
from torch import Tensor

from harness.engine.canvas import GIVEN
from harness.engine.model import LanguageModel, Store
from harness.engine.policy import policy
from harness.engine.prediction import Prediction
from harness.engine.records import Ledger
from harness.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Rows of prompt, committed response, and room for the rest on the right.

    `length_B` tokens are committed and `limit_B` fit. The model's keys and values are final for the positions
    below `computed_B`, which is `length_B - 1` between rounds: the last committed token is fed together with the
    next drafts. Slots at and behind it are provisional, and a drafter may write them. `generated_B` counts drafted
    and emitted tokens. `token_margin_B` is the smallest gap by which an emitted token was decided, infinite where none
    was. `memory` holds what policies keep between rounds, each entry with one row per row.
    """

    tokens_BL: Tensor
    decided_at_BL: Tensor
    prompt_length_B: Tensor
    length_B: Tensor
    limit_B: Tensor
    computed_B: Tensor
    generated_B: Tensor
    sample_B: Tensor
    seed_B: Tensor
    token_margin_B: Tensor
    store: Store
    memory: dict[str, Tensor | Store] = field(default_factory=dict)

    @classmethod
    def from_prompts(
        cls, model: LanguageModel, prompts: Sequence[Sequence[int]], *, gen_length: int, seeds: Sequence[int]
    ) -> Self:
        """Lay out prompts of at least one token with room for `gen_length` tokens behind each."""
        assert all(prompts), "a prompt has at least one token"
        assert gen_length >= 1, f"gen_length must be at least 1, got {gen_length}"
        rows, width = len(prompts), max(map(len, prompts)) + gen_length
        tokens_BL = torch.full((rows, width), model.spec.pad_id, dtype=torch.int64)
        for row, prompt in enumerate(prompts):
            tokens_BL[row, : len(prompt)] = torch.tensor(prompt)
        length_B = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
        return cls(
            tokens_BL=tokens_BL.to(model.device),
            decided_at_BL=torch.full_like(tokens_BL, GIVEN, device=model.device),
            prompt_length_B=length_B,
            length_B=length_B,
            limit_B=length_B + gen_length,
            computed_B=torch.zeros_like(length_B),
            generated_B=torch.zeros_like(length_B),
            sample_B=torch.arange(rows, device=model.device),
            seed_B=torch.tensor(list(seeds), dtype=torch.int64, device=model.device),
            token_margin_B=torch.full((rows,), torch.inf, dtype=torch.float64, device=model.device),
            store=model.new_store(rows, width),
        )

    @property
    def num_rows(self) -> int:
        """Number of rows B."""
        return self.tokens_BL.shape[0]

    def rows(self, index_B: Tensor) -> Self:
        """Return a copy with the rows of `index_B`, in that order, repeats allowed."""
        tensors = {
            f.name: value.index_select(0, index_B)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        memory = {
            name: kept.index_select(0, index_B) if isinstance(kept, Tensor) else kept.rows(index_B)
            for name, kept in self.memory.items()
        }
        return replace(self, **tensors, store=self.store.rows(index_B), memory=memory)


def write_behind(into_BL: Tensor, start_B: Tensor, values_BK: Tensor, count_B: Tensor) -> Tensor:
    """Return `into_BL` with the first `count_B` values of each row written from position `start_B` on."""
    row_N, place_N = first(count_B, values_BK.shape[1]).nonzero(as_tuple=True)
    out_BL = into_BL.clone()
    out_BL[row_N, start_B[row_N] + place_N] = values_BK[row_N, place_N]
    return out_BL


def first(count_B: Tensor, width: int) -> Tensor:
    """Return the mask [B, `width`] of the first `count_B` places of each row."""
    return torch.arange(width, device=count_B.device) < count_B[:, None]


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
    (`harness.engine.prediction.token_gap`); None where two tokens' order decided nothing.
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

        Calls of a model go through `ledger` with `Role.DRAFT`.
        """
        ...


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
