"""A comb of drafts: beside each token of a chain other candidates for its place, which nothing follows.

Source: SWIFT's released code, hemingkx/SWIFT, model/swift/utils.py (`get_choices_list`, `swift_draft`); see `swift`.
Shapes: B rows, S places of the chain, W candidates of a place, K tokens of a tree, R rows that draft, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from harness.engine.autoregressive.drafting import Proposal
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.autoregressive.stopping import Drafted
from harness.engine.autoregressive.trees import ANCHOR, compacted
from harness.engine.shared.randomness import uniforms
from harness.engine.shared.sampling import invert

LEVELS = (0.95, 0.8, 0.5)
"""Probabilities of the chain's token, above which a place has the first, the second, the third number of candidates."""


@dataclass(kw_only=True)
class Comb:
    """What stands beside a chain while it is drafted: `candidates` per place by `LEVELS`, the chain's token included.

    They are the most probable tokens, or above temperature 0 further draws without those before them. No more than
    `nodes` tokens stand in all.
    """

    candidates: Sequence[int]
    nodes: int
    counts: list[Tensor] = field(default_factory=list)
    likely: list[Tensor] = field(default_factory=list)

    def grow(self, drafted: Drafted) -> Tensor:
        """Note the candidates for the place just drafted, by logits at temperature 1.

        Return the rows [R] in which as many as a place may have would fit behind them.
        """
        probability_R, rows = drafted.probability_R().double(), drafted.sequences.num_rows
        level_R = (probability_R[:, None] <= probability_R.new_tensor(LEVELS)).sum(1)
        count_R = torch.tensor(self.candidates, device=level_R.device)[level_R]
        count_R = torch.minimum(count_R, (drafted.logits_RV > -torch.inf).sum(1))
        self.counts.append(count_R.new_zeros(rows).index_copy(0, drafted.row_R, count_R))
        # The chain's token is the first, whatever is as probable.
        first_RV = drafted.logits_RV.scatter(1, drafted.token_R[:, None], torch.inf)
        likely_RW = first_RV.sort(dim=1, descending=True, stable=True).indices[:, : max(self.candidates)]
        self.likely.append(likely_RW.new_zeros(rows, likely_RW.shape[1]).index_copy(0, drafted.row_R, likely_RW))
        taken_B = torch.stack(self.counts).sum(0)
        return taken_B[drafted.row_R] + max(self.candidates) <= self.nodes

    def around(self, chain: Proposal, sequences: Sequences) -> Proposal:
        """Return the chain with all candidates: of each place its own token first, the others in their order."""
        if not self.counts:
            return chain
        count_BS, q_BSV = torch.stack(self.counts, 1), chain.probabilities_BKV
        if q_BSV is None:
            tokens_BSW = torch.stack(self.likely, 1)
        else:
            count_BS = torch.minimum(count_BS, (q_BSV > 0).sum(2))
            tokens_BSW = self._drawn(chain, q_BSV, sequences)
        (rows, places, width), device = tokens_BSW.shape, tokens_BSW.device
        keep_BSW = torch.arange(width, device=device) < count_BS[..., None]
        above_S = (torch.arange(places, device=device) - 1) * width
        parent_BSW = above_S.clamp(min=ANCHOR)[:, None].expand(rows, places, width)
        order_BK, parent_BK = compacted(keep_BSW.flatten(1), parent_BSW.flatten(1))
        count_B = count_BS.sum(1)
        order_BK = order_BK[:, : int(count_B.max())]
        row_B1 = torch.arange(rows, device=device)[:, None]
        return replace(
            chain,
            tokens_BK=tokens_BSW.flatten(1).gather(1, order_BK),
            count_B=count_B,
            parent_BK=parent_BK[:, : order_BK.shape[1]],
            probabilities_BKV=None if q_BSV is None else q_BSV[row_B1, order_BK // width],
        )

    def _drawn(self, chain: Proposal, q_BSV: Tensor, sequences: Sequences) -> Tensor:
        """Return the candidates [B, S, W]: the chain's tokens, and draws of what is left of their laws without them."""
        (rows, places, _), more = q_BSV.shape, self.likely[0].shape[1] - 1
        uniform_BSW = uniforms(sequences.seed_B, sequences.length_B, "siblings", places * more).view(rows, places, more)
        tokens, left_BSV = [chain.tokens_BK[:, :places]], q_BSV
        for place in range(more):
            left_BSV = left_BSV.scatter(2, tokens[-1][..., None], 0)
            drawn_N = invert(left_BSV.flatten(0, 1), uniform_BSW[..., place].flatten())
            tokens.append(drawn_N.view(rows, places))
        return torch.stack(tokens, 2)
