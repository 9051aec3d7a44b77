"""What comes of drafts: a record for every round, and what follows from those of a sample.

Shapes: B rows of a round.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """One round of the draft-verify loop, of rows [B] of the samples `sample_B`; -1 is a row whose prompt it read.

    The target scored `drafted_B` drafts of each, `accepted_B` of which stand, one after the other. It came to
    `tried_B` places: those of drafts that stand, and the next one if there was a draft. `tree`: several hang on one.
    """

    sample_B: Tensor
    drafted_B: Tensor
    tried_B: Tensor
    accepted_B: Tensor
    tree: bool


def of_chains(sample: int, rounds: Sequence[tuple[int, int]]) -> RoundRecord:
    """Return the rounds of one sample, each told by the drafts of a chain and how many of them stood."""
    drafted_B, accepted_B = torch.tensor(rounds, dtype=torch.int64).view(-1, 2).unbind(1)
    return RoundRecord(
        sample_B=torch.full_like(drafted_B, sample),
        drafted_B=drafted_B,
        tried_B=torch.minimum(accepted_B + 1, drafted_B),
        accepted_B=accepted_B,
        tree=False,
    )


@dataclass(frozen=True, kw_only=True)
class Drafting:
    """What a sample's drafts came to, and what they cost (units: tokens, rounds, layers).

    `accept_lens` are the tokens of each round behind the prompt's, accepted drafts and the target's own, before the
    answer is cut behind a stop token: their mean is the accepted length. Place i of drafts was tried, all before it
    standing, in `tried_at[i]` rounds, and stood in `accepted_at[i]`; in trees places are depths. `acceptance_rate`
    is that of drafted tokens: None where there were none, and for trees, of whose siblings at most one can stand.
    `query_tokens_draft`, `layer_loads_draft` and `draft_s` are the work of calls that drafted, whatever model they were
    made of, and their seconds, None unless timed.
    """

    rounds: int
    draft_tokens: int
    accepted_draft_tokens: int
    accept_lens: list[int]
    tried_at: list[int]
    accepted_at: list[int]
    acceptance_rate: float | None
    query_tokens_draft: int
    layer_loads_draft: float
    draft_s: float | None = None


@dataclass
class Drafts:
    """The rounds of one sample, an entry for each."""

    drafted: list[int] = field(default_factory=list)
    tried: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    trees: bool = False

    def add(self, *, drafted: int, tried: int, accepted: int) -> None:
        """Add a round."""
        self.drafted.append(drafted)
        self.tried.append(tried)
        self.accepted.append(accepted)

    def drafting(self, *, query_tokens: int, layer_loads: float, seconds: float | None = None) -> Drafting:
        """Return what they came to, calls that drafted having computed and taken so much."""
        drafted, accepted = sum(self.drafted), sum(self.accepted)
        places = range(max(self.tried, default=0))
        return Drafting(
            rounds=len(self.drafted),
            draft_tokens=drafted,
            accepted_draft_tokens=accepted,
            accept_lens=[count + 1 for count in self.accepted],
            tried_at=[sum(count > place for count in self.tried) for place in places],
            accepted_at=[sum(count > place for count in self.accepted) for place in places],
            acceptance_rate=accepted / drafted if drafted and not self.trees else None,
            query_tokens_draft=query_tokens,
            layer_loads_draft=layer_loads,
            draft_s=seconds,
        )


def add_rounds(drafts: dict[int, Drafts], rounds: Sequence[RoundRecord]) -> None:
    """Add rounds to those of their samples; the device is read once."""
    if not rounds:
        return
    parts = [torch.stack([one.sample_B, one.drafted_B, one.tried_B, one.accepted_B]) for one in rounds]
    entries = zip(*torch.cat(parts, 1).tolist(), strict=True)
    for one in rounds:
        for _ in range(len(one.sample_B)):
            sample, drafted, tried, accepted = next(entries)
            kept = drafts.setdefault(sample, Drafts())
            kept.add(drafted=drafted, tried=tried, accepted=accepted)
            kept.trees |= one.tree
    drafts.pop(-1, None)
