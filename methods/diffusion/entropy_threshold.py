"""dParallel's decoding rule: close every position whose entropy is small (arXiv:2509.26488, section 3).

Symbol -> knob: entropy bound in nats -> theta (default 0.5; the authors use 0.45 for MBPP with LLaDA, and for GSM8K and
MATH with Dream), block size -> block_length (default 32). `strict` asks for less than theta, as their code for Dream
does. The paper's other half, certainty-forcing distillation, is training: any checkpoint can be decoded this way.
Deviation from the authors' code: no small constant inside the logarithm.
Invariants: theta = 0 on a model without certain positions equals one position per step in the order of entropy; the
position of the least entropy closes in any case.
"""

from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Candidates
from harness.errors import at_least


@policy("method/selector", "entropy_threshold")
class EntropyThreshold:
    """Close every open position whose entropy is at most `theta` nats (`strict`: less).

    Wants a scorer whose confidence is the negative entropy.
    """

    theta: float = 0.5
    strict: bool = False

    def __post_init__(self) -> None:
        at_least(0, theta=self.theta)

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        """Return the positions within the bound; the loop adds the best one where there is none."""
        entropy_BL = -candidates.confidence_BL
        canvas.note(bounds=(entropy_BL - self.theta, open_BL))
        return open_BL & (entropy_BL < self.theta if self.strict else entropy_BL <= self.theta)
