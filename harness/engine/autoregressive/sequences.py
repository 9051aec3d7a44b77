"""The state of a batch of autoregressive generations.

Shapes: B rows, L positions, K tokens written at once. Positions are absolute.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Self

import torch
from torch import Tensor

from harness.engine.shared.generation import GIVEN
from harness.engine.shared.model import LanguageModel, Store


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
        cls,
        model: LanguageModel,
        prompts: Sequence[Sequence[int]],
        *,
        gen_length: int,
        seeds: Sequence[int],
        nodes: int = 0,
    ) -> Self:
        """Lay out prompts of at least one token with room for `gen_length` tokens behind each.

        The store has `nodes` more slots, for drafts that do not follow one another.
        """
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
            store=model.new_store(rows, width + nodes),
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


def is_stop(tokens: Tensor, stop_ids: tuple[int, ...]) -> Tensor:
    """Say of each token whether it ends an answer."""
    return torch.isin(tokens, torch.tensor(stop_ids, dtype=tokens.dtype, device=tokens.device))
