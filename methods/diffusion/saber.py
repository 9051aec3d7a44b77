"""Saber: commit what is surer than commits were so far, take back what gained least (arXiv:2510.18165, section 3).

Symbol -> knob: n (least commits per step, default 2), block_length (default: the whole response, as published).
Per step, c being the present probability of the predicted token at every place up to the block's end, decided or not:
close the open positions with c > the mean c of all commits so far (1 before the first), the n best where these are
fewer; then open again the max(n // 2, ceil(f / 8)) decided positions, at most f - 1, whose c grew least since the last
step, f = max(n, positions closed). A step that completes the block takes nothing back.
Deviations from the authors' code (zhaoyMa/Saber): no more than the open positions close, where theirs may rewrite
decided ones; ties go to the lowest position. They are frequent where the context did not change, as in finished blocks
of block-causal models, and rounding may break them there: a tree of drafts may take back others than a batch does. As
there, what was taken back stays in the mean, with its last c.
Invariant: every step decides at least one position more than it opens.
"""

from functools import lru_cache

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.needs import Gives, Needs
from harness.engine.shared.indexing import listed
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Candidates, Prediction, least, top
from harness.errors import at_least

_COMMITTED_AT, _LAST = "saber.confidence_at_commit_BL", "saber.last_confidence_BL"


@policy("method/window", "growing_blocks")
class GrowingBlocks:
    """Open everything up to the end of the first block, of `length` positions, that holds an undecided one."""

    gives = Gives(waits=True)

    length: int

    def __post_init__(self) -> None:
        at_least(1, length=self.length)

    def update(self, canvas: Canvas) -> None:
        """Grow the window by the next block where it holds nothing undecided."""
        first_B = canvas.first_undecided_B // self.length
        closed_B = canvas.undecided_BL.any(1) > canvas.open_BL.any(1)
        canvas.open_window(closed_B, (canvas.place_BL // self.length <= first_B[:, None]) & canvas.response_BL)


@policy("method/selector", "above_mean")
class AboveMean:
    """Close the positions that are surer than the mean of all commits so far, and at least the best `n`."""

    gives = Gives(decides=True)

    n: int = 2

    def __post_init__(self) -> None:
        at_least(1, n=self.n)

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        """Return the positions to commit; only the best where no reviser has kept what commits were like."""
        best_BL = top(candidates.score_BL, open_BL, self.n)
        if _COMMITTED_AT not in canvas.memory:
            canvas.note(rankings=(candidates.score_BL, best_BL, open_BL))
            return best_BL
        committed_at_BL = canvas.memory[_COMMITTED_AT]
        mean_B1 = committed_at_BL.sum(1, keepdim=True) / (committed_at_BL > 0).sum(1, keepdim=True)
        sure_BL = open_BL & (candidates.confidence_BL > mean_B1)
        by_mean_B1 = sure_BL.sum(1, keepdim=True) >= self.n
        canvas.note(bounds=(candidates.confidence_BL - mean_B1.nan_to_num(torch.inf), open_BL))
        canvas.note(rankings=(candidates.score_BL, best_BL, open_BL & ~by_mean_B1))
        return torch.where(by_mean_B1, sure_BL, best_BL)


@policy("method/reviser", "least_gain")
class LeastGain:
    """Open the decided positions of the window again whose confidence grew least since the last step."""

    needs = Needs(positions=lambda canvas: canvas.window_BL)

    n: int = 2

    def __call__(self, canvas: Canvas, prediction: Prediction, candidates: Candidates, commit_BL: Tensor) -> None:
        """Remember the confidences, then re-mask, unless the window is complete."""
        confidence_BL = candidates.confidence_BL
        canvas.memory[_COMMITTED_AT] = torch.where(commit_BL, confidence_BL, canvas.memory.get(_COMMITTED_AT, 0.0))
        last_BL = canvas.memory.get(_LAST, 0.0)
        canvas.memory[_LAST] = torch.where(confidence_BL > -torch.inf, confidence_BL, last_BL)
        shares = _shares(self.n, commit_BL.shape[1], commit_BL.device)
        count_B = shares.index_select(0, commit_BL.sum(1)) * canvas.open_BL.any(1)
        decided_BL, gain_BL = canvas.decided_here_BL, confidence_BL - last_BL
        reopened_BL = least(gain_BL, decided_BL, count_B)
        canvas.note(rankings=(gain_BL, reopened_BL, decided_BL))
        canvas.remask(reopened_BL)


@lru_cache
def _shares(n: int, most: int, device: torch.device) -> Tensor:
    """Return how many are taken back when so many have closed, from none to `most`: an eighth, of n at least.

    Never less than half of n. Saber's own selector closes n at least, or completes the block; beside another one as
    much has to be left.
    """
    shares = (max(closed + 7, n + 7, n // 2 * 8) // 8 for closed in range(most + 1))
    return listed(tuple(min(share, max(closed - 1, 0)) for closed, share in enumerate(shares)), device)
