"""A verifier: some further steps on the same prediction, each a draft that the real step has to confirm."""

from dataclasses import replace

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import SETTLED, Canvas
from harness.engine.diffusion.policies import Observe, Step
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Prediction


@policy("method/verifier", "ladder")
class Ladder:
    """Evaluate up to `rungs` steps of a window at once, and climb as far as the real steps do."""

    rungs: int = 3

    def ahead(self, canvas: Canvas) -> None:
        """Ask for nothing beyond the window."""

    def propose(self, canvas: Canvas, prediction: Prediction, stepped: Canvas, step: Step) -> Canvas:
        """Return the real step of every row, and behind it the drafts that stay in the row's window."""
        rungs = [replace(stepped, stores={})]
        going_B = _inside(stepped, canvas) & (stepped.clock_B > canvas.clock_B)
        climbed = [torch.ones_like(going_B)]
        for _ in range(self.rungs - 1):
            last = rungs[-1]
            known_BL = prediction.widened(last.tokens_BL.shape[1]).read_BL
            going_B = going_B & ~(last.open_BL & ~known_BL).any(1)
            made = step(last, prediction, going_B.tolist())
            going_B = going_B & _inside(made, canvas)
            if not bool(going_B.any()):
                break
            rungs, climbed = [*rungs, made], [*climbed, going_B]
        if len(rungs) == 1:
            return stepped
        row_D, level_D = torch.stack(climbed, 1).nonzero(as_tuple=True)
        drafts = Canvas.cat(rungs).rows(level_D * canvas.num_rows + row_D)
        drafts.draft_from_B = torch.where(climbed[1][row_D], canvas.clock_B[row_D], SETTLED)
        return drafts.with_stores(stepped.stores, row_D)

    def accept(self, drafts: Canvas, prediction: Prediction, step: Step, observe: Observe) -> tuple[Canvas, Prediction]:
        """Take real steps as long as they lead to the next draft, whose prediction is known."""
        stores, drafts, samples = drafts.stores, replace(drafts, stores={}), drafts.sample_B.tolist()
        ends = [samples[at : at + 2] != [sample] * 2 for at, sample in enumerate(samples)]
        at_B = torch.tensor([0, *(at + 1 for at, end in enumerate(ends[:-1]) if end)])
        state, known = drafts.rows(at_B), prediction.rows(at_B)
        goes = [not ends[at] for at in at_B.tolist()]
        while any(goes):
            real = step(state, known, goes)
            ahead_B = at_B + torch.tensor(goes)
            draft = drafts.rows(ahead_B)
            goes_B = torch.tensor(goes) & _alike(real, draft)
            further = real.evaluated_as(draft).where(goes_B, state)
            if bool(goes_B.any()):
                observe(state, known, further)
            at_B = torch.where(goes_B, ahead_B, at_B)
            goes = [bool(went) and not ends[at] for went, at in zip(goes_B, at_B.tolist(), strict=True)]
            state, known = further, prediction.rows(at_B)
        state.draft_from_B = torch.full_like(state.draft_from_B, SETTLED)
        return state.with_stores(stores, at_B), known


def _inside(draft: Canvas, canvas: Canvas) -> Tensor:
    """Return which rows have something open in the window that they had, and have changed nothing outside of it."""
    width = canvas.tokens_BL.shape[1]
    outside_BL = ~canvas.window_BL & (draft.tokens_BL[:, :width] != canvas.tokens_BL)
    same_B = (draft.window_index_B == canvas.window_index_B) & (draft.layout_B == canvas.layout_B)
    return same_B & (draft.window_BL[:, :width] == canvas.window_BL).all(1) & ~outside_BL.any(1) & draft.open_BL.any(1)


def _alike(real: Canvas, draft: Canvas) -> Tensor:
    """Return which rows no model can tell from their draft."""
    width = min(real.tokens_BL.shape[1], draft.tokens_BL.shape[1])
    same_B = real.length_B == draft.length_B
    for name in ("tokens_BL", "undecided_BL", "window_BL", "decided_at_BL"):
        same_B = same_B & (getattr(real, name)[:, :width] == getattr(draft, name)[:, :width]).all(1)
    return same_B
