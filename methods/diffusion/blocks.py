"""Windows that are blocks, one after the other: of the response (LLaDA, Fast-dLLM), or of the whole row (SDAR).

Shapes: B rows, L positions.
"""

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.needs import Gives
from harness.engine.shared.indexing import filled
from harness.engine.shared.policy import policy
from harness.errors import at_least
from methods.caches.finished_blocks import PART

_BEYOND = torch.iinfo(torch.int64).max


@policy("method/window", "blocks")
class Blocks:
    """Open blocks of `length` positions, counted from the end of the prompt, one after the other."""

    gives = Gives(waits=True)

    length: int

    def __post_init__(self) -> None:
        at_least(1, length=self.length)

    def update(self, canvas: Canvas) -> None:
        """Open the first block that holds an undecided position, where the present window holds none."""
        block_BL = canvas.once(("blocks", self.length), (canvas.place_BL,), lambda place_BL: place_BL // self.length)
        open_first(canvas, block_BL)


@policy("method/window", "absolute_blocks")
class AbsoluteBlocks:
    """Open blocks of `length` positions, counted from absolute position 0, one after the other."""

    gives = Gives(waits=True)

    length: int

    def __post_init__(self) -> None:
        at_least(1, length=self.length)

    def update(self, canvas: Canvas) -> None:
        """Open the first block that holds an undecided position, where the present window holds none."""
        canvas.memory[PART] = filled((canvas.num_rows,), self.length, torch.int64, canvas.tokens_BL.device)
        block_BL = (canvas.position_L // self.length).expand_as(canvas.tokens_BL)
        keep_first(canvas, block_BL)
        open_first(canvas, block_BL)


def open_first(canvas: Canvas, block_BL: Tensor) -> None:
    """Open the first of the numbered blocks that has an undecided position, where the window has none left."""
    first_B1 = torch.where(canvas.undecided_BL, block_BL, _BEYOND).amin(1, keepdim=True)
    closed_B = canvas.undecided_BL.any(1) > canvas.open_BL.any(1)
    canvas.open_window(closed_B, (block_BL == first_B1) & canvas.response_BL)


def keep_first(canvas: Canvas, block_BL: Tensor) -> None:
    """Keep of each window what lies in its first block: the rest was moved into later ones."""
    first_B1 = torch.where(canvas.window_BL, block_BL, _BEYOND).amin(1, keepdim=True)
    canvas.move_window(None, canvas.window_BL & (block_BL == first_B1))
