"""Segments: several tokens that share one slot of keys and values, and what of a row's state follows from that.

All tokens that a round emits are one segment. The next call computes it, as one position: merged, at the place of its
last token (as HAMburger is trained; its released decoding has it one further). So positions go on counting tokens, and
slots count segments behind those of the prompt, whose tokens have one each.
Shapes: B rows, M tokens of the longest segment, C channels, L positions.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.engine.autoregressive.sequences import Sequences, first

SAVED = "segments.saved_B"
"""How many slots fewer a row has taken than positions of it were computed."""

Merge = Callable[[Tensor, Tensor], Tensor]
"""Return what stands for a segment [B, C], given embeddings [B, M, C], of which the first [B] of each row are there."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """The first `count_B` of `tokens_BM`, which stand in front of the first layer as one position each row."""

    tokens_BM: Tensor
    count_B: Tensor
    merge: Merge

    def states(self, embed: Callable[[Tensor], Tensor]) -> Tensor:
        """Return what stands there [B, 1, C]; `embed` is a model's."""
        return self.merge(embed(self.tokens_BM), self.count_B)[:, None]


def last_segment(sequences: Sequences, merge: Merge) -> Segment | None:
    """Return the tokens of each row that are not computed yet; None for rows whose prompts are to be read."""
    if not bool(sequences.computed_B.any()):
        return None
    count_B = sequences.length_B - sequences.computed_B
    place_BM = sequences.computed_B[:, None] + torch.arange(int(count_B.max()), device=count_B.device)
    tokens_BM = sequences.tokens_BL.gather(1, place_BM.clamp(max=sequences.tokens_BL.shape[1] - 1))
    return Segment(
        tokens_BM=tokens_BM.masked_fill(~first(count_B, tokens_BM.shape[1]), 0), count_B=count_B, merge=merge
    )


def slot_of(sequences: Sequences) -> Tensor:
    """Return the slot [B] that the last segment of each row takes: the first that is free."""
    return sequences.computed_B - sequences.memory.get(SAVED, torch.zeros_like(sequences.computed_B))


def segmented(before: Sequences, after: Sequences) -> Sequences:
    """Return the sequences behind a round, all of whose tokens are to be computed as one."""
    saved_B = before.memory.get(SAVED, torch.zeros_like(before.length_B))
    fed_B = torch.where(before.computed_B > 0, before.length_B - before.computed_B, 1)
    after.memory[SAVED] = saved_B + fed_B - 1
    return replace(after, computed_B=before.length_B)
