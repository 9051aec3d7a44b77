"""Multi-block decoding: later blocks start before earlier ones are complete (arXiv:2601.07568, d3LLM's decoder).

Symbol -> knob: block size K -> block_length (32), entropy bound in nats -> theta (0.5; below it), share of a block
that must be decided before the next one is opened -> add (0.5), before it must make progress -> full (0.5). The
authors' evaluation commands use add 0.1 and full 0.95. D2F (arXiv:2508.09192) is the same pipeline with a confidence.
All positions of open blocks with an entropy below theta close; where the first block that must make progress, and has
masks, gets none of them, its least uncertain position closes. At most one block is opened per step.
Their checkpoints are distilled for it; any model can be decoded this way.
Deviation: their LLaDA code takes entropies equal to theta as well and always the least uncertain of all open
positions; `best_compat` does. Their delayed cache is not part of the decoder.
Invariants: add = 1 and full = 1 is block after block.
"""

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Candidates, top
from harness.errors import FieldError, at_least

_OPENED = "multi_block.opened_B"


def blocks_of(canvas: Canvas, length: int) -> tuple[Tensor, Tensor]:
    """Return the block [B, L] of every position, 0 in the prompt, and how long each is [B, K], 1 at least."""

    def make(place_BL: Tensor, response_BL: Tensor) -> tuple[Tensor, Tensor]:
        block_BL = (place_BL // length).clamp(min=0)
        zeros_BK = place_BL.new_zeros(len(place_BL), -(-place_BL.shape[1] // length), dtype=torch.float64)
        return block_BL, zeros_BK.scatter_add(1, block_BL, response_BL.double()).clamp(min=1)

    return canvas.once((blocks_of, length), (canvas.place_BL, canvas.response_BL), make)


def progress(canvas: Canvas, length: int) -> Tensor:
    """Return the decided share [B, K] of every block of `length` positions; blocks behind a row's end are done."""

    def make(undecided_BL: Tensor, block_BL: Tensor, size_BK: Tensor) -> Tensor:
        masks_BK = torch.zeros_like(size_BK).scatter_add(1, block_BL, undecided_BL.double())
        return 1 - masks_BK / size_BK

    return canvas.once((progress, length), (canvas.undecided_BL, *blocks_of(canvas, length)), make)


@policy("method/window", "pipeline")
class Pipeline:
    """Open the blocks from the first on; one more whenever the last one opened has `add` of its positions decided."""

    length: int
    add: float = 0.5

    def __post_init__(self) -> None:
        at_least(1, length=self.length)
        if not 0 <= self.add <= 1:
            raise FieldError("add", self.add, "lie in [0, 1]")

    def update(self, canvas: Canvas) -> None:
        """Open at most one block per row; the clock of the window counts from the start of the response."""
        new = _OPENED not in canvas.memory
        opened_B = torch.ones_like(canvas.clock_B) if new else canvas.memory[_OPENED]
        last_B = progress(canvas, self.length).gather(1, (opened_B - 1)[:, None]).squeeze(1)
        blocks_B = -(-(canvas.length_B - canvas.prompt_length_B) // self.length)
        opened_B = torch.minimum(opened_B + (last_B >= self.add), blocks_B)
        canvas.memory[_OPENED] = opened_B
        window_BL = canvas.response_BL & (canvas.place_BL < (opened_B * self.length)[:, None])
        if new:
            canvas.open_window(torch.ones_like(canvas.held_B), window_BL)
        else:
            canvas.move_window(None, window_BL)


@policy("method/selector", "pipeline")
class UncertainLast:
    """Close positions of little entropy, and one of the first block that must make progress.

    Blocks of `length` must once `full` of the block before them is decided. Wants a scorer whose confidence is the
    negative entropy.
    """

    length: int
    theta: float = 0.5
    full: float = 0.5
    best_compat: bool = False

    def __post_init__(self) -> None:
        at_least(0, theta=self.theta)
        if not 0 <= self.full <= 1:
            raise FieldError("full", self.full, "lie in [0, 1]")

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        """Return the positions to commit."""
        entropy_BL = -candidates.confidence_BL
        chosen_BL = open_BL & (entropy_BL < self.theta)
        canvas.note(bounds=(entropy_BL - self.theta, open_BL))
        if self.best_compat:
            sure_BL, surest_BL = open_BL & (entropy_BL <= self.theta), top(candidates.score_BL, open_BL, 1)
            by_rank_BL = open_BL & ~sure_BL.any(1, keepdim=True)
            canvas.note(rankings=(candidates.score_BL, surest_BL, by_rank_BL))
            chosen_BL = sure_BL | surest_BL
        pressed_BL = open_BL & self._first_pressed(canvas, open_BL)
        best_BL = top(candidates.score_BL, pressed_BL, 1)
        stuck_B1 = ~(chosen_BL & pressed_BL).any(1, keepdim=True)
        canvas.note(rankings=(candidates.score_BL, best_BL, pressed_BL & stuck_B1))
        return chosen_BL | (best_BL & stuck_B1)

    def _first_pressed(self, canvas: Canvas, open_BL: Tensor) -> Tensor:
        """Return the positions of the first block with masks that must make progress."""
        block_BL, share_BK = blocks_of(canvas, self.length)[0], progress(canvas, self.length)
        pressed_BK = torch.cat([torch.ones_like(share_BK[:, :1]), share_BK[:, :-1]], 1) >= self.full
        with_masks_BL = open_BL & pressed_BK.gather(1, block_BL)
        return block_BL == torch.where(with_masks_BL, block_BL, share_BK.shape[1]).amin(1, keepdim=True)
