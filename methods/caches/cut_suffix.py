"""A canvas without its end: what SlowFast's fast calls compute (arXiv:2506.10848, section 3.3).

A window leaves in the canvas's memory, under `VISIBLE`, how many positions of each row exist; without that all do.
Nothing is kept between calls.
"""

from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.evaluation import EvaluationRequest
from harness.engine.diffusion.needs import Gives, Leaves
from harness.engine.shared.indexing import positions
from harness.engine.shared.model import ForwardRequest
from harness.engine.shared.policy import policy
from harness.engine.shared.records import Charge

VISIBLE = "cut_suffix.visible_B"


@policy("method/cache", "cut_suffix")
class CutSuffix:
    """Compute the visible part of every row; what lies behind does not exist."""

    gives = Gives(drafts=True, leaves=Leaves.behind)

    def narrow(self, canvas: Canvas, read_BL: Tensor, quota_B: Tensor | None) -> Tensor:
        """Return the visible positions, of those read."""
        return read_BL & (canvas.position_L < _visible_B(canvas)[:, None])

    def evaluate(self, request: EvaluationRequest) -> Tensor:
        """Return aligned logits of the read positions, of which `narrow` has left the visible ones."""
        canvas = request.canvas
        length_B = _visible_B(canvas)
        width, seen_B1L = canvas.once(CutSuffix, (length_B,), _visible)
        whole = width == canvas.tokens_BL.shape[1]
        visible = ForwardRequest(
            canvas.tokens_BL[:, :width],
            visible_BTS=seen_B1L,
            select_N=request.select_N if whole else request.row_N * width + request.source_N,
            decided_at_BT=canvas.decided_at_BL[:, :width],
        )
        charge = Charge(sample_B=canvas.sample_B, query_B=length_B, keys_B=length_B, head_B=request.head_B)
        return request.call(visible, charge)


def _visible(length_B: Tensor) -> tuple[int, Tensor]:
    """Return the length of the longest row, and which positions each has; waits for the device."""
    width = int(length_B.max())
    return width, (positions(width, length_B.device) < length_B[:, None])[:, None, :]


def _visible_B(canvas: Canvas) -> Tensor:
    return canvas.memory.get(VISIBLE, canvas.length_B)
