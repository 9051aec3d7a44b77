"""Finish rules: what an end token means for the positions behind it.

`block_eos` is the early stop of dInfer's block-wise driver (arXiv:2510.08666), `prefix_eos` the one of d3LLM
(arXiv:2601.07568), `all_end` the early exit of FreeDave (arXiv:2510.00294, released code). The first two read the
model's stop tokens and fill with the first of them; filled positions carry the last step as the step of their commit
and are not counted as generated. Given tokens are never replaced.
Deviations from the authors' code: dInfer's driver also stops with its early stop switched off, and removes every end
token from what it returns; here a rule that is off decodes on, and answers keep their end tokens.
Reconstruction: `prefix_eos` takes a given end token for an end as well.
"""

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.needs import Gives, Needs
from harness.engine.diffusion.positional import last_marked
from harness.engine.shared.indexing import listed
from harness.engine.shared.largest import largest
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Candidates, Prediction
from harness.errors import at_least

_END = "predict_eos.end_BL"


@policy("method/finish", "block_eos")
class BlockEos:
    """End a row whose window is complete and holds an end token: everything behind the window becomes end tokens.

    `enabled` False decodes fully.
    """

    gives = Gives(waits=True)

    enabled: bool = True

    def __call__(self, canvas: Canvas, complete_B: Tensor) -> None:
        """Fill what is behind complete windows with an end."""
        if not (self.enabled and canvas.stop_ids):
            return
        window_BL = canvas.window_BL & complete_B[:, None]
        ended_B1 = (window_BL & _stops(canvas)).any(1, keepdim=True)
        canvas.fill(ended_B1 & (canvas.position_L > last_marked(window_BL)), canvas.stop_ids[0])


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


@policy("method/finish", "all_end")
class AllEnd:
    """Where a completed window holds nothing but one end or padding token, fill the rest of the response with it.

    Filled positions carry the last step.
    """

    gives = Gives(waits=True)

    enabled: bool = True

    def __call__(self, canvas: Canvas, complete_B: Tensor) -> None:
        """Fill the rows that have ended."""
        if not self.enabled:
            return
        largest_B = canvas.tokens_BL.masked_fill(~canvas.window_BL, -1).amax(1)
        uniform_BL = (canvas.tokens_BL == largest_B[:, None]) | ~canvas.window_BL
        ends = listed((*canvas.stop_ids, canvas.fill_id), canvas.tokens_BL.device)
        ended_B = complete_B & uniform_BL.all(1) & torch.isin(largest_B, ends)
        fill_BL = canvas.undecided_BL & ended_B[:, None]
        last_B1 = canvas.decided_at_BL.amax(1, keepdim=True)
        canvas.tokens_BL = torch.where(fill_BL, largest_B[:, None], canvas.tokens_BL)
        canvas.undecided_BL = canvas.undecided_BL & ~fill_BL
        canvas.decided_at_BL = torch.where(fill_BL, last_B1, canvas.decided_at_BL)


def _stops(canvas: Canvas) -> Tensor:
    """Return which positions hold one of the tokens that end an answer."""
    return torch.isin(canvas.tokens_BL, listed(canvas.stop_ids, canvas.tokens_BL.device))


@policy("method/finish", "predict_eos")
class PredictEos:
    """Cut a row behind the surest predicted end (Learn2PD's end-of-text prediction, arXiv:2509.25188, section 4.3).

    Of the undecided positions whose best token is an end token, the one with the highest probability becomes the
    row's last one, before anything is committed, if it reaches `confidence` (theirs: 0; 0.9 is safer). Later calls
    are shorter. A single wrong prediction truncates the answer. Theirs commits first, and loses what lies behind.
    Of positions that a call leaves out, the last prediction counts. The whole response is looked at, as theirs does
    without a cache; with `ahead` off nothing behind the open window, as theirs does with one, and on Dream.
    """

    needs = Needs(positions=lambda canvas: canvas.undecided_BL, every_call=False)

    confidence: float = 0.0
    ahead: bool = True

    def __post_init__(self) -> None:
        at_least(0, confidence=self.confidence)

    def before_commit(self, canvas: Canvas, prediction: Prediction, candidates: Candidates) -> None:
        """Cut rows; none has to be evaluated again."""
        if not canvas.stop_ids:
            return
        stops = listed(canvas.stop_ids, canvas.tokens_BL.device)
        # In float32 several sure ends round to 1, and the first would win for being the first.
        most_N1, best_N1 = largest(prediction.logits_NV.double().softmax(-1))
        p_N = (most_N1 * torch.isin(best_N1, stops))[:, 0]
        canvas.memory[_END] = p_BL = prediction.latest(p_N, canvas.memory.get(_END))
        seen_BL = self.ahead | (canvas.position_L <= last_marked(canvas.window_BL))
        ends_BL = canvas.undecided_BL & (p_BL > 0) & seen_BL
        surest_B, at_B = p_BL.masked_fill(~ends_BL, -1).max(1)
        surest_BL = ends_BL & (canvas.position_L == at_B[:, None])
        canvas.note(rankings=(p_BL, surest_BL, ends_BL))
        canvas.note_choice((surest_B - self.confidence).abs().masked_fill(~ends_BL.any(1), torch.inf))
        canvas.resize(torch.where(surest_B >= self.confidence, at_B + 1, canvas.length_B))

    def __call__(self, canvas: Canvas, complete_B: Tensor) -> None:
        """Do nothing: what is behind the end is gone."""
