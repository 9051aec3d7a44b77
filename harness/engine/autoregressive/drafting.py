"""What a round of autoregressive generations is made of, drafts and verdicts, and the policies that make them.

A policy is a frozen object that holds parameters only; what changes during a generation lives in the sequences.
Shapes: B rows, L positions, K drafted tokens, T tokens of a round, N scored positions, V vocabulary. Positions are
absolute.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar, Protocol, Self, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.engine.autoregressive.layers import Begun
from harness.engine.autoregressive.sequences import Sequences, first
from harness.engine.autoregressive.stopping import Drafted, KeepGoing
from harness.engine.autoregressive.trees import ANCHOR, Node, Tree, compacted, deepest
from harness.engine.shared.drafts import RoundRecord
from harness.engine.shared.generation import GIVEN
from harness.engine.shared.indexing import filled, positions
from harness.engine.shared.model import LanguageModel, ModelKind, Store
from harness.engine.shared.places import Places
from harness.engine.shared.prediction import Prediction
from harness.engine.shared.records import Ledger, Role


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Drafted tokens: the first `count_B` of each row of `tokens_BK`, the rest is padding.

    `probabilities_BKV` are the distributions that the tokens were drawn from; None means that the drafter is
    deterministic (each distribution is one-hot). Where drafts have `begun` to pass the target, verification goes on
    from there.

    Without `parent_BK` a row's drafts follow one another. With it they are a tree (`trees`): it tells on which earlier
    one each hangs, -1 on the last committed token; siblings stand in the order in which they are tried. Their
    distributions are then those of one law without the siblings before, unless they are `independent` draws. Behind the
    drafts of such a row may stand `beside_B` more tokens, which the call computes and nobody accepts.
    `told` are the `count_B` that the host knows, and their numbers.
    """

    tokens_BK: Tensor
    count_B: Tensor
    probabilities_BKV: Tensor | None = None
    parent_BK: Tensor | None = None
    independent: bool = False
    beside_B: Tensor | None = None
    begun: Begun | None = None
    told: tuple[Tensor, Sequence[int]] | None = None

    @classmethod
    def empty(cls, sequences: Sequences) -> Self:
        """Return no drafts."""
        tokens_BL = sequences.tokens_BL
        return cls(tokens_BK=tokens_BL[:, :0], count_B=filled((len(tokens_BL),), 0, torch.int64, tokens_BL.device))

    @classmethod
    def of_trees(cls, rows: Sequence[Sequence[Node]], beside: Sequence[int], device: torch.device) -> Self:
        """Return trees given node by node for each row, the last `beside` of which are no drafts."""
        width = max(map(len, rows), default=0)
        filled = [[*row, *[(ANCHOR, 0)] * (width - len(row))] for row in rows]
        node_BK2 = torch.tensor(filled, dtype=torch.int64, device=device).view(len(rows), width, 2)
        drafts = [len(row) - more for row, more in zip(rows, beside, strict=True)]
        return cls(
            tokens_BK=node_BK2[..., 1],
            count_B=torch.tensor(drafts, device=device),
            parent_BK=node_BK2[..., 0],
            beside_B=torch.tensor(beside, device=device) if any(beside) else None,
        )

    @property
    def fed_B(self) -> Tensor:
        """Number of tokens that a call computes behind the committed ones, drafts and those beside them."""
        return self.count_B if self.beside_B is None else self.count_B + self.beside_B

    @property
    def fed(self) -> Sequence[int]:
        """The same as numbers; the host waits for the device where it does not know them."""
        known_B, counts = self.told or (None, ())
        return counts if self.fed_B is known_B else self.fed_B.tolist()

    @cached_property
    def tree(self) -> Tree | None:
        """The tree of the tokens; None where they follow one another."""
        return None if self.parent_BK is None else Tree.of(self.parent_BK, self.fed_B)

    def clip(self, count_B: Tensor, beside_B: Tensor | None = None) -> Self:
        """Return the proposal with at most `count_B` tokens per row one after the other, no wider than its longest row.

        Tokens beside drafts may follow one another as often as `beside_B` says (default: as drafts).
        """
        if self.parent_BK is not None:
            return self._clip_tree(self.parent_BK, count_B, count_B if beside_B is None else beside_B)
        count_B = torch.minimum(self.count_B, count_B)
        counts, q_BKV = count_B.tolist(), self.probabilities_BKV
        width = max(counts)
        return replace(
            self,
            tokens_BK=self.tokens_BK[:, :width],
            count_B=count_B,
            probabilities_BKV=None if q_BKV is None else q_BKV[:, :width],
            told=(count_B, counts),
        )

    def _clip_tree(self, parent_BK: Tensor, depth_B: Tensor, beside_B: Tensor) -> Self:
        assert self.tree is not None
        fed_BK, draft_BK = (first(count_B, parent_BK.shape[1]) for count_B in (self.fed_B, self.count_B))
        keep_BK = self.tree.within(torch.where(draft_BK, depth_B[:, None], beside_B[:, None])) & fed_BK
        order_BK, parent_BK = compacted(keep_BK, parent_BK)
        width, q_BKV = int(keep_BK.sum(1).max()), self.probabilities_BKV
        if q_BKV is not None:
            q_BKV = q_BKV.gather(1, order_BK[..., None].expand_as(q_BKV))[:, :width]
        return replace(
            self,
            tokens_BK=self.tokens_BK.gather(1, order_BK)[:, :width],
            count_B=(keep_BK & draft_BK).sum(1),
            probabilities_BKV=q_BKV,
            # Without a token there is no tree: the call is that of plain decoding.
            parent_BK=parent_BK[:, :width] if width else None,
            beside_B=None if self.beside_B is None or not width else (keep_BK & ~draft_BK).sum(1),
        )

    def entries(self) -> tuple[Tensor, Tensor]:
        """Return row and token of each entry [N] of the prediction: 0 is what follows the committed tokens, then each.

        So token k of the proposal has the entry k + 1 of its row.
        """
        row_N, token_N = first(self.fed_B + 1, self.tokens_BK.shape[1] + 1).nonzero(as_tuple=True)
        return row_N, token_N


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Per row: how many drafted tokens stand, and the model's own token behind them.

    Of a tree, `path_BD` says which: the first `accepted_B` are their places in the proposal, in their order; None
    means that they are the first ones. `token_gap_BT` is how far the model's choice was from the next best token at
    each of these places (`harness.engine.shared.prediction.token_gap`); None where two tokens' order decided nothing.
    Calls of the judge's own may have found `further` tokens behind `token_B`; `store` then holds the keys and values of
    all but the last, and `generated_B` counts the tokens that these calls have made, whether they stand or not.
    """

    accepted_B: Tensor
    token_B: Tensor
    token_gap_BT: Tensor | None = None
    path_BD: Tensor | None = None
    further: Proposal | None = None
    store: Store | None = None
    generated_B: Tensor | None = None

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
        if proposal.tree is not None:
            return cls._exact_path(tokens_N, proposal, proposal.tree, token_gap_N)
        width = proposal.tokens_BK.shape[1]
        if not width:
            gap_B1 = None if token_gap_N is None else token_gap_N[:, None]
            return cls(accepted_B=proposal.count_B, token_B=tokens_N, token_gap_BT=gap_B1)
        # Rows with few drafts are padded beyond what was scored, possibly beyond the last position.
        position_BT = (sequences.length_B[:, None] + positions(width + 1, tokens_N.device)).clamp(
            max=prediction.shape[1] - 1
        )
        wanted_BT = prediction.scatter(tokens_N, GIVEN).gather(1, position_BT)
        agrees_BK = (wanted_BT[:, :width] == proposal.tokens_BK) & first(proposal.count_B, width)
        accepted_B = agrees_BK.long().cumprod(1).sum(1)
        gap_BL = None if token_gap_N is None else prediction.scatter(token_gap_N, torch.inf)
        return cls(
            accepted_B=accepted_B,
            token_B=wanted_BT.gather(1, accepted_B[:, None]).squeeze(1),
            token_gap_BT=None if gap_BL is None else gap_BL.gather(1, position_BT),
        )

    @classmethod
    def _exact_path(cls, tokens_N: Tensor, proposal: Proposal, tree: Tree, token_gap_N: Tensor | None) -> Self:
        assert proposal.parent_BK is not None
        entry = proposal.entries()
        wanted_BT = F.pad(torch.zeros_like(proposal.tokens_BK), (0, 1)).index_put(entry, tokens_N)
        agrees_BK = wanted_BT.gather(1, proposal.parent_BK + 1) == proposal.tokens_BK
        path_BD, accepted_B = deepest(tree, agrees_BK & first(proposal.count_B, agrees_BK.shape[1]))
        # What follows the committed tokens, then each token of the path.
        passed_BT = F.pad(path_BD + 1, (1, 0))
        gap_BT = None
        if token_gap_N is not None:
            gap_BT = torch.zeros_like(wanted_BT, dtype=token_gap_N.dtype).index_put(entry, token_gap_N)
        return cls(
            accepted_B=accepted_B,
            token_B=wanted_BT.gather(1, passed_BT.gather(1, accepted_B[:, None])).squeeze(1),
            token_gap_BT=None if gap_BT is None else gap_BT.gather(1, passed_BT),
            path_BD=path_BD,
        )


@dataclass(frozen=True, kw_only=True)
class Round:
    """One call of the model: what was drafted, what it said, what was kept. The prefill is one, without drafts.

    `verdict` is what the acceptor said; `after` may hold fewer tokens, cut behind a stop token. `token_margin_B` is the
    smallest gap by which a token that the round emitted was decided, infinite where none was. `states` are hidden
    states of the call by depth, as `Taps` keeps them, T from `before.computed_B` on: those that the drafter
    or the acceptor taps.
    """

    role: Role
    before: Sequences
    proposal: Proposal
    prediction: Prediction
    verdict: Verdict
    after: Sequences
    token_margin_B: Tensor
    states: Mapping[int, Tensor] = field(default_factory=dict)

    @property
    def n_drafted_B(self) -> Tensor:
        """Number of drafted tokens that the model scored."""
        return self.proposal.count_B

    @property
    def n_accepted_B(self) -> Tensor:
        """Number of drafted tokens that were accepted."""
        return self.verdict.accepted_B

    def record(self) -> RoundRecord:
        """Return what came of the drafts: counts stay on the device until somebody asks for them."""
        before = self.before
        return RoundRecord(
            sample_B=torch.where(before.length_B > before.prompt_length_B, before.sample_B, -1),
            drafted_B=self.n_drafted_B,
            tried_B=self._tried_B(),
            accepted_B=self.n_accepted_B,
            tree=self.proposal.parent_BK is not None,
        )

    def _tried_B(self) -> Tensor:
        """Return how many places of drafts the target came to, one behind those that stand where a draft was there."""
        parent_BK, path_BD, accepted_B = self.proposal.parent_BK, self.verdict.path_BD, self.n_accepted_B
        if parent_BK is None or path_BD is None:
            return torch.minimum(accepted_B + 1, self.n_drafted_B)
        last_B = path_BD.gather(1, (accepted_B[:, None] - 1).clamp(min=0)).squeeze(1)
        end_B = torch.where(accepted_B > 0, last_B, ANCHOR)
        drafts_BK = first(self.n_drafted_B, parent_BK.shape[1])
        return accepted_B + ((parent_BK == end_B[:, None]) & drafts_BK).any(1)

    def drafted_places(self, row: int) -> list[int]:
        """Return how far behind the committed tokens each draft of a row stands, from 0; accepted ones first."""
        count, tree, path_BD = int(self.proposal.count_B[row]), self.proposal.tree, self.verdict.path_BD
        if tree is None or path_BD is None:
            return [*range(count)]
        accepted = path_BD[row, : int(self.verdict.accepted_B[row])].tolist()
        others = [node for node in range(count) if node not in accepted]
        return [depth - 1 for depth in tree.depth_BK[row, [*accepted, *others]].tolist()]

    @property
    def along(self) -> Prediction:
        """What was predicted of each position where the drafts that stand were followed, and of no other tree's path.

        A chain has one path, and all of it is returned.
        """
        path_BD, said, accepted_B = self.verdict.path_BD, self.prediction, self.verdict.accepted_B
        if path_BD is None:
            return said
        row_N, token_N = self.proposal.entries()
        stands_BD = first(accepted_B, path_BD.shape[1])
        on_BT = F.pad(torch.zeros_like(self.proposal.tokens_BK, dtype=torch.bool), (1, 0), value=True)
        on_BT = on_BT.scatter(1, torch.where(stands_BD, path_BD + 1, 0), True)
        entry_N = on_BT[row_N, token_N].nonzero().squeeze(1)
        places = Places.of(row_N[entry_N], said.position_N[entry_N], said.shape)
        return replace(said, logits_NV=said.logits_NV[entry_N], places=places)


class Drafter(Protocol):
    """Which tokens probably come next."""

    def propose(self, model: LanguageModel, sequences: Sequences, limit_B: Tensor, ledger: Ledger) -> Proposal:
        """Return at most `limit_B` tokens per row one after the other, fewer or none at will.

        `model` is the target; to a drafter that asks another one (`AsksDraft`) it is `Models`, which has both. Calls of
        a model go through `ledger` with `Role.DRAFT`.
        """
        ...


@runtime_checkable
class AsksDraft(Drafter, Protocol):
    """A drafter that asks a model beside the target, one of the kinds that `asks` names."""

    asks: ClassVar[frozenset[ModelKind]]


@runtime_checkable
class LearnsFromRounds(Protocol):
    """A drafter or a draft length that is told what the target said."""

    def update(self, completed: Round) -> None:
        """Learn from a round, in `completed.after.memory`."""
        ...


@runtime_checkable
class DraftsStepwise(Drafter, Protocol):
    """A drafter that makes one token after the other, and may be stopped behind each."""

    def propose_while(
        self, model: LanguageModel, sequences: Sequences, limit_B: Tensor, ledger: Ledger, keep_going: KeepGoing
    ) -> Proposal:
        """Do as `propose` does, asking `keep_going` behind each token, the last that there is room for included."""
        ...


@runtime_checkable
class ShowsStates(DraftsStepwise, Protocol):
    """A drafter that can show the hidden states which it makes tokens of."""

    def propose_shown(
        self, model: LanguageModel, sequences: Sequences, limit_B: Tensor, ledger: Ledger, keep_going: KeepGoing
    ) -> Proposal:
        """Do as `propose_while` does, with hidden states in what is drafted (`Drafted.state_RC`)."""
        ...


class DraftLength(Protocol):
    """How many tokens to draft."""

    def limit(self, sequences: Sequences) -> Tensor:
        """Return the largest number of tokens to draft, per row."""
        ...


@runtime_checkable
class StopsDrafting(DraftLength, Protocol):
    """A draft length that is decided while drafting, token by token; its `limit` is the most that it may come to.

    With `reads_states` true it decides by hidden states of the drafter, and says as `RunsParts` that it needs them.
    """

    def keep_going(self, drafted: Drafted) -> Tensor:
        """Return which of the rows [R] draft another token; what is remembered goes to `drafted.sequences.memory`."""
        ...


class Acceptor(Protocol):
    """Which drafted tokens stand, and which token follows them."""

    def __call__(self, prediction: Prediction, proposal: Proposal, sequences: Sequences) -> Verdict:
        """Judge the drafts; `prediction` covers each row's positions `length_B` to `length_B + count_B`."""
        ...
