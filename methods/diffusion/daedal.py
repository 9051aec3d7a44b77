"""DAEDAL: find the length of the response while decoding it.

Paper: arXiv:2508.00819, section 3; released code: models/LLaDA_DAEDAL.py.

| symbol | argument | default |
|---|---|---|
| initial length | L0 | null: the run's gen_length |
| largest length | Lmax | 2048, and never beyond the model's context |
| block | block_length | 32 |
| tau_high, above which positions close | high | 0.9 |
| tau_low, below which they expand | low | 0.1 |
| masks per expansion | grow | 8 |
| end confidence that ends the search | eos_init | 0.5 |
| end confidence that ends growth | eos_grow | 0.9 |
| end window | W | 32 |

E is the model's first end token. End confidence: of the last W positions those whose best token is E, the sum of its
probability, over W even if they are fewer. Stage 1 appends `grow` masks per call until it reaches eos_init, then W // 2
tokens E. In stage 2 every step closes sure positions of the block; while the end confidence is below eos_grow, the
least confident open position that stays open, if below `low`, becomes `grow` masks: what lies behind moves, and what no
longer fits is cut off.

`method/finish=canvas_growth` lets other decoders grow, whatever their scores are. Windows that are opened once grow
with their canvas; those of absolute blocks, and those that are worked out in every step, are counted anew. Caches
forget a row whose positions have moved (`block_causal`, `sub_block`: its blocks from the first that moved). Of
positions that a call leaves out, the last prediction counts.
Deviations from the authors' code: none that changes an answer. Calls of stage 1 are calls (nfe).
Invariants: eos_init = 0, eos_grow = 0, W = 1 is the threshold decoder, strictly above `high`.
"""

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.needs import Gives, Needs
from harness.engine.shared.largest import largest
from harness.engine.shared.model import LanguageModel
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Candidates, Prediction, ScoreDtype
from harness.errors import at_least

_SEARCHED, _LONGEST, _DOUBT, _END = (
    f"canvas_growth.{name}" for name in ("searched_B", "longest_B", "doubt_BL", "end_BL")
)
_FOUND = "canvas_growth.found_B"
"""Kept of rows once the length of all is known to be found, so that nobody asks again."""


@policy("method/preparation", "start_length")
class StartLength:
    """Start with a response of `length` masks instead of the run's (null)."""

    length: int | None = None

    def __post_init__(self) -> None:
        at_least(1, length=self.length)

    def __call__(self, model: LanguageModel, canvas: Canvas) -> None:
        """Grow or cut every row."""
        if self.length is not None:
            canvas.resize(canvas.prompt_length_B + self.length)


@policy("method/window", "leading_block")
class LeadingBlock:
    """Open the first block of `length` places that holds an undecided position, also where positions have moved."""

    gives = Gives(waits=True)

    length: int

    def __post_init__(self) -> None:
        at_least(1, length=self.length)

    def update(self, canvas: Canvas) -> None:
        """Open it, anew where it is another one than before."""
        block_BL = canvas.place_BL // self.length
        first_B = canvas.first_undecided_B // self.length
        window_BL = canvas.response_BL & (block_BL == first_B[:, None])
        before_B = torch.where(canvas.window_BL, block_BL, torch.iinfo(torch.int64).max).amin(1)
        canvas.move_window(None, window_BL)
        canvas.open_window((before_B != first_B) & canvas.undecided_BL.any(1), window_BL)


@policy("method/finish", "canvas_growth")
class CanvasGrowth:
    """Append masks until the end is in sight, then make room where the model is least sure."""

    gives = Gives(waits=True)
    # A reference answer says nothing of the positions that are added.
    needs = Needs(
        positions=lambda canvas: canvas.response_BL, every_call=False, without={"preparation": ("reference_answer",)}
    )

    Lmax: int | None = 2048
    low: float = 0.1
    grow: int = 8
    eos_init: float = 0.5
    eos_grow: float = 0.9
    W: int = 32
    score_dtype: ScoreDtype = ScoreDtype.float32

    def __post_init__(self) -> None:
        at_least(1, grow=self.grow, W=self.W)
        at_least(0, low=self.low, eos_init=self.eos_init, eos_grow=self.eos_grow)
        at_least(1, Lmax=self.Lmax)

    def before_commit(self, canvas: Canvas, prediction: Prediction, candidates: Candidates) -> Tensor | None:
        """Search the length, and have those rows evaluated again; of the others remember what is unsure."""
        p_NV, end = self.score_dtype.cast(prediction.logits_NV).softmax(-1), end_id(canvas)
        p_N, best_N = (one_N1[:, 0] for one_N1 in largest(p_NV))
        sight_B = self._end_confidence(p_NV[:, end] * (best_N == end), canvas, prediction)
        room_B = canvas.length_B < self._longest(canvas, prediction)
        grows_B, gap_B = room_B & (sight_B < self.eos_grow), sight_B - self.eos_grow
        searching_B = None if canvas.memory.complete(_FOUND) else self._searching(canvas)
        if searching_B is not None:
            grows_B, gap_B = grows_B & ~searching_B, torch.where(searching_B, sight_B - self.eos_init, gap_B)
        slack_BL = self.low - prediction.scatter(p_N, self.low)
        canvas.note_choice(gap_B.abs().double().masked_fill(~room_B, torch.inf))
        canvas.note(bounds=(slack_BL, canvas.open_BL & prediction.read_BL & grows_B[:, None]))
        canvas.memory[_DOUBT] = slack_BL.clamp(min=0) * grows_B[:, None]
        if searching_B is None:
            return None
        longer_B = searching_B & room_B & (sight_B < self.eos_init)
        canvas.memory[_SEARCHED] = ~longer_B
        if not bool(searching_B.any()):
            canvas.memory[_FOUND] = searching_B
            return None
        self._append(canvas, prediction, longer_B, searching_B & ~longer_B)
        return searching_B

    def _searching(self, canvas: Canvas) -> Tensor:
        return ~canvas.memory.get(_SEARCHED, torch.zeros_like(canvas.held_B))

    def _append(self, canvas: Canvas, prediction: Prediction, longer_B: Tensor, found_B: Tensor) -> None:
        """Append masks to the rows that search on, and end tokens to those whose length is found."""
        before_B1 = canvas.length_B[:, None]
        extra_B = longer_B * self.grow + found_B * (self.W // 2)
        canvas.resize(torch.minimum(canvas.length_B + extra_B, self._longest(canvas, prediction)))
        ends_BL = found_B[:, None] & (canvas.position_L >= before_B1) & canvas.whole_BL
        canvas.tokens_BL = canvas.tokens_BL.masked_fill(ends_BL, end_id(canvas))
        canvas.undecided_BL = canvas.undecided_BL & ~ends_BL

    def due(self, canvas: Canvas) -> Tensor:
        """Return the rows in which there is room to make."""
        return self._doubt(canvas).any(1)

    def _doubt(self, canvas: Canvas) -> Tensor:
        """Return how unsure the model was of what the step has left open; an idle step makes no room."""
        closed_BL = canvas.decided_at_BL == canvas.clock_B[:, None] - 1
        closed_BL = closed_BL & canvas.committed_BL
        return canvas.memory[_DOUBT] * (canvas.open_BL & closed_BL.any(1, keepdim=True))

    def __call__(self, canvas: Canvas, complete_B: Tensor) -> None:
        """Make room where the model was least sure."""
        doubt_BL = self._doubt(canvas)
        most_B, at_B = doubt_BL.max(1)
        if not bool(most_B.any()):
            return
        chosen_BL = (doubt_BL > 0) & (canvas.position_L == at_B[:, None])
        canvas.note(rankings=(doubt_BL, chosen_BL, doubt_BL > 0))
        longest_B = canvas.memory[_LONGEST]
        added_B = torch.minimum(torch.full_like(at_B, self.grow - 1), longest_B - 1 - at_B) * (most_B > 0)
        canvas.resize(torch.minimum(canvas.length_B, longest_B - added_B))
        canvas.insert(at_B, added_B)
        canvas.memory[_DOUBT] = canvas.memory[_DOUBT] * (most_B == 0)[:, None]

    def _longest(self, canvas: Canvas, prediction: Prediction) -> Tensor:
        """Return how many positions each row may have."""
        whole = prediction.spec.max_length

        def make(prompt_length_B: Tensor) -> Tensor:
            if self.Lmax is None:
                return torch.full_like(prompt_length_B, whole)
            return (prompt_length_B + self.Lmax).clamp(max=whole)

        longest_B = canvas.once((CanvasGrowth, self.Lmax, whole), (canvas.prompt_length_B,), make)
        canvas.memory[_LONGEST] = longest_B
        return longest_B

    def _end_confidence(self, p_N: Tensor, canvas: Canvas, prediction: Prediction) -> Tensor:
        """Return how sure the last positions are of the end, given its probability where it is the best token."""
        canvas.memory[_END] = p_BL = prediction.latest(p_N, canvas.memory.get(_END))
        ends_BL = (p_BL > 0) & canvas.response_BL
        from_end_BL = ends_BL.flip(1).cumsum(1).flip(1)
        return (p_BL * (ends_BL & (from_end_BL <= self.W))).sum(1) / self.W


def end_id(canvas: Canvas) -> int:
    """Return the token that ends an answer."""
    return canvas.stop_ids[0] if canvas.stop_ids else canvas.fill_id
