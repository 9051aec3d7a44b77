"""dKV-Cache: keep keys and values of a token one step after it was decided.

Paper: arXiv:2505.15781, section 3.

Let i be the calls since the row's window opened. A full call computes all positions; the other calls compute the masks,
and the tokens that the last step decided, for the first time as themselves.

| cache | full calls | what the other calls compute |
|---|---|---|
| dkv_decode | i <= 1, or i % R == 0 | masks, and what the last step decided |
| dkv_pd | the same, of the response alone; the prompt is computed once | as dkv_decode |
| dkv_prefill | none: the prompt is computed once | the whole response |
| dkv_greedy | i % R == 0 | what is decided next, w masks near each of that, and what the last step decided |

| symbol | argument | default |
|---|---|---|
| refresh interval | R | 8 (the authors: 8 for LLaDA, 4 for Dream); dkv_greedy 2 |
| window | w (dkv_greedy) | 4 |
| | shift_type (dkv_decode, dkv_pd) | un_right, as for Dream |

On shifted models the first three compute the prompt's last position, from which the first token is predicted, in every
call. What else they keep there follows from `shift_type`; other models know `right` alone.

| shift_type | a position is kept once decided is |
|---|---|
| un | the token behind it, which it predicts |
| right | its own token |
| un_right | both |

`dkv_greedy` draws beforehand what is decided next, and so supports a random order alone. Its w masks are those that are
not chosen yet, for each chosen position from left to right: the nearest on its left and on its right in turn, without
decided positions, and further ones of one side where the other has no more.
Use: `method/cache=dkv_decode method.cache.R=4`.
Deviations from the authors' code: a position is kept as long as its token is the one it was computed with, so that
re-masked and edited tokens are computed again (with `un`, that is its successor's token, and its own grows stale); rows
are ragged and not topped up; the positions that read ones are predicted from are always computed, which `right` would
miss; the last position, which has nothing behind it, is kept as with `right`. `dkv_greedy`'s calls count from the row's
window; there is no published form of it for shifted models.
Invariants: R = 1 equals no cache (`dkv_decode`, `dkv_greedy`), or `dkv_prefill` (`dkv_pd`).
"""

from enum import Enum

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.evaluation import EvaluationRequest
from harness.engine.diffusion.needs import Gives, Leaves, Needs
from harness.engine.diffusion.reuse import compute, kept, recall
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import top
from harness.errors import at_least
from methods.diffusion.llada import random_order

_NEXT, _SEEN = "dkv_greedy.next_BL", "dkv.seen_BL"


class ShiftType(Enum):
    """What has to be decided for a position of a shifted model to be kept: what it predicts, itself, or both."""

    un = "un"
    right = "right"
    un_right = "un_right"


@policy("method/cache", "dkv_decode")
class DelayedCache:
    """Keep decided tokens, the prompt included; compute everything every `R` calls of a window."""

    R: int = 8
    shift_type: ShiftType = ShiftType.un_right

    def __post_init__(self) -> None:
        _check_interval(self.R)

    def evaluate(self, request: EvaluationRequest) -> Tensor:
        """Return aligned logits of the read positions."""
        canvas = request.canvas
        full_BL = _full_B(canvas, self.R)[:, None] & canvas.whole_BL
        return _evaluate(request, full_BL, self.shift_type)


@policy("method/cache", "dkv_pd")
class DelayedCacheBehindPrompt:
    """Compute the prompt once; keep decided tokens, and compute the response every `R` calls of a window."""

    R: int = 8
    shift_type: ShiftType = ShiftType.un_right

    def __post_init__(self) -> None:
        _check_interval(self.R)

    def evaluate(self, request: EvaluationRequest) -> Tensor:
        """Return aligned logits of the read positions."""
        canvas = request.canvas
        refresh_BL = _full_B(canvas, self.R)[:, None] & canvas.response_BL
        return _evaluate(request, refresh_BL, self.shift_type)


@policy("method/cache", "dkv_prefill")
class PromptCache:
    """Compute the prompt once and the response in every call."""

    def evaluate(self, request: EvaluationRequest) -> Tensor:
        """Return aligned logits of the read positions."""
        canvas = request.canvas
        return _evaluate(request, canvas.response_BL, ShiftType.right)


@policy("method/cache", "dkv_greedy")
class GreedyDelayedCache:
    """Compute what is decided next in random order, what the last step decided, and near masks; all every `R` calls."""

    gives = Gives(leaves=Leaves.open)
    needs = Needs(known_order=True)

    R: int = 2
    w: int = 4

    def __post_init__(self) -> None:
        _check_interval(self.R)
        at_least(0, w=self.w)

    def narrow(self, canvas: Canvas, read_BL: Tensor, quota_B: Tensor | None) -> Tensor:
        """Return the positions of which the scorer's draws are the largest: as many as the step will close."""
        assert quota_B is not None, "`fit` asks for a schedule"
        next_BL = top(random_order(canvas), canvas.open_BL, quota_B.clamp(min=1))
        canvas.memory[_NEXT] = next_BL
        return read_BL & next_BL

    def evaluate(self, request: EvaluationRequest) -> Tensor:
        """Return aligned logits of the read positions, which `narrow` has chosen."""
        canvas = request.canvas
        past, next_BL = recall(canvas), canvas.memory[_NEXT]
        full_B = past.calls_B % self.R == 0
        query_BL = with_neighbours(next_BL, canvas.undecided_BL, self.w)
        query_BL = query_BL | past.changed_BL(canvas) | full_B[:, None]
        return compute(request, query_BL, past)


def _check_interval(interval: int) -> None:
    at_least(1, R=interval)


def _full_B(canvas: Canvas, interval: int) -> Tensor:
    calls_B = recall(canvas).calls_B
    return (calls_B <= 1) | (calls_B % interval == 0)


def with_neighbours(target_BL: Tensor, open_BL: Tensor, count: int) -> Tensor:
    """Return the targets, and for each of them, the first one first, the `count` nearest open positions not yet chosen.

    Sides alternate, the left one first; where one has no more, the other goes on.
    """
    chosen_BL, number_BL = target_BL, target_BL.cumsum(1)
    for number in range(1, int(number_BL.max()) + 1 if count else 1):
        free_BL = open_BL & ~chosen_BL
        before_BL = number_BL < number
        present_B1 = number_BL[:, -1:] >= number
        on_left_BL, on_right_BL = free_BL & before_BL, free_BL & ~before_BL
        left_BL = on_left_BL.flip(1).cumsum(1).flip(1) * 2 - 1
        order_BL = torch.where(before_BL, left_BL, on_right_BL.cumsum(1) * 2)
        chosen_BL = chosen_BL | top(-order_BL.double(), free_BL & present_B1, torch.full_like(number_BL[:, -1], count))
    return chosen_BL


def _evaluate(
    request: EvaluationRequest,
    refresh_BL: Tensor,
    shift_type: ShiftType,
) -> Tensor:
    """Compute what is not kept, and `refresh_BL`."""
    canvas, model = request.canvas, request.model
    past = recall(canvas)
    if not model.spec.shift:
        query_BL = canvas.undecided_BL | past.changed_BL(canvas)
    else:
        seen_BL = kept(canvas, _SEEN, torch.zeros_like(canvas.tokens_BL)) - 1
        canvas.memory[_SEEN] = canvas.tokens_BL + 1
        unsure_BL = canvas.undecided_BL | (seen_BL != canvas.tokens_BL)
        never_BL = (past.stored_BL == 0) & canvas.whole_BL
        query_BL = _not_kept(unsure_BL, canvas, shift_type) | never_BL | (canvas.place_BL == -1)
    return compute(request, query_BL | refresh_BL, past)


def _not_kept(unsure_BL: Tensor, canvas: Canvas, shift_type: ShiftType) -> Tensor:
    """Return the positions of which a shifted model keeps nothing, given those whose tokens were not decided before."""
    if shift_type is ShiftType.right:
        return unsure_BL
    behind_BL = torch.nn.functional.pad(unsure_BL[:, 1:], (0, 1))
    last_BL = canvas.position_L == canvas.length_B[:, None] - 1
    return behind_BL | (unsure_BL & (last_BL | (shift_type is ShiftType.un_right)))
