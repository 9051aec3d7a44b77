"""Drawing tokens: argmax, or the inverse distribution function at one keyed uniform per position.

Shapes: B rows, L positions, N read positions, V vocabulary.
"""

import torch
from torch import Tensor

from harness.engine.canvas import Canvas
from harness.engine.prediction import Prediction, log_probability, surest


def invert(p_NV: Tensor, uniform_N: Tensor) -> Tensor:
    """Return the token at which the cumulative distribution passes each uniform; sums in float64."""
    cumulative_NV = p_NV.double().cumsum(-1)
    target_N1 = uniform_N[:, None] * cumulative_NV[:, -1:]
    # Tokens of probability 0 are never drawn: the first strict passing is looked for.
    return (cumulative_NV > target_N1).to(torch.uint8).argmax(-1)


def draw_tokens(logits_NV: Tensor, prediction: Prediction, canvas: Canvas, temperature: float) -> Tensor:
    """Return one token per read position: lowest-id argmax at temperature 0, else a sample."""
    if temperature == 0:
        return logits_NV.argmax(-1)
    uniform_N = prediction.gather(canvas.uniforms("token"))
    return invert((logits_NV.float() / temperature).softmax(-1), uniform_N)


def draw(
    logits_NV: Tensor, prediction: Prediction, canvas: Canvas, temperature: float
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return what `draw_tokens` does, log p of it, and how far the next best token is behind: None at a temperature."""
    if temperature == 0:
        return surest(logits_NV)
    tokens_N = draw_tokens(logits_NV, prediction, canvas, temperature)
    return tokens_N, log_probability(logits_NV, tokens_N), None


def gap_of_drawn(logits_NV: Tensor, tokens_N: Tensor, prediction: Prediction, temperature: float) -> Tensor:
    """Return `Prediction.token_gap` of tokens that `draw_tokens` made of these logits, [B, L].

    It is infinite at a temperature: what a uniform number hits is not decided by two tokens' order.
    """
    if temperature == 0:
        return prediction.token_gap(tokens_N, logits_NV)
    return torch.full(prediction.shape, torch.inf, dtype=torch.float64, device=logits_NV.device)


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
