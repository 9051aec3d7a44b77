"""Finish rules: what an end token means for the positions behind it.

`block_eos` is the early stop of dInfer's block-wise driver (arXiv:2510.08666), `prefix_eos` the one of d3LLM
(arXiv:2601.07568). Both read the model's stop tokens and fill with the first of them; filled positions carry the last
step as the step of their commit and are not counted as generated. Given tokens are never replaced.
Deviations from the authors' code: dInfer's driver also stops with its early stop switched off, and removes every end
token from what it returns; here a rule that is off decodes on, and answers keep their end tokens.
Reconstruction: `prefix_eos` takes a given end token for an end as well.
"""

import torch
from torch import Tensor

from harness.engine.canvas import Canvas
from harness.engine.policy import policy


@policy("method/finish", "block_eos")
class BlockEos:
    """End a row whose window is complete and holds an end token: everything behind the window becomes end tokens.

    `enabled` False decodes fully.
    """

    enabled: bool = True

    def __call__(self, canvas: Canvas, complete_B: Tensor) -> None:
        """Fill what is behind complete windows with an end."""
        if not (self.enabled and canvas.stop_ids):
            return
        window_BL = canvas.window_BL & complete_B[:, None]
        ended_B1 = (window_BL & _stops(canvas)).any(1, keepdim=True)
        last_B1 = canvas.place_BL.masked_fill(~window_BL, -1).amax(1, keepdim=True)
        canvas.fill(ended_B1 & (canvas.place_BL > last_B1), canvas.stop_ids[0])


@policy("method/finish", "prefix_eos")
class PrefixEos:
    """Behind the first end token of a row, everything becomes end tokens; what is before it is still decoded."""

    def __call__(self, canvas: Canvas, complete_B: Tensor) -> None:
        """Fill what is behind the first end token of every row."""
        if not canvas.stop_ids:
            return
        stops_BL = canvas.response_BL & ~canvas.undecided_BL & _stops(canvas)
        behind_BL = stops_BL.cumsum(1) - stops_BL.long() > 0
        canvas.fill(behind_BL, canvas.stop_ids[0])


def _stops(canvas: Canvas) -> Tensor:
    """Return which positions hold one of the tokens that end an answer."""
    return torch.isin(canvas.tokens_BL, torch.tensor(canvas.stop_ids, device=canvas.tokens_BL.device))
