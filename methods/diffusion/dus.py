"""Dilated unmasking: a fixed plan in which positions that close together are far apart (arXiv:2506.19037).

Symbol -> knob: block size K -> block_length (16), base a -> a (2). With strides K/a, K/a^2, ..., 1 (rounded down, at
least 1), level j closes every place of the block that its stride divides and that no level before has closed: about
log_a K calls per block, whatever the model says. A last level smaller than the one before is merged with it.
A block that the response cuts short has the plan of its own length (reconstruction).
From the paper's description through a published port, not from its code. Tokens are the most probable ones.
Invariants: the number of calls is the number of levels times blocks; a >= block_length closes a block in one call.
"""

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.needs import Gives
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Candidates
from harness.errors import at_least


def levels(length: int, a: int) -> list[int]:
    """Return the level, from 0, of every place of a block of `length`."""
    level_of, stride, level = [-1] * length, length, 0
    while -1 in level_of:
        stride = max(1, stride // a)
        level_of = [level if known < 0 and place % stride == 0 else known for place, known in enumerate(level_of)]
        level += 1
    sizes = [level_of.count(one) for one in range(level)]
    last = level - 1
    merged = last > 0 and sizes[last] < sizes[last - 1]
    return [last - 1 if merged and one == last else one for one in level_of]


@policy("method/selector", "dilated")
class Dilated:
    """Close the open positions of the first level that has any; levels are those of the window's own length."""

    gives = Gives(decides=True)

    a: int = 2

    def __post_init__(self) -> None:
        at_least(2, a=self.a)

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        """Return the positions of the level."""
        level_BL = canvas.once(self, (canvas.window_BL,), lambda window_BL: self._levels(canvas, window_BL))
        first_B1 = torch.where(open_BL, level_BL, open_BL.shape[1]).amin(1, keepdim=True)
        canvas.note_choice(canvas.margins.far_B)  # the plan compares nothing
        return open_BL & (level_BL == first_B1)

    def _levels(self, canvas: Canvas, window_BL: Tensor) -> Tensor:
        """Return the level of every position of the windows."""
        lengths, longest = window_BL.sum(1).tolist(), window_BL.shape[1]
        plan_BL = torch.tensor([levels(n, self.a) + [0] * (longest - n) for n in lengths], device=window_BL.device)
        return plan_BL.gather(1, canvas.window_place_BL.clamp(min=0))
