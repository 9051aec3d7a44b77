"""How near a choice was to another one: gaps between what decided and what was decided the other way.

A decision stands as long as no number that it hangs on moves by as much as its margin. Margins are [B],
infinite where nothing was compared. Shapes: B rows, L positions.
"""

import torch
from torch import Tensor


def nearest(slack_BL: Tensor, among_BL: Tensor) -> Tensor:
    """Return the smallest distance of any position of `among_BL` from its bound, `slack_BL` being 0 on the bound."""
    return slack_BL.abs().masked_fill(~among_BL, torch.inf).amin(1)


def across(score_BL: Tensor, chosen_BL: Tensor, among_BL: Tensor) -> Tensor:
    """Return the smallest gap in score between a chosen position of `among_BL` and one that is not.

    Positions that share an infinite score are not told apart by it.
    """
    if score_BL.shape[1] == 1:
        return torch.full_like(score_BL[:, 0], torch.inf)
    score_BL, order_BL = score_BL.masked_fill(~among_BL, -torch.inf).sort(dim=1, descending=True)
    chosen_BL = chosen_BL.gather(1, order_BL)
    gap_BL = score_BL[:, :-1] - score_BL[:, 1:]
    # What is not among them is infinitely far behind, or compares as not a number.
    alike_BL = chosen_BL[:, :-1] == chosen_BL[:, 1:]
    return gap_BL.masked_fill_(alike_BL, torch.inf).nan_to_num_(torch.inf, torch.inf).amin(1)


def ahead(score_BL: Tensor, among_BL: Tensor) -> Tensor:
    """Return by how much the best score of `among_BL` exceeds the next one, as `across` does."""
    two_B2 = score_BL.masked_fill(~among_BL, -torch.inf).topk(min(2, score_BL.shape[1]), dim=1).values
    return (two_B2[:, 0] - two_B2[:, -1]).nan_to_num_(torch.inf, torch.inf)


def prefix(slack_BL: Tensor, count_B: Tensor, first: int, end_B: Tensor) -> Tensor:
    """Return the smallest distance from its bound of a rank that decided how long a prefix is.

    `slack_BL` is by rank. Those from `first` on were looked at until `count_B` were found or `end_B` is reached.
    """
    rank_L = torch.arange(slack_BL.shape[1], device=slack_BL.device)
    return nearest(slack_BL, (rank_L >= first) & (rank_L <= count_B[:, None]) & (rank_L < end_B[:, None]))
