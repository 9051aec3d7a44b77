"""A canvas without its end: what SlowFast's fast calls compute (arXiv:2506.10848, section 3.3).

A window leaves in the canvas's memory, under `VISIBLE`, how many positions of each row exist; without that all do.
Nothing is kept between calls.
"""

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.needs import Gives, Leaves
from harness.engine.shared.indexing import per_row
from harness.engine.shared.model import AttentionObserver, LanguageModel
from harness.engine.shared.policy import policy
from harness.engine.shared.records import Ledger, Role

VISIBLE = "cut_suffix.visible_B"


@policy("method/cache", "cut_suffix")
class CutSuffix:
    """Compute the visible part of every row; what lies behind does not exist."""

    gives = Gives(drafts=True, leaves=Leaves.behind)

    def narrow(self, canvas: Canvas, read_BL: Tensor, quota_B: Tensor | None) -> Tensor:
        """Return the visible positions, of those read."""
        return read_BL & (canvas.position_L < _visible_B(canvas)[:, None])

    def evaluate(
        self,
        ledger: Ledger,
        model: LanguageModel,
        canvas: Canvas,
        row_N: Tensor,
        position_N: Tensor,
        observe: AttentionObserver | None = None,
    ) -> Tensor:
        """Return aligned logits of the read positions, of which `narrow` has left the visible ones."""
        length_B = _visible_B(canvas)
        width = int(length_B.max())
        return ledger.call(
            model,
            canvas.tokens_BL[:, :width],
            role=Role.TARGET,
            sample_B=canvas.sample_B,
            query_B=length_B,
            keys_B=length_B,
            head_B=per_row(row_N, canvas.num_rows),
            visible_BTS=(torch.arange(width, device=length_B.device) < length_B[:, None])[:, None, :],
            select_N=row_N * width + model.spec.sources(position_N),
            decided_at_BT=canvas.decided_at_BL[:, :width],
        )


def _visible_B(canvas: Canvas) -> Tensor:
    return canvas.memory.get(VISIBLE, canvas.length_B)
