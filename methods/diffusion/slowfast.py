"""SlowFast sampling: explore to find how far the model is sure, then fill that far (arXiv:2506.10848, section 3).

Symbol -> knob: exploring steps per cycle -> k_explore (6), confidence that counts as reached -> conf_len (0.3), entries
and population standard deviation at which an estimate is stable -> stab_window (2), stab_std (1.0), confidence that
closes -> high (0.9), block_length (default: the response). With a the length filled so far, a cycle is
slow: `k_explore` steps on what lies behind a; each estimates the length, up to the farthest position that reaches
conf_len, until the last estimates agree (the last one counts; their mean, rounded down, as long as they do not);
fast: steps between a and the estimate until it is full, all calls but the first without the canvas behind it.
A step closes all positions that reach `high` if they are at least two, else the best one.
Deviations from the authors' code (LiangrunFlora/Slow-Fast-Sampling): exploring steps that find the block full are not
run but counted as idle; predictions of what was cut off are not kept: rules that look at all of a response remember
what they need (`predict_eos`, `canvas_growth`), and other policies that would are refused.
Invariant: every step closes a position.
"""

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.margins import Bound
from harness.engine.diffusion.needs import Gives, Needs
from harness.engine.shared.policy import policy, probability
from harness.engine.shared.prediction import Candidates, Prediction
from harness.errors import at_least
from methods.caches.cut_suffix import VISIBLE

_START, _FILLED, _LENGTH = "slowfast.start_B", "slowfast.filled_B", "slowfast.length_B"
_FILLS_AT, _SEEKS_TO, _ESTIMATES = "slowfast.fills_at_B", "slowfast.seeks_to_B", "slowfast.estimates_BW"


@policy("method/window", "slowfast")
class ExploreAndFill:
    """Open the rest of a block for exploring steps, then what lies before the estimated length.

    Blocks have `length` positions; `start` counts places of the response, `filled` and the estimated length those of
    the block. The cycle fills from the clock `fills_at` on, and estimates before `seeks_to`; 0 is no estimate.
    """

    gives = Gives(waits=True, cuts=True)

    length: int
    k_explore: int = 6
    conf_len: float = 0.3
    stab_window: int = 2
    stab_std: float = 1.0

    def __post_init__(self) -> None:
        at_least(1, length=self.length, k_explore=self.k_explore, stab_window=self.stab_window)

    def due(self, canvas: Canvas) -> Tensor:
        """Return the rows whose cycle fills from now on, and those whose next call is the first without the rest."""
        return (canvas.clock_B - canvas.memory[_FILLS_AT]) // 2 == 0

    def update(self, canvas: Canvas) -> None:
        """Open what the next step may close."""
        memory, new = canvas.memory, _START not in canvas.memory
        if new:
            for name in (_START, _FILLED, _LENGTH):
                memory[name] = torch.zeros_like(canvas.clock_B)
            memory[_FILLS_AT] = memory[_SEEKS_TO] = canvas.clock_B + self.k_explore
            memory[_ESTIMATES] = canvas.clock_B.new_zeros(canvas.num_rows, self.stab_window)
        self._go_on(canvas)
        fills_at_B, length_B = memory[_FILLS_AT], memory[_LENGTH]
        reached_end_B = torch.minimum(canvas.prompt_length_B + memory[_START] + length_B, canvas.length_B)
        memory[VISIBLE] = torch.where(canvas.clock_B > fills_at_B, reached_end_B, canvas.length_B)
        end_B = torch.where(canvas.clock_B < fills_at_B, self.length, length_B)
        window_BL = canvas.response_BL & self._between(canvas, memory[_FILLED], end_B)
        if new:
            canvas.open_window(torch.ones_like(canvas.held_B), window_BL)
        else:
            canvas.move_window(None, window_BL)

    def _go_on(self, canvas: Canvas) -> None:
        """Explore again where the estimated length is full, and in the next block where this one is decided."""
        memory = canvas.memory
        start_B, filled_B, length_B = memory[_START], memory[_FILLED], memory[_LENGTH]
        left_BL = self._between(canvas, filled_B, length_B) & canvas.undecided_BL
        over_B = (canvas.clock_B >= memory[_FILLS_AT]) > left_BL.any(1)
        first_B = canvas.first_undecided_B // self.length * self.length
        moved_B = first_B > start_B
        memory[_START] = torch.where(moved_B, first_B, start_B)
        memory[_FILLED] = torch.where(over_B, length_B, filled_B).masked_fill(moved_B, 0)
        again_B = over_B | moved_B
        fills_at_B = canvas.clock_B + self.k_explore
        for name in (_FILLS_AT, _SEEKS_TO):
            memory[name] = torch.where(again_B, fills_at_B, memory[name])
        memory[_LENGTH] = length_B.masked_fill(again_B, 0)
        memory[_ESTIMATES] = memory[_ESTIMATES].masked_fill(again_B[:, None], 0)

    def _within(self, canvas: Canvas) -> Tensor:
        """Return how many positions of its row's block each position ends; at most 0 before the block."""
        known = canvas.place_BL, canvas.memory[_START]
        return canvas.once(ExploreAndFill, known, lambda place_BL, start_B: place_BL - (start_B - 1)[:, None])

    def _between(self, canvas: Canvas, filled_B: Tensor, end_B: Tensor) -> Tensor:
        within_BL = self._within(canvas)
        return (within_BL > filled_B[:, None]) & (within_BL <= end_B[:, None])

    def before_commit(self, canvas: Canvas, prediction: Prediction, candidates: Candidates) -> None:
        """Estimate the length in exploring steps; no row has to be evaluated again."""
        memory, within_BL = canvas.memory, self._within(canvas)
        pending_B = canvas.clock_B < memory[_SEEKS_TO]
        reached_BL = canvas.open_BL & (candidates.confidence_BL >= self.conf_len)
        estimate_B = torch.where(reached_BL, within_BL, (memory[_FILLED] + 1)[:, None]).amax(1)
        # Nothing before the farthest position that reaches the bound could change the estimate.
        looked_at_BL = canvas.open_BL & (within_BL >= estimate_B[:, None]) & pending_B[:, None]
        canvas.note(later=(Bound(self.conf_len), (candidates.confidence_BL, looked_at_BL)))
        memory[_ESTIMATES] = last_BW = torch.cat([memory[_ESTIMATES][:, 1:], estimate_B[:, None]], 1)
        count_B = last_BW.count_nonzero(1)
        agree_B = (count_B == self.stab_window) & (last_BW.double().std(1, correction=0) < self.stab_std)
        found_B = torch.where(agree_B, estimate_B, last_BW.sum(1) // count_B)
        memory[_LENGTH] = torch.where(pending_B, found_B, memory[_LENGTH])
        memory[_SEEKS_TO] = torch.where(agree_B, canvas.clock_B, memory[_SEEKS_TO])


@policy("method/schedule", "slowfast")
class Exploring:
    """Set no budget, but count the exploring steps that a full block leaves over."""

    needs = Needs(beside={"window": ("slowfast",)})

    k_explore: int = 6

    def quota(self, canvas: Canvas) -> Tensor | None:
        """Return None."""
        return None

    def surplus(self, canvas: Canvas) -> Tensor:
        """Return what is left of the exploring steps."""
        return (canvas.memory[_FILLS_AT] - canvas.clock_B).clamp(min=0)


@policy("method/selector", "sure_pair")
class SurePair:
    """Close the positions that reach `high` if they are at least two, else the best one."""

    high: float = probability(0.9)

    def __post_init__(self) -> None:
        at_least(0, high=self.high)

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        """Return the pair or more; the loop adds the best one where there is none."""
        canvas.note(later=(Bound(self.high), (candidates.confidence_BL, open_BL)))
        sure_BL = open_BL & (candidates.confidence_BL >= self.high)
        return sure_BL & (sure_BL.sum(1, keepdim=True) >= 2)
