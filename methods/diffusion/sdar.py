"""SDAR: diffusion within blocks, block after block (JetAstra/SDAR: block_diffusion_generate; arXiv:2510.06303).

Symbol -> knob: bs -> block_length (theirs: 8, the models' 4), D -> denoising_steps (default: one token per step),
tau -> threshold (0.85), remasking_strategy -> remasking, temperature (theirs 1, here 0), top_k (0: off), top_p.
Blocks are absolute, so that the first one begins with the end of the prompt. Step t of a block closes split(bs, D)[t]
positions: the leftmost, the surest, or (`low_confidence_dynamic`) all that are surer than tau where these are as many.
The confidence is the probability of the token in the distribution it was drawn from (temperature, top k, then top p);
at temperature 0 the token is the argmax and nothing is filtered. A stop token ends the answer with its block.
Deviations from the authors' code: quotas count masks only (there they can overwrite decided and prompt tokens); where
masks are left after D steps, because tokens were masked again, steps go on (there an index error); the last block ends
with the response and is not stored; positions behind a block with a stop token are filled. `entropy_bounded`, which is
defective there, is left out: `method=eb` is what it means.
Invariants: denoising calls and one to store per block but the last; the same answers without the cache.
"""

from enum import Enum

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.margins import Bound
from harness.engine.diffusion.needs import Gives, Needs
from harness.engine.shared.policy import policy, probability
from harness.engine.shared.prediction import Candidates, Prediction, ScoreDtype, first, log_probability, surest
from harness.engine.shared.sampling import invert, keep_top
from harness.errors import FieldError, at_least


class Remasking(Enum):
    """What closes in a step: the first masks, the surest, or all sure ones if these are as many."""

    sequential = "sequential"
    low_confidence_static = "low_confidence_static"
    low_confidence_dynamic = "low_confidence_dynamic"


@policy("method/schedule", "denoising_steps")
class DenoisingSteps:
    """Spread the positions of a whole block over `denoising_steps`; a block with fewer masks is done sooner."""

    block_length: int
    denoising_steps: int | None = None

    def __post_init__(self) -> None:
        at_least(1, denoising_steps=self.denoising_steps)

    def quota(self, canvas: Canvas) -> Tensor:
        """Return the share of the present step, at least 1, at most what is open."""
        every, more = divmod(self.block_length, self.denoising_steps or self.block_length)
        open_B = canvas.num_open_B
        if not more:
            return open_B.clamp(max=every)
        share_B = (every + (canvas.window_clock_B < more)).clamp(min=1)
        return torch.minimum(share_B, open_B)

    def surplus(self, canvas: Canvas) -> Tensor:
        """Return 0: a block ends with its last mask."""
        return torch.zeros_like(canvas.clock_B)


@policy("method/scorer", "drawn")
class DrawnScore:
    """A token drawn by temperature, top k and top p in this order, scored by its probability in that distribution."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    score_dtype: ScoreDtype = ScoreDtype.float32

    def __post_init__(self) -> None:
        at_least(0, temperature=self.temperature)
        if self.top_k < 0:
            raise FieldError("top_k", self.top_k, "be at least 0 (off)")
        if not 0 < self.top_p <= 1:
            raise FieldError("top_p", self.top_p, "lie in (0, 1]")

    def __call__(self, prediction: Prediction, canvas: Canvas) -> Candidates:
        """Return candidates of all read positions."""
        logits_NV = self.score_dtype.cast(prediction.logits_NV)
        if self.temperature > 0:
            logits_NV = keep_top(logits_NV / self.temperature, top_p=None, top_k=self.top_k or None)
            logits_NV = keep_top(logits_NV, top_p=self.top_p, top_k=None)
            tokens_N = invert(logits_NV.softmax(-1), prediction.gather(canvas.uniforms("token")))
            score_N, behind_N = log_probability(logits_NV, tokens_N), None
        else:
            tokens_N, score_N, behind_N = surest(logits_NV)
        return prediction.candidates(tokens_N, score_N, score_N.exp(), behind_N)


@policy("method/selector", "denoise")
class Denoise:
    """Close the quota by position or confidence, or everything surer than `threshold` where that is as much."""

    gives = Gives(decides=True)
    # It closes a quota, which these set none of.
    needs = Needs(without={"schedule": ("none", "slowfast")})

    remasking: Remasking = Remasking.low_confidence_dynamic
    threshold: float = probability(0.85)

    def __post_init__(self) -> None:
        at_least(0, threshold=self.threshold)

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        """Return the positions to commit."""
        assert quota_B is not None, "denoising goes with a schedule"
        if self.remasking is Remasking.sequential:
            canvas.note_choice(canvas.margins.far_B)
            return open_BL & (open_BL.cumsum(1) <= quota_B[:, None])
        best_BL = first(candidates.score_BL, open_BL, quota_B)
        if self.remasking is Remasking.low_confidence_static:
            return best_BL
        sure_BL = open_BL & (candidates.confidence_BL > self.threshold)
        by_bound_B = sure_BL.sum(1) >= quota_B
        canvas.note(later=(Bound(self.threshold), (candidates.confidence_BL, open_BL)))
        canvas.note(rankings=(candidates.score_BL, best_BL, open_BL & ~by_bound_B[:, None]))
        return torch.where(by_bound_B[:, None], sure_BL, best_BL)
