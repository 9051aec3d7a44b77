"""LLaDA's sampler: semi-autoregressive blocks, a fixed number of tokens per step (arXiv:2502.09992, Alg. 4, 5, B.4).

Symbol -> knob: S -> steps (default: one token per step), L/block -> block_length, w -> cfg_scale,
temperature (Gumbel-max there, inverse CDF here: the same law).
Deviations from the authors' code: the mask token is never predicted; ties go to the lowest position; steps whose
quota is 0 are not run but counted as idle; `confidence_eos_eot_inf` holds both end tokens back at any temperature.
Invariants: NFE + idle = steps; every position is committed once.
"""

from enum import Enum

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.drawing import draw
from harness.engine.diffusion.needs import Gives
from harness.engine.shared.largest import two_largest
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Candidates, Prediction, ScoreDtype, first, log_probability
from harness.errors import FieldError, at_least


class Order(Enum):
    """What orders positions. LLaDA publishes `low_confidence` and `random`; the others are common in the field."""

    low_confidence = "low_confidence"
    random = "random"
    margin = "margin"
    entropy = "entropy"
    left_to_right = "left_to_right"


@policy("method/schedule", "split")
class Split:
    """Spread a block's masks over its share of `steps`, the first steps taking one more (spec: m//T, then +1).

    `steps` None means `gen_length`: one token per step. A block longer than the response is the response. The steps
    that a complete block leaves over are idle, or (`early`) not part of the schedule.
    """

    steps: int | None
    block_length: int
    gen_length: int
    early: bool = False

    def __post_init__(self) -> None:
        if self.block_length < 1 or self.gen_length % self._block:
            raise FieldError("block_length", self.block_length, f"divide gen_length={self.gen_length}")
        blocks = self.gen_length // self._block
        if self.steps is not None and (self.steps < 1 or self.steps % blocks):
            raise FieldError("steps", self.steps, f"be a multiple of the {blocks} blocks")

    @property
    def _block(self) -> int:
        return min(self.block_length, self.gen_length)

    @property
    def steps_per_block(self) -> int:
        """Number of steps T of one block."""
        return (self.steps or self.gen_length) * self._block // self.gen_length

    def quota(self, canvas: Canvas) -> Tensor:
        """Return the share of the present step; masks that came later take at least one step each."""
        every_B, more_B, over_B = canvas.once(self, (canvas.window_masks_B, canvas.opened_at_B), self._shared_out)
        quota_B = every_B + (canvas.clock_B < more_B)
        return torch.maximum(quota_B, canvas.clock_B >= over_B)

    def _shared_out(self, masks_B: Tensor, opened_at_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what every step of a block takes, until which clock it takes one more, and when its steps are over."""
        T = self.steps_per_block
        return masks_B // T, opened_at_B + masks_B % T, opened_at_B + T

    def surplus(self, canvas: Canvas) -> Tensor:
        """Return the steps of the block that are left."""
        left_B = (self.steps_per_block - canvas.window_clock_B).clamp(min=0)
        return torch.zeros_like(left_B) if self.early else left_B


@policy("method/scorer", "confidence")
class Confidence:
    """Most probable (or sampled) token, ordered by its probability or another measure.

    Probabilities are those of the un-noised, unscaled logits, also at temperature > 0. With margin or entropy
    the confidence is that measure (top-1 minus top-2 probability; negative entropy in nats).
    """

    order: Order = Order.low_confidence
    temperature: float = 0.0
    logits_eos_inf: bool = False
    confidence_eos_eot_inf: bool = False
    score_dtype: ScoreDtype = ScoreDtype.float32

    def __post_init__(self) -> None:
        at_least(0, temperature=self.temperature)

    @property
    def gives(self) -> Gives:
        """Candidates are steady if nothing is drawn."""
        random = self.order is Order.random
        return Gives(steady=self.temperature == 0 and not random, known_order=random)

    def __call__(self, prediction: Prediction, canvas: Canvas) -> Candidates:
        """Return candidates of all read positions."""
        logits_NV = self.score_dtype.cast(prediction.logits_NV)
        if self.logits_eos_inf:
            logits_NV = _without(logits_NV, prediction.spec.stop_ids[:1])
        tokens_N, log_p_N, behind_N = draw(logits_NV, prediction, canvas, self.temperature)
        if self.confidence_eos_eot_inf:
            logits_NV = _without(logits_NV, prediction.spec.stop_ids)
            log_p_N = log_probability(logits_NV, tokens_N)
        score_N, confidence_N = measure(self.order, logits_NV, log_p_N, prediction, canvas)
        return prediction.candidates(tokens_N, score_N, confidence_N, behind_N)


def random_order(canvas: Canvas) -> Tensor:
    """Return the draws [B, L] in [0, 1) of the present step that `Order.random` puts positions in order by."""
    return canvas.uniforms("order")


def measure(
    order: Order, logits_NV: Tensor, log_p_N: Tensor, prediction: Prediction, canvas: Canvas
) -> tuple[Tensor, Tensor]:
    """Return what orders positions and what thresholds see, both [N], given log p of their tokens."""
    if order is Order.low_confidence:
        return log_p_N, log_p_N.exp()
    if order is Order.random:
        draw_N = prediction.gather(random_order(canvas)).to(logits_NV.dtype)
        return draw_N, draw_N
    if order is Order.left_to_right:
        return -prediction.position_N.to(logits_NV.dtype), log_p_N.exp()
    p_NV = logits_NV.softmax(-1)
    if order is Order.margin:
        best_N2 = two_largest(p_NV)
        value_N = best_N2[:, 0] - best_N2[:, 1]
    else:
        value_N = -torch.special.entr(p_NV).sum(-1)
    return value_N, value_N


def _without(logits_NV: Tensor, ids: tuple[int, ...]) -> Tensor:
    return logits_NV.index_fill(1, torch.tensor(ids, device=logits_NV.device), -torch.inf)


@policy("method/selector", "top")
class Top:
    """Close as many of the best open positions as the schedule asks for."""

    gives = Gives(decides=True)

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        """Return the top-quota positions; without a schedule the single best one."""
        return first(candidates.score_BL, open_BL, torch.ones_like(canvas.clock_B) if quota_B is None else quota_B)
