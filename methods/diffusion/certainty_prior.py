"""Certainty-prior decoding: confident positions first, where much around them is known (d2Cache, arXiv:2509.23094).

Symbol -> knob: width of the kernel -> sigma (default 10). Positions are ordered by probability times certainty
density; thresholds see the probability. Use: `method=threshold method/scorer=certainty_prior`, with any cache.
The density of a position is the share of known positions around it under a Gaussian kernel; the line is padded by G
known positions on the left, and by G on the right that are known if the last response token is. Beyond that nothing
is known, so that a response shorter than about 3 sigma has smaller densities (as in the authors' code).
"""

import math
from functools import partial

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.drawing import draw
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Candidates, Prediction, ScoreDtype
from harness.errors import FieldError, at_least


@policy("method/scorer", "certainty_prior")
class CertaintyPrior:
    """Most probable (or sampled) token, ordered by its probability times the certainty density of its position."""

    sigma: float = 10.0
    temperature: float = 0.0
    score_dtype: ScoreDtype = ScoreDtype.float32

    def __post_init__(self) -> None:
        if self.sigma <= 0:
            raise FieldError("sigma", self.sigma, "be above 0")
        at_least(0, temperature=self.temperature)

    def __call__(self, prediction: Prediction, canvas: Canvas) -> Candidates:
        """Return candidates of all read positions."""
        logits_NV = self.score_dtype.cast(prediction.logits_NV)
        tokens_N, log_p_N, behind_N = draw(logits_NV, prediction, canvas, self.temperature)
        density_N = prediction.gather(certainty_density(canvas, self.sigma)).to(log_p_N.dtype)
        return prediction.candidates(tokens_N, log_p_N + density_N.log(), log_p_N.exp(), behind_N)


def certainty_density(canvas: Canvas, sigma: float) -> Tensor:
    """Return float64 [B, L]: the share of known positions around each response position, in (0, 1]."""
    known_BL = canvas.response_BL & ~canvas.undecided_BL
    sources = canvas.length_B, canvas.prompt_length_B, canvas.place_BL
    kernel_LL, left_BL, right_BL, line = canvas.once((certainty_density, sigma), sources, partial(_weights, sigma))
    ended_B1 = known_BL.gather(1, (canvas.length_B - 1)[:, None])
    return (known_BL.double() @ kernel_LL + left_BL + right_BL * ended_B1) / line


def _weights(sigma: float, length_B: Tensor, prompt_length_B: Tensor, place_BL: Tensor) -> tuple[Tensor, ...]:
    """Return what known positions weigh at others, all that lie before and behind the response, and all of a line."""
    width, device, length_B1 = place_BL.shape[1], place_BL.device, (length_B - prompt_length_B)[:, None]
    distance_M = torch.arange(max(2 * width, math.ceil(10 * sigma)) + 1, device=device, dtype=torch.float64)
    kernel_M = torch.exp(-(distance_M**2) / (2 * sigma**2))
    at_L, within_M = torch.arange(width, device=device), kernel_M.cumsum(0)
    place_BL = place_BL.clamp(min=0).minimum(length_B1 - 1)
    left_BL = within_M[place_BL + length_B1] - within_M[place_BL]
    right_BL = within_M[2 * length_B1 - 1 - place_BL] - within_M[length_B1 - 1 - place_BL]
    return kernel_M[(at_L[:, None] - at_L).abs()], left_BL, right_BL, 2 * within_M[-1] - kernel_M[0]
