"""Fast-dLLM v2: sub-blocks within the blocks of a shifted block-causal model.

Paper: arXiv:2509.26328; released code: its batch_sample.

| symbol | argument | default |
|---|---|---|
| sb | sub_block_length | 8 |
| tau | threshold | 0.9 (the function's default is 0.95; their evaluations use 0.9 and 1) |
| | temperature | 0 |
| | top_p | 0.95, which does nothing at temperature 0 |

Blocks are the model's, from absolute position 0. The first position of a block gets the most probable token of the call
that stores the block before, or of the prefill where the prompt fills its blocks: an ordinary autoregressive token,
whatever its confidence. It is a window of one position, which the cache `block_causal` evaluates by that very call.
Then sub-blocks open from left to right and close what is surer than tau (strictly) and what is surest. A stop token
ends the answer when its block is complete; padding follows it.

| words | what they change |
|---|---|
| method/cache=sub_block | use_block_cache: keys and values are reused within a block, which is not exact |
| method.finish.early=true | a stop token ends the answer when all before it is decided (the model's `generate`) |
| method/finish=stop_token | other decoders end so, with their own windows for blocks |

Models whose logits are not shifted predict nothing from a finished block: there is no inherited token, the first
position belongs to its sub-block, and storing a block is a call of its own.
Deviations from the authors' code: rows are independent; a prompt of exactly one block is read (there, it is never fed);
the last block ends with the response and is not stored; the inherited token is drawn like others at a temperature.
Invariants: tau = 1 is one token per call; the same answers without the cache.
"""

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.margins import Bound
from harness.engine.diffusion.needs import Gives, Needs
from harness.engine.diffusion.positional import last_marked
from harness.engine.shared.indexing import filled, listed
from harness.engine.shared.model import LanguageModel, ModelKind
from harness.engine.shared.policy import policy, probability
from harness.engine.shared.prediction import Candidates
from harness.errors import at_least
from methods.caches.finished_blocks import PART
from methods.diffusion.blocks import keep_first, open_first

_BLOCK, _INHERITS = "fast_dllm_v2.block_B", "fast_dllm_v2.inherits_B"


@policy("method/preparation", "model_blocks")
class ModelBlocks:
    """Tell the other policies how long the model's blocks are, and whether the last token of one predicts the next."""

    needs = Needs(kinds=frozenset({ModelKind.BLOCK_DIFFUSION}))

    def __call__(self, model: LanguageModel, canvas: Canvas) -> None:
        """Leave both in the canvas's memory."""
        assert model.spec.block_length is not None, "block-causal models only"
        canvas.memory[_BLOCK] = torch.full_like(canvas.clock_B, model.spec.block_length)
        canvas.memory[_INHERITS] = torch.full_like(canvas.clock_B, model.spec.shift, dtype=torch.bool)


def _inherited_BL(canvas: Canvas) -> Tensor:
    """Return the positions that the block before predicts."""
    position_L = canvas.position_L

    def make(length_B: Tensor, inherits_B: Tensor, position_L: Tensor) -> Tensor:
        return (position_L % length_B[:, None] == 0) & (position_L > 0) & inherits_B[:, None]

    return canvas.once(_inherited_BL, (canvas.memory[_BLOCK], canvas.memory[_INHERITS], position_L), make)


@policy("method/window", "sub_blocks")
class SubBlocks:
    """Open sub-blocks of `length` positions within the model's blocks; an inherited position first, and alone."""

    gives = Gives(waits=True)
    needs = Needs(beside={"preparation": ("model_blocks",)})

    length: int

    def __post_init__(self) -> None:
        at_least(1, length=self.length)

    def update(self, canvas: Canvas) -> None:
        """Open the first sub-block that holds an undecided position, where the present window holds none."""
        canvas.memory[PART] = filled((canvas.num_rows,), self.length, torch.int64, canvas.tokens_BL.device)
        part_L = canvas.position_L // self.length
        # Twice as many parts: an inherited position is the first half of its sub-block.
        part_BL = 2 * part_L + 1 - _inherited_BL(canvas).long()
        keep_first(canvas, part_BL)
        open_first(canvas, part_BL)


@policy("method/selector", "sure_or_inherited")
class SureOrInherited:
    """Close what is surer than `threshold` (the loop adds the best where nothing is), and inherited positions."""

    needs = Needs(beside={"preparation": ("model_blocks",)})

    threshold: float = probability(0.9)

    def __post_init__(self) -> None:
        at_least(0, threshold=self.threshold)

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        """Return the sure and inherited positions."""
        inherited_BL = _inherited_BL(canvas)
        canvas.note(later=(Bound(self.threshold), (candidates.confidence_BL, open_BL > inherited_BL)))
        return open_BL & ((candidates.confidence_BL > self.threshold) | inherited_BL)


@policy("method/finish", "stop_token")
class StopToken:
    """Put padding behind the first stop token once its block is complete, or (`early`) all that is before it.

    Blocks are the model's where the preparation `model_blocks` tells of them, else the decoder's windows.
    """

    gives = Gives(waits=True)

    early: bool = False

    def due(self, canvas: Canvas) -> Tensor:
        """Return the rows with a stop token: their answer may end anywhere."""
        return self._stops(canvas).any(1)

    def _stops(self, canvas: Canvas) -> Tensor:
        stops = listed(canvas.stop_ids, canvas.tokens_BL.device)
        return torch.isin(canvas.tokens_BL, stops) & canvas.response_BL

    def __call__(self, canvas: Canvas, complete_B: Tensor) -> None:
        """Pad the rows that have ended."""
        stop_BL = self._stops(canvas) & ~canvas.undecided_BL
        nowhere = canvas.tokens_BL.shape[1]
        first_B1 = torch.where(stop_BL, canvas.position_L, nowhere).amin(1, keepdim=True)
        # Rows without a stop token would wait for all of their positions.
        until_BL = canvas.position_L <= first_B1 if self.early else self._to_the_end_of_the_block(canvas, first_B1)
        ended_B1 = (first_B1 < nowhere) & ~(canvas.undecided_BL & until_BL).any(1, keepdim=True)
        canvas.fill(canvas.response_BL & (canvas.position_L > first_B1) & ended_B1, canvas.fill_id)

    def _to_the_end_of_the_block(self, canvas: Canvas, first_B1: Tensor) -> Tensor:
        """Return every position up to the last one of the block that holds the first stop token."""
        position_L = canvas.position_L
        if _BLOCK in canvas.memory:
            length_B1 = canvas.memory[_BLOCK][:, None]
            return position_L // length_B1 <= first_B1 // length_B1
        holds_B1 = (canvas.window_BL & (position_L == first_B1)).any(1, keepdim=True)
        return (position_L <= first_B1) | (holds_B1 & (position_L <= last_marked(canvas.window_BL)))
