"""ASS: ascending step sizes, so that G tokens take floor(log2 G) calls (arXiv:2509.23924; sampler of its code).

Symbol -> knob: S = floor(log2 G) -> steps (no other value is possible), bn -> block_num (default 1).
Step i of S closes 2^i positions, the last step all that are left. With one block these are the best of the whole
response; with more, every block but the first is the share of one step, left to right: G = 256 in 4 blocks is
31, 32, 64, 129 positions in 5, 1, 1, 1 steps.
Deviation from the authors' code: another `steps` is refused (there it is an index error).
Invariants: S calls whatever block_num is; the quotas sum to G.
"""

from itertools import accumulate

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.needs import Gives
from harness.engine.shared.policy import policy
from harness.errors import FieldError
from methods.diffusion.blocks import open_first


def ascending_steps(gen_length: int) -> int:
    """Return S, the number of steps for `gen_length` positions (1 for a single position)."""
    return max(1, gen_length.bit_length() - 1)


def ascending_blocks(gen_length: int, block_num: int) -> list[int]:
    """Return the sizes of the blocks; raise ValueError where there cannot be so many."""
    steps = ascending_steps(gen_length)
    if not 1 <= block_num <= steps:
        raise FieldError("block_num", block_num, f"lie in 1 to {steps} for gen_length={gen_length}")
    first = 2 ** (steps - block_num + 1) - 1
    sizes = [first, *(2**step for step in range(steps - block_num + 1, steps))]
    sizes[-1] += gen_length - sum(sizes)
    return sizes


def _block(canvas: Canvas, sizes: list[int]) -> Tensor:
    """Return the block [B, L] of every place; what lies outside of the response counts to its neighbour."""
    ends = torch.tensor(list(accumulate(sizes))[:-1], device=canvas.tokens_BL.device, dtype=torch.int64)
    return torch.bucketize(canvas.place_BL, ends, right=True)


@policy("method/window", "ascending")
class AscendingBlocks:
    """Open blocks of growing size, one after the other."""

    gives = Gives(waits=True)

    gen_length: int
    block_num: int = 1

    def __post_init__(self) -> None:
        ascending_blocks(self.gen_length, self.block_num)

    def update(self, canvas: Canvas) -> None:
        """Open the first block that holds an undecided position, where the present window holds none."""
        open_first(canvas, _block(canvas, ascending_blocks(self.gen_length, self.block_num)))


@policy("method/schedule", "doubling")
class Doubling:
    """Close twice as many positions in every step, and the rest in the last."""

    steps: int | None
    gen_length: int
    block_num: int = 1

    def __post_init__(self) -> None:
        total = ascending_steps(self.gen_length)
        if self.steps not in (None, total):
            raise FieldError("steps", self.steps, f"be {total} (floor of log2 of gen_length={self.gen_length})")
        ascending_blocks(self.gen_length, self.block_num)

    def quota(self, canvas: Canvas) -> Tensor:
        """Return 2^i for step i of the response, everything open in the last."""
        total = ascending_steps(self.gen_length)
        first_B = self._steps_before(canvas)
        step_B = (first_B + canvas.window_clock_B).clamp(max=total - 1)
        open_B = canvas.num_open_B
        return torch.where(step_B == total - 1, open_B, torch.minimum(2**step_B, open_B))

    def surplus(self, canvas: Canvas) -> Tensor:
        """Return the steps of the block that are left (none, unless tokens were given)."""
        first_B = self._steps_before(canvas)
        in_first = ascending_steps(self.gen_length) - self.block_num + 1
        share_B = torch.ones_like(first_B).masked_fill(first_B == 0, in_first)
        return (share_B - canvas.window_clock_B).clamp(min=0)

    def _steps_before(self, canvas: Canvas) -> Tensor:
        """Return how many steps belong to the blocks before the present one."""
        block_BL = _block(canvas, ascending_blocks(self.gen_length, self.block_num))
        block_B = block_BL.masked_fill(~canvas.window_BL, self.block_num).amin(1)
        return torch.where(block_B == 0, 0, ascending_steps(self.gen_length) - self.block_num + block_B)
