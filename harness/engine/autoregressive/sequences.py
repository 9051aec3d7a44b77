"""The state of a batch of autoregressive generations.

Shapes: B rows, L positions, K tokens written at once. Positions are absolute.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Self

import torch
from torch import Tensor

from harness.engine.shared.generation import GIVEN
from harness.engine.shared.indexing import listed, positions
from harness.engine.shared.memory import Memory
from harness.engine.shared.model import JoinableStore, LanguageModel, RowsOf, Store
from harness.engine.shared.positional import behind


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Rows of prompt, committed response, and room for the rest on the right.

    `length_B` tokens are committed and `limit_B` fit. The model's keys and values are final for the positions
    below `computed_B`, which is `length_B - 1` between rounds: the last committed token is fed together with the
    next drafts. Slots at and behind it are provisional, and a drafter may write them. `rounds_B` counts rounds, the
    prefill among them, `generated_B` drafted and emitted tokens. `token_margin_B` is the smallest gap by which an
    emitted token was decided, infinite where none was. `memory` and `stores` hold what policies keep between rounds, of
    rows that have just begun nothing. `known` is what the host knows of fields, by name, with the tensor that it is of.
    """

    tokens_BL: Tensor
    decided_at_BL: Tensor
    prompt_length_B: Tensor
    length_B: Tensor
    limit_B: Tensor
    computed_B: Tensor
    rounds_B: Tensor
    generated_B: Tensor
    sample_B: Tensor
    seed_B: Tensor
    token_margin_B: Tensor
    store: Store
    memory: Memory = field(default_factory=Memory)
    stores: dict[str, Store] = field(default_factory=dict)
    known: dict[str, tuple[Tensor, list[int]]] = field(default_factory=dict, repr=False)

    @classmethod
    def from_prompts(
        cls,
        model: LanguageModel,
        prompts: Sequence[Sequence[int]],
        *,
        gen_length: int,
        seeds: Sequence[int],
        first: int = 0,
        nodes: int = 0,
    ) -> Self:
        """Lay out prompts of at least one token with room for `gen_length` tokens behind each, samples from `first` on.

        The store has `nodes` more slots, for drafts that do not follow one another.
        """
        assert all(prompts), "a prompt has at least one token"
        assert gen_length >= 1, f"gen_length must be at least 1, got {gen_length}"
        rows, width = len(prompts), max(map(len, prompts)) + gen_length
        tokens_BL = torch.full((rows, width), model.spec.pad_id, dtype=torch.int64)
        for row, prompt in enumerate(prompts):
            tokens_BL[row, : len(prompt)] = torch.tensor(prompt)
        lengths = [len(prompt) for prompt in prompts]
        length_B = torch.tensor(lengths, device=model.device)
        none_B = torch.zeros_like(length_B)
        return cls(
            tokens_BL=tokens_BL.to(model.device),
            decided_at_BL=torch.full_like(tokens_BL, GIVEN, device=model.device),
            prompt_length_B=length_B,
            length_B=length_B,
            limit_B=length_B + gen_length,
            computed_B=none_B,
            rounds_B=none_B,
            generated_B=none_B,
            sample_B=torch.arange(first, first + rows, device=model.device),
            seed_B=torch.tensor(list(seeds), dtype=torch.int64, device=model.device),
            token_margin_B=torch.full((rows,), torch.inf, dtype=torch.float64, device=model.device),
            store=model.new_store(rows, width + nodes),
            known={"length_B": (length_B, lengths), "computed_B": (none_B, [0] * rows)},
        )

    @property
    def num_rows(self) -> int:
        """Number of rows B."""
        return self.tokens_BL.shape[0]

    def told(self, *names: str) -> list[list[int]]:
        """Return fields [B] as numbers; the host waits for the device once, and not at all for what it knows."""
        tensors = {name: getattr(self, name) for name in names}
        unknown = [name for name in names if name not in self.known or self.known[name][0] is not tensors[name]]
        if unknown:
            numbers = torch.stack([tensors[name] for name in unknown]).tolist()
            self.known.update(zip(unknown, zip((tensors[name] for name in unknown), numbers, strict=True), strict=True))
        return [self.known[name][1] for name in names]

    def rows(self, index_B: Tensor, of: RowsOf = lambda store, at: store.rows(at)) -> Self:
        """Return a copy with the rows of `index_B`, in that order, repeats allowed; `of` gives those of stores."""
        return replace(
            self,
            **{name: value.index_select(0, index_B) for name, value in self._tensors().items()},
            store=of(self.store, index_B),
            memory=self.memory.rows(index_B),
            stores={name: of(store, index_B) for name, store in self.stores.items()},
        )

    def joined(self, fresh: Self) -> Self:
        """Return these rows with others behind, all as wide as the wider of both."""
        width, device = max(self.tokens_BL.shape[1], fresh.tokens_BL.shape[1]), self.tokens_BL.device
        old, new = self._widened(width), fresh._widened(width)
        mine, theirs, rows = old._tensors(), new._tensors(), (self.num_rows, fresh.num_rows)
        both = {name: torch.cat([mine[name], theirs[name]]) for name in mine}
        known = {
            name: (both[name], [*old.known[name][1], *new.known[name][1]])
            for name in old.known.keys() & new.known.keys()
            if old.known[name][0] is mine[name] and new.known[name][0] is theirs[name]
        }
        return replace(
            self,
            **both,
            known=known,
            store=_together(old.store, new.store, rows, device),
            memory=Memory.joined([old.memory, new.memory], rows),
            stores={
                name: _together(old.stores.get(name), new.stores.get(name), rows, device)
                for name in old.stores | new.stores
            },
        )

    def _widened(self, width: int) -> Self:
        more = width - self.tokens_BL.shape[1]
        if not more:
            return self
        memory = self.memory.copy()
        memory.widen(width, 0)
        return replace(
            self,
            tokens_BL=behind(self.tokens_BL, 1, width),
            decided_at_BL=behind(self.decided_at_BL, 1, width),
            store=self.store.grown(self.store.slots + more),
            memory=memory,
            stores={name: store.grown(store.slots + more) for name, store in self.stores.items()},
        )

    def _tensors(self) -> dict[str, Tensor]:
        return {f.name: value for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}


def _together(store: Store | None, fresh: Store | None, rows: tuple[int, int], device: torch.device) -> Store:
    """Return one store for so many rows of each, of which one may have nothing."""
    if fresh is None:
        assert store is not None
        return store.extended(rows[1])
    if store is None:
        return fresh.extended(rows[0]).rows(torch.arange(sum(rows), device=device).roll(rows[0]))
    assert isinstance(store, JoinableStore), "rows can begin beside others where keys and values are kept in rows"
    return store.joined(fresh)


def write_behind(into_BL: Tensor, start_B: Tensor, values_BK: Tensor, count_B: Tensor) -> Tensor:
    """Return `into_BL` with the first `count_B` values of each row written from position `start_B` on, never 0."""
    width = values_BK.shape[1]
    if not width:
        return into_BL
    before_B1 = start_B[:, None] - 1
    # Beyond its count a row writes its last value again, and of none what stands before: so that nobody has to wait.
    place_BK = torch.minimum(positions(width + 1, start_B.device), count_B[:, None])
    values_BK = torch.cat([into_BL.gather(1, before_B1), values_BK], 1)
    return into_BL.scatter(1, before_B1 + place_BK, values_BK.gather(1, place_BK))


def first(count_B: Tensor, width: int) -> Tensor:
    """Return the mask [B, `width`] of the first `count_B` places of each row."""
    return positions(width, count_B.device) < count_B[:, None]


def is_stop(tokens: Tensor, stop_ids: tuple[int, ...]) -> Tensor:
    """Say of each token whether it ends an answer."""
    return torch.isin(tokens, listed(stop_ids, tokens.device))
