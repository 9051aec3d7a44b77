"""Which blocks of a block-causal model are stored as they are, and what a call reads.

Shapes: B rows, L positions, N read positions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.evaluation import EvaluationRequest
from harness.engine.diffusion.reuse import Past, kept, recall, sources
from harness.engine.shared.indexing import filled

FINAL = "cache.final_B"
"""Number of blocks, from the first, whose keys and values are those of their tokens."""

PART = "finished_blocks.part_B"
"""Length of the parts, from absolute position 0, that windows lie in; left by the window, of whose own length it is."""


@dataclass(frozen=True, kw_only=True)
class Blocks:
    """The blocks of a call, `number` of them from 0: those before `final_B` are stored as they are.

    All that is read comes from blocks before `end_B`, and the window of a row that is held with nothing to read.
    `other_BL` marks positions that are not as they were when they were stored.
    """

    past: Past
    other_BL: Tensor
    block_L: Tensor
    number: int
    source_BL: Tensor
    final_B: Tensor
    end_B: Tensor

    @classmethod
    def of(cls, request: EvaluationRequest) -> "Blocks":
        """Work them out; what has changed since it was stored, and all behind it, is not exact."""
        canvas, length = request.canvas, request.model.spec.block_length
        assert length is not None, "block-causal models only"
        # Also of rows whose positions moved: blocks before these have not changed.
        past = recall(canvas, anew=False)
        other_BL, source_BL = past.other_BL(canvas), sources(request)
        block_L = canvas.once((Blocks, length), (canvas.position_L,), lambda position_L: position_L // length)
        number = -(-canvas.tokens_BL.shape[1] // length)
        final_B = kept(canvas, FINAL, filled((canvas.num_rows,), 0, torch.int64, canvas.tokens_BL.device))
        counts, wanted_BL = request.places.counts, source_BL
        if counts is None or not all(counts):
            idle_B = canvas.held_B & ~source_BL.any(1)
            wanted_BL = source_BL | (canvas.window_BL & idle_B[:, None])
        return cls(
            past=past,
            other_BL=other_BL,
            block_L=block_L,
            number=number,
            source_BL=source_BL,
            final_B=torch.minimum(final_B, torch.where(other_BL, block_L, number).amin(1)),
            end_B=torch.where(wanted_BL, block_L, -1).amax(1) + 1,
        )

    def first(self, marked_BL: Tensor) -> Tensor:
        """Return the first block with a marked position, the number of blocks where there is none."""
        return torch.where(marked_BL, self.block_L, self.number).amin(1)

    def between(self, first_B: Tensor, end_B: Tensor) -> Tensor:
        """Return the positions of the blocks [first, end)."""
        return (self.block_L >= first_B[:, None]) & self.before(end_B)

    def before(self, end_B: Tensor) -> Tensor:
        """Return the positions of the blocks before `end_B`."""
        return self.block_L < end_B[:, None]

    def part_is_enough(self, part_BL: Tensor) -> Tensor:
        """Return the rows whose part lies in one block, and that read and changed nothing outside of it.

        Since their window opened, that is.
        """
        last_B1 = self.end_B[:, None] - 1
        outside_BL = (self.other_BL | self.source_BL) & ~part_BL & (self.block_L <= last_B1)
        outside_BL = outside_BL | (part_BL & (self.block_L != last_B1))
        return (self.past.calls_B > 0) & (self.final_B >= self.end_B - 1) & ~outside_BL.any(1)


def part_of_window(canvas: Canvas) -> Tensor:
    """Return the window, and with it the given positions before and behind that belong to its part of a block."""
    if PART not in canvas.memory:
        return canvas.window_BL
    part_BL = canvas.position_L // canvas.memory[PART][:, None]
    first_B1 = part_BL.masked_fill(~canvas.window_BL, canvas.tokens_BL.shape[1]).amin(1, keepdim=True)
    last_B1 = part_BL.masked_fill(~canvas.window_BL, -1).amax(1, keepdim=True)
    return (part_BL >= first_B1) & (part_BL <= last_B1) & canvas.whole_BL
