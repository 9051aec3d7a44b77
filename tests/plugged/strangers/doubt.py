"""A reviser with memory: what the model would not write again is masked, a bounded number of times."""

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.needs import Needs
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Candidates, Prediction

_OFTEN = "doubt.often_BL"
"""How often each position was masked again."""


@policy("method/reviser", "doubt")
class Doubt:
    """Mask earlier tokens of the window again that get less than `least`, each position at most `most` times."""

    least: float = 0.05
    most: int = 1

    @property
    def needs(self) -> Needs:
        """The decided positions of the window, in every call."""
        return Needs(positions=self.decided)

    def decided(self, canvas: Canvas) -> Tensor:
        """Return what is looked at again."""
        return canvas.committed_BL & canvas.window_BL

    def __call__(self, canvas: Canvas, prediction: Prediction, candidates: Candidates, commit_BL: Tensor) -> None:
        """Mask again; what this step has committed is not judged by the prediction that chose it."""
        own_N1 = prediction.gather(canvas.tokens_BL)[:, None]
        p_BL = prediction.scatter(prediction.logits_NV.softmax(-1).gather(1, own_N1)[:, 0], 1.0)
        often_BL = canvas.memory.get(_OFTEN, torch.zeros_like(canvas.tokens_BL))
        failed_BL = self.decided(canvas) & ~commit_BL & (p_BL < self.least) & (often_BL < self.most)
        canvas.memory[_OFTEN] = often_BL + failed_BL
        canvas.remask(failed_BL)
