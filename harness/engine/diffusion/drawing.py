"""Drawing tokens for a canvas: argmax, or the inverse distribution function at one keyed uniform per position.

Shapes: B rows, L positions, N read positions, V vocabulary.
"""

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.shared.largest import at_largest
from harness.engine.shared.prediction import Prediction, log_probability, surest
from harness.engine.shared.sampling import invert


def draw_tokens(logits_NV: Tensor, prediction: Prediction, canvas: Canvas, temperature: float) -> Tensor:
    """Return one token per read position: lowest-id argmax at temperature 0, else a sample."""
    if temperature == 0:
        return at_largest(logits_NV)
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
