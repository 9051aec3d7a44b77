"""Classifier-free guidance of masked diffusion (LLaDA, arXiv:2502.09992; its code: cfg_scale).

Shapes: B rows, L positions, N read positions, V vocabulary.
"""

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.shared.generation import GIVEN
from harness.engine.shared.policy import policy
from harness.errors import at_least


@policy("method/guidance", "classifier_free")
class ClassifierFree:
    """Compare with the canvas whose given tokens are masked: z = z_u + (scale + 1)(z - z_u).

    Costs a second row in every call; scale 0 costs nothing and changes nothing.
    """

    scale: float = 0.0

    def __post_init__(self) -> None:
        at_least(0, scale=self.scale)

    @property
    def copies(self) -> int:
        """Return how many rows a call has for one of the canvas."""
        return 1 if self.scale == 0 else 2

    def widen(self, canvas: Canvas) -> Canvas:
        """Return the canvas's rows and, behind them, the same rows without what was given."""
        if self.scale == 0:
            return canvas
        index_B = torch.arange(canvas.num_rows, device=canvas.tokens_BL.device)
        shown = canvas.rows(index_B.repeat(2))
        given_BL = (shown.decided_at_BL == GIVEN) & ~shown.undecided_BL
        given_BL[: canvas.num_rows] = False
        shown.tokens_BL = shown.tokens_BL.masked_fill(given_BL, shown.mask_id)
        return shown

    def combine(self, logits_NV: Tensor) -> Tensor:
        """Return guided logits of the first half of the rows."""
        if self.scale == 0:
            return logits_NV
        with_prompt_NV, without_NV = logits_NV.chunk(2)
        return without_NV + (self.scale + 1) * (with_prompt_NV - without_NV)
