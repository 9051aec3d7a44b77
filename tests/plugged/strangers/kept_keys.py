"""Two caches: one that is near enough, for every model, and one that is exact, for models that see no later block."""

from torch import Tensor

from harness.engine.diffusion.evaluation import EvaluationRequest
from harness.engine.diffusion.needs import Gives, Needs
from harness.engine.diffusion.reuse import compute, recall
from harness.engine.shared.model import ModelKind
from harness.engine.shared.policy import policy


@policy("method/cache", "around")
class Around:
    """Compute the window and `margin` positions on both sides; all where a window opens or the rest has changed."""

    margin: int = 2
    # The age of what is kept does not count, so that a draft is predicted as its step would be.
    gives = Gives(drafts=True, shared=True)

    def evaluate(self, request: EvaluationRequest) -> Tensor:
        """Return aligned logits of the positions that are asked for."""
        canvas, past = request.canvas, recall(request.canvas)
        place_BL = canvas.window_place_BL
        last_B1 = place_BL.masked_fill(~canvas.window_BL, -1).amax(1, keepdim=True)
        near_BL = (place_BL >= -self.margin) & (place_BL <= last_B1 + self.margin)
        whole_B = (past.calls_B == 0) | (past.changed_BL(canvas) & ~near_BL).any(1)
        return compute(request, near_BL | whole_B[:, None], past)


@policy("method/cache", "past_blocks")
class PastBlocks:
    """Compute from the first block on that holds a change; what is before has seen nothing of it."""

    needs = Needs(kinds=frozenset({ModelKind.BLOCK_DIFFUSION}))
    gives = Gives(drafts=True, any_draft=True)

    def evaluate(self, request: EvaluationRequest) -> Tensor:
        """Return the aligned logits that no cache would give."""
        canvas, past, length = request.canvas, recall(request.canvas), request.model.spec.block_length
        assert length is not None
        position_L, changed_BL = canvas.position_L, past.changed_BL(canvas)
        first_B1 = position_L.where(changed_BL, changed_BL.shape[1]).amin(1, keepdim=True)
        return compute(request, position_L >= first_B1 // length * length, past)
