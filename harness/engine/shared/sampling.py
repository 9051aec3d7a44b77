"""What tokens are drawn from, and which one a uniform number hits.

Shapes: N read positions, V vocabulary.
"""

import torch
from torch import Tensor

from harness.engine.shared.largest import at_largest


def invert(p_NV: Tensor, uniform_N: Tensor) -> Tensor:
    """Return the token at which the cumulative distribution passes each uniform; sums in float64."""
    cumulative_NV = p_NV.double().cumsum(-1)
    target_N1 = uniform_N[:, None] * cumulative_NV[:, -1:]
    # Tokens of probability 0 are never drawn: the first strict passing is looked for.
    return at_largest((cumulative_NV > target_N1).to(torch.uint8))


def keep_top(logits_NV: Tensor, *, top_p: float | None, top_k: int | None) -> Tensor:
    """Return logits with -inf outside the nucleus and the top k, applied in this order.

    The nucleus is the smallest descending prefix whose mass before each token is at most `top_p`; top k keeps
    every token not below the k-th (ties keep more).
    """
    if top_p is not None and top_p < 1:
        ordered_NV, order_NV = logits_NV.sort(dim=-1, descending=True, stable=True)
        p_NV = ordered_NV.softmax(-1)
        drop_NV = (p_NV.cumsum(-1) - p_NV) > top_p
        logits_NV = logits_NV.masked_fill(drop_NV.scatter(-1, order_NV, drop_NV), -torch.inf)
    if top_k is not None:
        least_N1 = logits_NV.topk(min(top_k, logits_NV.shape[-1]), dim=-1).values[:, -1:]
        logits_NV = logits_NV.masked_fill(logits_NV < least_N1, -torch.inf)
    return logits_NV
