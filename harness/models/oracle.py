"""The ideal model: logits are logarithms of the exact marginals of each position given what a query sees.

Behind the interface of a trained model, so that every decoder runs on it; what it gets wrong is then the decoder's.
It reads the instance from the row's prompt, and what is revealed from the row's response.
Shapes: B rows, T query positions, S key slots, N selected positions, V vocabulary.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress

import torch
from torch import Tensor

from harness.engine.shared.generation import GIVEN
from harness.engine.shared.model import ForwardRequest, ModelKind, ModelSpec
from harness.errors import DataError
from harness.models.laws import Law, entropy

LawOf = Callable[[tuple[int, ...]], Law]
"""From the ids of a prompt, `<bos>` to `<sep>`, to the law of its answers; raises DataError for other prompts."""

_CACHED = 8192

Seen = tuple[tuple[int, int, int], ...]
"""Position, token, and step of its commit (-1: given) of every slot that a query sees."""


@dataclass(frozen=True, kw_only=True)
class TokenStore:
    """What an oracle keeps of a slot in place of keys and values, [B, S] each."""

    tokens_BS: Tensor
    positions_BS: Tensor
    decided_at_BS: Tensor

    @property
    def slots(self) -> int:
        """Number of positions that fit."""
        return self.tokens_BS.shape[1]

    def rows(self, index_B: Tensor) -> "TokenStore":
        """Return a copy with the rows of `index_B`, in that order, repeats allowed."""
        return self._at(index_B)

    def gathered(self, index_B: Tensor, slots_BS: Tensor) -> "TokenStore":
        """Return a copy with the rows of `index_B`, whose slots hold what their slots `slots_BS` hold here."""
        return self._at((index_B[:, None], slots_BS))

    def move(self, row_N: Tensor, from_N: Tensor, to_N: Tensor) -> None:
        """Have the slots `to_N` of rows hold what their slots `from_N` held before, in place."""
        for kept in (self.tokens_BS, self.positions_BS, self.decided_at_BS):
            kept[row_N, to_N] = kept[row_N, from_N]

    def _at(self, index: Tensor | tuple[Tensor, Tensor]) -> "TokenStore":
        return TokenStore(
            tokens_BS=self.tokens_BS[index],
            positions_BS=self.positions_BS[index],
            decided_at_BS=self.decided_at_BS[index],
        )

    def grown(self, slots: int) -> "TokenStore":
        """Return a copy with more slots; what they hold counts only once they were written."""
        rows, extra = self.tokens_BS.shape[0], slots - self.slots
        positions_S = torch.arange(self.slots, slots, device=self.positions_BS.device)
        return TokenStore(
            tokens_BS=torch.nn.functional.pad(self.tokens_BS, (0, extra)),
            positions_BS=torch.cat([self.positions_BS, positions_S.repeat(rows, 1)], 1),
            decided_at_BS=torch.nn.functional.pad(self.decided_at_BS, (0, extra), value=GIVEN),
        )

    def extended(self, rows: int) -> "TokenStore":
        """Return a copy with so many more rows behind its own; what they hold counts only once they were written."""
        pad = torch.nn.functional.pad
        return TokenStore(
            tokens_BS=pad(self.tokens_BS, (0, 0, 0, rows)),
            positions_BS=torch.cat([self.positions_BS, torch.arange(self.slots).to(self.positions_BS).repeat(rows, 1)]),
            decided_at_BS=pad(self.decided_at_BS, (0, 0, 0, rows), value=GIVEN),
        )

    def joined(self, other: "TokenStore") -> "TokenStore":
        """Return a copy with the rows of another store, of as many slots, behind its own."""
        return TokenStore(
            tokens_BS=torch.cat([self.tokens_BS, other.tokens_BS]),
            positions_BS=torch.cat([self.positions_BS, other.positions_BS]),
            decided_at_BS=torch.cat([self.decided_at_BS, other.decided_at_BS]),
        )

    @classmethod
    def of(cls, request: ForwardRequest) -> "TokenStore":
        """Return what a call shows."""
        tokens_BT, decided_at_BT = request.tokens_BT, request.decided_at_BT
        decided_at_BT = torch.full_like(tokens_BT, GIVEN) if decided_at_BT is None else decided_at_BT
        return cls(tokens_BS=tokens_BT, positions_BS=request.places_BT(), decided_at_BS=decided_at_BT)

    def write(self, request: ForwardRequest) -> None:
        """Replace, in place, the slots that a call writes."""
        window = TokenStore.of(request)
        slots_BT = window.positions_BS if request.slots_BT is None else request.slots_BT
        self.tokens_BS.scatter_(1, slots_BT, window.tokens_BS)
        self.positions_BS.scatter_(1, slots_BT, window.positions_BS)
        self.decided_at_BS.scatter_(1, slots_BT, window.decided_at_BS)


@dataclass(frozen=True, kw_only=True)
class _Belief:
    """What a query knows: tokens by position, and the law of the rest (None: it sees no whole prompt)."""

    tokens: Mapping[int, int]
    law: Law | None
    start: int
    inconsistent: bool


class Oracle:
    """A language model that is exactly right about the law of the answers.

    A visible token has probability 1 at its own position. If the visible response agrees with no valid answer, the
    law is conditioned on the longest prefix of the commit history that does (by `decided_at_BT`, then position).
    A query that sees no whole prompt gets uniform logits. `inconsistent_B` marks, after each call, the rows whose
    law had to ignore commits.
    """

    def __init__(
        self,
        *,
        spec: ModelSpec,
        law_of: LawOf,
        separator_id: int,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        assert spec.kind is not ModelKind.CAUSAL or spec.shift == 1, "causal logits predict the next token"
        self.spec, self.dtype, self.device = spec, dtype, torch.device(device)
        self.inconsistent_B = torch.zeros(0, dtype=torch.bool)
        self._separator_id = separator_id
        self._hidden = {spec.mask_id, spec.pad_id}
        self._law_of = lru_cache(_CACHED)(law_of)
        self._believe = lru_cache(_CACHED)(self._work_out_belief)

    def new_store(self, rows: int, slots: int) -> TokenStore:
        """Allocate a store whose slots reveal nothing."""
        shape = (rows, slots)
        return TokenStore(
            tokens_BS=torch.full(shape, self.spec.pad_id, device=self.device),
            positions_BS=torch.arange(slots, device=self.device).repeat(rows, 1),
            decided_at_BS=torch.full(shape, GIVEN, device=self.device),
        )

    def forward(self, request: ForwardRequest) -> Tensor:
        """Return raw logits; a store makes tokens of earlier calls visible as they were then."""
        if request.observe is not None:
            raise DataError(f"model {self.spec.name} has no attention to look at; use a method that needs none")
        if request.plan is not None:
            raise DataError(f"model {self.spec.name} has no layers to reuse; use method/cache=none")
        if request.part is not None:
            raise DataError(f"model {self.spec.name} has no layers to run apart; use a method that runs all of a model")
        kv, end, select_N = request.kv, request.end, request.select_N
        assert kv is None or isinstance(kv, TokenStore)
        keys = TokenStore.of(request)
        positions_BT, (B, T) = keys.positions_BS, request.tokens_BT.shape
        order_BS = positions_BT
        if kv is not None:
            kv.write(request)
            keys, order_BS = kv, torch.arange(kv.slots, device=positions_BT.device)[None]
        seen_BTS = torch.ones(B, T, keys.slots, dtype=torch.bool, device=positions_BT.device)[:, :, :end]
        if request.structured and self.spec.kind is ModelKind.CAUSAL:
            seen_BTS = seen_BTS & (order_BS[:, None, :end] <= positions_BT[:, :, None])
        if request.visible_BTS is not None:
            seen_BTS = seen_BTS & request.visible_BTS
        beliefs, targets = self._beliefs(keys, positions_BT, seen_BTS, select_N)
        logits_NV = torch.full((len(targets), self.spec.vocab_size), -torch.inf, dtype=torch.float64)
        for logits_V, belief, target in zip(logits_NV, beliefs, targets, strict=True):
            _write_marginal(logits_V, belief, target)
        logits_NV = logits_NV.to(device=self.device, dtype=self.dtype)
        return logits_NV.view(B, T, -1) if select_N is None else logits_NV

    def _beliefs(
        self, keys: TokenStore, positions_BT: Tensor, seen_BTS: Tensor, select_N: Tensor | None
    ) -> tuple[list[_Belief], list[int]]:
        """Return what each selected query knows and which position its logits are about."""
        B, T = positions_BT.shape
        columns = (keys.positions_BS, keys.tokens_BS, keys.decided_at_BS)
        slots = [list(zip(*row, strict=True)) for row in zip(*(c.tolist() for c in columns), strict=True)]
        flat_N = torch.arange(B * T) if select_N is None else select_N.cpu()
        row_N, query_N = flat_N // T, flat_N % T
        seen_NS = seen_BTS.cpu()[row_N, query_N].tolist()
        beliefs = [
            self._believe(tuple(compress(slots[row], seen_S)))
            for row, seen_S in zip(row_N.tolist(), seen_NS, strict=True)
        ]
        self.inconsistent_B = torch.zeros(B, dtype=torch.bool)
        self.inconsistent_B[row_N[torch.tensor([b.inconsistent for b in beliefs], dtype=torch.bool)]] = True
        return beliefs, (positions_BT.cpu()[row_N, query_N] + self.spec.shift).tolist()

    def _work_out_belief(self, seen: Seen) -> _Belief:
        tokens = {position: token for position, token, _ in sorted(seen)}
        start = next((p + 1 for p, t in tokens.items() if t == self._separator_id), 0)
        if not start:
            return _Belief(tokens={}, law=None, start=0, inconsistent=False)
        law = self._law_of(tuple(t for p, t in tokens.items() if p < start))
        history = sorted(
            (step, position, token) for position, token, step in seen if position >= start and token not in self._hidden
        )
        known = {p: t for p, t in tokens.items() if p < start or t not in self._hidden}
        for _, position, token in history:
            narrowed = law.given(position - start, token)
            if narrowed is None:
                return _Belief(tokens=known, law=law, start=start, inconsistent=True)
            law = narrowed
        return _Belief(tokens=known, law=law, start=start, inconsistent=False)

    def dependence(self, tokens_L: Tensor, positions: Sequence[int], decided_at_L: Tensor | None = None) -> float:
        """Return the total correlation C(S | canvas) in nats of the absolute `positions` S of one row.

        The sum of their marginal entropies minus their joint entropy: what is lost by committing them in one step
        (0 iff they are independent given what is revealed).
        """
        steps = [GIVEN] * len(tokens_L) if decided_at_L is None else decided_at_L.tolist()
        belief = self._believe(tuple(zip(range(len(tokens_L)), tokens_L.tolist(), steps, strict=True)))
        assert belief.law is not None, "dependence needs a row with a whole prompt"
        places = [p - belief.start for p in positions if p not in belief.tokens]
        marginal = math.fsum(entropy(belief.law.counts(place).values()) for place in places)
        return marginal - belief.law.joint_entropy(places)


def _write_marginal(logits_V: Tensor, belief: _Belief, position: int) -> None:
    if belief.law is None:
        logits_V.zero_()
    elif position in belief.tokens:
        logits_V[belief.tokens[position]] = 0.0
    else:
        counts = belief.law.counts(position - belief.start)
        total = sum(counts.values())
        for token, count in counts.items():
            logits_V[token] = math.log(count / total)
