"""The extremely greedy parallel decoder: commit exactly what is already final (arXiv:2509.25188, section 4.1).

It knows the reference answer y*, decoded beforehand one token per step (that decode is not counted): in every step
it commits the open positions whose prediction equals y*. No selector that reproduces y* can need fewer calls with
the same windows, which makes it the lower bound of every figure.
Deviation from the authors' code: where no open prediction agrees, theirs spends another call to notice that the
prediction did not change and then fills the block from y*; ours fills at once.
Invariant: the output equals y*.
"""

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.loop import decode
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.diffusion.needs import Needs
from harness.engine.shared.largest import at_largest
from harness.engine.shared.model import LanguageModel
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Candidates, Prediction, ScoreDtype, lead
from harness.engine.shared.records import Ledger
from methods.diffusion.blocks import Blocks
from methods.diffusion.llada import Confidence, Top

_REFERENCE, _LEAD = "oracle.reference_BL", "oracle.lead_BL"


@policy("method/preparation", "reference_answer")
class ReferenceAnswer:
    """Decode y* with one token per step and keep it with the canvas."""

    block_length: int
    score_dtype: ScoreDtype = ScoreDtype.float32

    def __call__(self, model: LanguageModel, canvas: Canvas) -> None:
        """Leave y* [B, L] in the canvas's memory."""
        one_per_step = DiffusionMethod(
            window=Blocks(length=self.block_length),
            scorer=Confidence(score_dtype=self.score_dtype),
            selector=Top(),
        )
        numbered = canvas.copy()
        numbered.sample_B = torch.arange(canvas.num_rows, device=canvas.sample_B.device)
        reference_BL = canvas.tokens_BL.clone()
        for generation in decode(model, one_per_step, numbered, Ledger()):
            start = int(canvas.prompt_length_B[generation.sample])
            tokens = torch.tensor(generation.tokens, device=reference_BL.device)
            reference_BL[generation.sample, start : start + len(tokens)] = tokens
        canvas.memory[_REFERENCE] = reference_BL


@policy("method/scorer", "agreement")
class Agreement:
    """Score 1 where the prediction is already final, else 0; a row without agreement gets y* itself."""

    needs = Needs(beside={"preparation": ("reference_answer",)})

    score_dtype: ScoreDtype = ScoreDtype.float32

    def __call__(self, prediction: Prediction, canvas: Canvas) -> Candidates:
        """Return candidates of all read positions."""
        reference_BL = canvas.memory[_REFERENCE]
        logits_NV = self.score_dtype.cast(prediction.logits_NV)
        tokens_BL = prediction.scatter(at_largest(logits_NV), 0)
        canvas.memory[_LEAD] = prediction.scatter(lead(logits_NV, prediction.gather(reference_BL)), 0)
        agrees_BL = canvas.open_BL & (tokens_BL == reference_BL)
        stuck_B1 = ~agrees_BL.any(1, keepdim=True)
        score_BL = (agrees_BL | (stuck_B1 & canvas.open_BL)).to(torch.float32)
        return Candidates(
            tokens_BL=torch.where(stuck_B1, reference_BL, tokens_BL), score_BL=score_BL, confidence_BL=score_BL
        )


@policy("method/selector", "agreeing")
class Agreeing:
    """Close the positions that agree."""

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        """Return the agreeing open positions."""
        if _LEAD in canvas.memory:
            canvas.note(bounds=(canvas.memory[_LEAD], open_BL))
        return open_BL & (candidates.score_BL > 0)
