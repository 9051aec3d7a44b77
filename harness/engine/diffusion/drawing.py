"""Drawing tokens for a canvas: argmax, or the inverse distribution function at one keyed uniform per position.

Shapes: N read positions, V vocabulary.
"""

from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.shared.prediction import Prediction, log_probability, surest
from harness.engine.shared.sampling import invert


def draw(
    logits_NV: Tensor, prediction: Prediction, canvas: Canvas, temperature: float
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return a token per read position, log p of it, and how far the next best one is behind.

    At temperature 0 the most probable token, lowest of equals; else a sample, of which nothing is behind: None.
    """
    if temperature == 0:
        return surest(logits_NV)
    uniform_N = prediction.gather(canvas.uniforms("token"))
    tokens_N = invert((logits_NV.float() / temperature).softmax(-1), uniform_N)
    return tokens_N, log_probability(logits_NV, tokens_N), None
