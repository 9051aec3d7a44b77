"""Rejection sampling down a tree of drafts: answers have the law of the target, whatever the tree.

Papers: SpecInfer, arXiv:2305.09781, Algorithm 2 (multi-step sampling); EAGLE, arXiv:2401.15077, section 4.2.

At a node the siblings are tried in their order against p, the law of the target there. One that falls takes its law q
out of p: max(p - q, 0), normalised, is what the next is tried against, and what is drawn from when all have fallen. By
how siblings were drafted, q is certain of the one token (no law: it alone is taken out), the drafter's law without the
siblings that have fallen (drawn without replacement), or always the drafter's law (independent draws).

Every law is the processed one, at the end of the path too, where released code takes raw logits.
"""

import torch
from torch import Tensor

from harness.engine.autoregressive.drafting import Proposal, Verdict
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.autoregressive.trees import ANCHOR
from harness.engine.shared.randomness import uniforms
from harness.engine.shared.sampling import invert


def down_tree(p_NV: Tensor, proposal: Proposal, sequences: Sequences) -> Verdict:
    """Return the path on which each draft stood, and the token drawn behind it; `p_NV` is the law at each entry.

    One pass over the tokens meets siblings in their order, and children behind them.
    """
    parent_BK, tokens_BK, tree = proposal.parent_BK, proposal.tokens_BK, proposal.tree
    assert parent_BK is not None and tree is not None
    rows, width = tokens_BK.shape
    p_BTV = p_NV.new_zeros(rows, width + 1, p_NV.shape[1]).index_put(proposal.entries(), p_NV)
    uniform_BK = uniforms(sequences.seed_B, sequences.length_B, "accept", width)
    at_B, accepted_B = torch.full_like(proposal.count_B, ANCHOR), torch.zeros_like(proposal.count_B)
    left_BV, fallen_BV = p_BTV[:, 0], torch.zeros_like(p_BTV[:, 0], dtype=torch.bool)
    path_BD = torch.zeros_like(tokens_BK[:, : int(tree.depth_BK.max())])
    for k in range(width):
        token_B1, tried_B = tokens_BK[:, k, None], (parent_BK[:, k] == at_B) & (k < proposal.count_B)
        q_BV = _law(proposal, k, fallen_BV, left_BV)
        holds_B = uniform_BK[:, k] * q_BV.gather(1, token_B1)[:, 0] < left_BV.gather(1, token_B1)[:, 0]
        stands_R, falls_R = (tried_B & holds_B).nonzero().squeeze(1), (tried_B & ~holds_B).nonzero().squeeze(1)
        left_BV = left_BV.index_copy(0, falls_R, _normalised(residual(left_BV[falls_R], q_BV[falls_R])))
        left_BV = left_BV.index_copy(0, stands_R, p_BTV[stands_R, k + 1])
        fallen_BV[falls_R, tokens_BK[falls_R, k]] = True
        fallen_BV[stands_R] = False
        path_BD[stands_R, accepted_B[stands_R]] = k
        at_B[stands_R] = k
        accepted_B[stands_R] += 1
    uniform_B = uniforms(sequences.seed_B, sequences.length_B, "replace", 1).squeeze(1)
    return Verdict(accepted_B=accepted_B, token_B=invert(left_BV, uniform_B), path_BD=path_BD)


def _law(proposal: Proposal, k: int, fallen_BV: Tensor, like_BV: Tensor) -> Tensor:
    """Return what token `k` of each row was drawn from, given the siblings that have fallen."""
    if proposal.probabilities_BKV is None:
        return torch.zeros_like(like_BV).scatter(1, proposal.tokens_BK[:, k, None], 1)
    q_BV = proposal.probabilities_BKV[:, k]
    return q_BV if proposal.independent else _normalised(q_BV.masked_fill(fallen_BV, 0))


def residual(p_BV: Tensor, q_BV: Tensor) -> Tensor:
    """Return what is left of p, up to a factor, where a draft from q fell; p itself where q was nothing."""
    left_BV = (p_BV - q_BV).clamp(min=0)
    # Where a draft fell, rounding alone can have left nothing.
    return torch.where(left_BV.sum(1, keepdim=True) > 0, left_BV, p_BV)


def _normalised(weight_BV: Tensor) -> Tensor:
    """Return laws in proportion to weights; no law where there is none."""
    return weight_BV / weight_BV.sum(1, keepdim=True).clamp(min=torch.finfo(weight_BV.dtype).tiny)
