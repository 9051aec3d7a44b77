"""Token editing: decided tokens are replaced when the model has come to prefer others (LLaDA-2.1's sampler).

Symbol -> knob: threshold for masks -> tau (0.95; above it), for edits -> tau_edit (0.9; above it), edit-only steps of a
complete block -> post (16), repetition penalty -> penalty (0), whether a block's first position is penalised by the
token before the block, too -> penalty_across (false), block_length (32). While a block holds masks, every step closes
the sure ones and edits; then come steps that only edit, until one changes nothing or `post` are over.
From published ports (the dLLM library, SGLang's JointThreshold: tau 0.5, tau_edit 0, post 16), not from the authors'
code. The penalty is SGLang's, which sees one block at a time, hence the default; `penalty_across` is ours, for tokens
that are doubled over a border. Blocks there count from position 0 and may begin with prompt tokens, which penalise as
well; here a block is the method's window, without any. Not built: deletions and splits (for models trained on them).
Models not trained to edit predict at a decided position what they see there, and so seldom edit.
Invariants: tau_edit >= 1, above which no probability lies, equals `threshold` with a strict threshold, call by call.
"""

from dataclasses import replace

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.margins import Bound
from harness.engine.diffusion.needs import Needs
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Candidates, Prediction, ScoreDtype
from harness.errors import at_least
from methods.diffusion.llada import Confidence

_POST = "t2t_edit.post_B"


@policy("method/scorer", "unrepeated")
class Unrepeated:
    """Confidence once `penalty` is subtracted from the logit of the token that stands one position before.

    What stands before the window counts if `penalty_across`.
    """

    penalty: float = 0.0
    penalty_across: bool = False
    temperature: float = 0.0
    score_dtype: ScoreDtype = ScoreDtype.float32

    def __post_init__(self) -> None:
        at_least(0, penalty=self.penalty, temperature=self.temperature)

    def __call__(self, prediction: Prediction, canvas: Canvas) -> Candidates:
        """Return candidates of all read positions."""
        logits_NV = self.score_dtype.cast(prediction.logits_NV)
        if self.penalty:
            logits_NV = self._less(logits_NV, prediction, canvas)
        confidence = Confidence(temperature=self.temperature, score_dtype=ScoreDtype.model)
        return confidence(replace(prediction, logits_NV=logits_NV), canvas)

    def _less(self, logits_NV: Tensor, prediction: Prediction, canvas: Canvas) -> Tensor:
        """Return the logits with the penalty subtracted."""
        before_N = prediction.gather(canvas.tokens_BL.roll(1, 1))
        counts_BL = (canvas.window_BL.roll(1, 1) | self.penalty_across) & (canvas.position_L > 0)
        less_N = logits_NV.new_full(before_N.shape, -self.penalty).masked_fill(~prediction.gather(counts_BL), 0.0)
        return logits_NV.scatter_add(1, before_N[:, None], less_N[:, None])


@policy("method/reviser", "edit")
class Edit:
    """Replace committed tokens of the window by what is predicted with more than `tau_edit`; hold complete windows.

    A complete window is evaluated again until a step edits nothing, at most `post` times; never if nothing can pass.
    """

    needs = Needs(positions=lambda canvas: canvas.decided_here_BL)

    tau_edit: float = 0.9
    post: int = 16

    def __post_init__(self) -> None:
        at_least(0, tau_edit=self.tau_edit, post=self.post)

    def __call__(self, canvas: Canvas, prediction: Prediction, candidates: Candidates, commit_BL: Tensor) -> None:
        """Edit, and hold or let go; what this step committed cannot differ from its prediction."""
        looked_at_BL, sure_BL = canvas.decided_here_BL & ~commit_BL, candidates.confidence_BL > self.tau_edit
        differs_BL = candidates.tokens_BL != canvas.tokens_BL
        changed_BL = looked_at_BL & differs_BL & sure_BL
        canvas.note(later=(Bound(self.tau_edit), (candidates.confidence_BL, looked_at_BL & differs_BL)))
        if candidates.token_gap_BL is not None:
            # What stays might have been edited, had another token been as sure.
            canvas.note(tokens=(candidates.token_gap_BL.abs(), looked_at_BL & sure_BL))
        canvas.edit(changed_BL, candidates.tokens_BL)
        complete_B, closed_B = ~canvas.open_BL.any(1), commit_BL.any(1)
        post_B = (canvas.memory.get(_POST, torch.zeros_like(canvas.clock_B)) + 1).masked_fill(closed_B, 0)
        canvas.memory[_POST] = post_B
        post = self.post if self.tau_edit < 1 else 0
        canvas.held_B = complete_B & (post_B < post) & (closed_B | changed_BL.any(1))
