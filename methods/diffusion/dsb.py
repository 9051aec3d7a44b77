"""Dynamic sliding blocks (arXiv:2602.05992, section 3; lizhuo-luo/DSB, `generate_dsb`).

Symbol -> knob: block length K -> block_length (32), max_block (-1: greedy, no limit; K: the window keeps its size),
tau -> tau (0.9). The window reaches from the first undecided position to where the first block would end, one
further for every token that is decided, at most `max_block` positions: no block waits for one hard token.
Selection is Fast-dLLM's threshold. The authors' cache (`generate_dsb_cache`) is `method/cache=dsb`.
Deviations from the authors' code: none that changes an answer.
Invariants: greedy with block_length = gen_length equals `threshold`; max_block = 1 is left to right.
"""

import torch

from harness.engine.diffusion.canvas import Canvas
from harness.engine.shared.policy import policy
from harness.errors import FieldError, at_least


@policy("method/window", "sliding")
class Sliding:
    """Open what lies between the first undecided position and a border that moves with every decided token.

    The border starts `length` positions into the response; `max_block` limits the window (-1: not).
    """

    length: int
    max_block: int = -1

    def __post_init__(self) -> None:
        at_least(1, length=self.length)
        if self.max_block != -1 and self.max_block < 1:
            raise FieldError("max_block", self.max_block, "be at least 1, or -1 for no limit")

    def update(self, canvas: Canvas) -> None:
        """Move the window; its clock counts from the start of the response."""
        first_B = canvas.first_undecided_B
        end_B = self.length + (canvas.response_BL & ~canvas.undecided_BL).sum(1)
        if self.max_block != -1:
            end_B = torch.minimum(end_B, first_B + self.max_block)
        window_BL = (canvas.place_BL >= first_B[:, None]) & (canvas.place_BL < end_B[:, None]) & canvas.response_BL
        new_B = canvas.window_index_B == 0
        canvas.open_window(new_B, window_BL)
        canvas.move_window(~new_B, window_BL)
