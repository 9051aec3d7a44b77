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
from harness.engine.diffusion.needs import Gives
from harness.engine.shared.policy import policy, probability
from harness.engine.shared.prediction import Candidates, Prediction
from harness.errors import at_least
from methods.caches.cut_suffix import VISIBLE

_START, _FILLED, _LENGTH = "slowfast.start_B", "slowfast.filled_B", "slowfast.length_B"
_SLOW, _FAST, _ESTIMATES, _STABLE = (f"slowfast.{name}" for name in ("slow_B", "fast_B", "estimates_BW", "stable_B"))
_CLOCK = "slowfast.clock_B"


@policy("method/window", "slowfast")
class ExploreAndFill:
    """Open the rest of a block for exploring steps, then what lies before the estimated length.

    Blocks have `length` positions; `start`, `filled` and the estimated length count places.
    """

    gives = Gives(cuts=True)

    length: int
    k_explore: int = 6
    conf_len: float = 0.3
    stab_window: int = 2
    stab_std: float = 1.0

    def __post_init__(self) -> None:
        at_least(1, length=self.length, k_explore=self.k_explore, stab_window=self.stab_window)

    def update(self, canvas: Canvas) -> None:
        """Count the step, if one was made, and open what the next one may close."""
        memory, new = canvas.memory, _START not in canvas.memory
        if new:
            for name in (_START, _FILLED, _LENGTH, _SLOW, _FAST):
                memory[name] = torch.zeros_like(canvas.clock_B)
            memory[_STABLE] = torch.zeros_like(canvas.held_B)
            memory[_ESTIMATES] = canvas.clock_B.new_full((canvas.num_rows, self.stab_window), -1)
        else:
            fast_B, stepped_B = memory[_SLOW] >= self.k_explore, canvas.clock_B > memory[_CLOCK]
            memory[_FAST] = memory[_FAST] + (stepped_B & fast_B)
            memory[_SLOW] = memory[_SLOW] + (stepped_B & ~fast_B)
        memory[_CLOCK] = canvas.clock_B
        self._next_cycle(canvas)
        self._next_block(canvas)
        slow_B, reached_B = memory[_SLOW] < self.k_explore, memory[_START] + memory[_LENGTH]
        cut_B = ~slow_B & (memory[_FAST] > 0)
        reached_end_B = torch.minimum(canvas.prompt_length_B + reached_B, canvas.length_B)
        memory[VISIBLE] = torch.where(cut_B, reached_end_B, canvas.length_B)
        end_B = torch.where(slow_B, memory[_START] + self.length, reached_B)
        window_BL = self._between(canvas, memory[_START] + memory[_FILLED], end_B)
        first_B = canvas.window_index_B == 0
        canvas.open_window(first_B, window_BL)
        canvas.move_window(~first_B, window_BL)

    def _next_cycle(self, canvas: Canvas) -> None:
        """Explore again where the estimated length is full."""
        memory = canvas.memory
        first_B, end_B = memory[_START] + memory[_FILLED], memory[_START] + memory[_LENGTH]
        full_B = ~(self._between(canvas, first_B, end_B) & canvas.undecided_BL).any(1)
        over_B = full_B & (memory[_SLOW] >= self.k_explore)
        self._restart(canvas, over_B, torch.where(over_B, memory[_LENGTH], memory[_FILLED]))

    def _next_block(self, canvas: Canvas) -> None:
        """Go to the first block with an undecided position where the present one has none."""
        memory = canvas.memory
        start_B = canvas.first_undecided_B // self.length * self.length
        moved_B = (start_B > memory[_START]) & canvas.undecided_BL.any(1)
        memory[_START] = torch.where(moved_B, start_B, memory[_START])
        self._restart(canvas, moved_B, memory[_FILLED].masked_fill(moved_B, 0))

    def _restart(self, canvas: Canvas, rows_B: Tensor, filled_B: Tensor) -> None:
        memory = canvas.memory
        memory[_FILLED] = filled_B
        for name in (_SLOW, _FAST, _LENGTH):
            memory[name] = memory[name].masked_fill(rows_B, 0)
        memory[_STABLE] = memory[_STABLE] & ~rows_B
        memory[_ESTIMATES] = memory[_ESTIMATES].masked_fill(rows_B[:, None], -1)

    def _between(self, canvas: Canvas, first_B: Tensor, end_B: Tensor) -> Tensor:
        return canvas.response_BL & (canvas.place_BL >= first_B[:, None]) & (canvas.place_BL < end_B[:, None])

    def before_commit(self, canvas: Canvas, prediction: Prediction, candidates: Candidates) -> Tensor:
        """Estimate the length in exploring steps; no row has to be evaluated again."""
        memory = canvas.memory
        reached_BL = canvas.open_BL & (candidates.confidence_BL >= self.conf_len)
        nearest_B = memory[_FILLED] + 1
        farthest_B = canvas.place_BL.masked_fill(~reached_BL, -1).amax(1) + 1 - memory[_START]
        estimate_B = torch.where(reached_BL.any(1), farthest_B, nearest_B).clamp(1, self.length)
        pending_B = (memory[_SLOW] < self.k_explore) & ~memory[_STABLE]
        # Nothing before the farthest position that reaches the bound could change the estimate.
        behind_BL = canvas.place_BL >= (farthest_B + memory[_START] - 1)[:, None]
        looked_at_BL = canvas.open_BL & behind_BL & pending_B[:, None]
        canvas.note(bounds=(candidates.confidence_BL - self.conf_len, looked_at_BL))
        shifted_BW = torch.cat([memory[_ESTIMATES][:, 1:], estimate_B[:, None]], 1)
        estimates_BW = torch.where(pending_B[:, None], shifted_BW, memory[_ESTIMATES])
        whole_B = pending_B & (estimates_BW >= 0).all(1)
        stable_B = whole_B & (estimates_BW.double().std(1, correction=0) < self.stab_std)
        mean_B = estimates_BW.clamp(min=0).sum(1) // (estimates_BW >= 0).sum(1).clamp(min=1)
        memory[_LENGTH] = torch.where(pending_B, torch.where(stable_B, estimate_B, mean_B), memory[_LENGTH])
        memory[_ESTIMATES], memory[_STABLE] = estimates_BW, memory[_STABLE] | stable_B
        return torch.zeros_like(canvas.held_B)


@policy("method/schedule", "slowfast")
class Exploring:
    """Set no budget, but count the exploring steps that a full block leaves over."""

    k_explore: int = 6

    def quota(self, canvas: Canvas) -> Tensor | None:
        """Return None."""
        return None

    def surplus(self, canvas: Canvas) -> Tensor:
        """Return what is left of the exploring steps, the present one made."""
        return (self.k_explore - 1 - canvas.memory[_SLOW]).clamp(min=0)


@policy("method/selector", "sure_pair")
class SurePair:
    """Close the positions that reach `high` if they are at least two, else the best one."""

    high: float = probability(0.9)

    def __post_init__(self) -> None:
        at_least(0, high=self.high)

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        """Return the pair or more; the loop adds the best one where there is none."""
        canvas.note(bounds=(candidates.confidence_BL - self.high, open_BL))
        sure_BL = open_BL & (candidates.confidence_BL >= self.high)
        return sure_BL & (sure_BL.sum(1, keepdim=True) >= 2)
