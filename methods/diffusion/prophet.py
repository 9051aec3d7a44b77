"""Prophet: commit everything once the answer is clear (arXiv:2508.19982; sampler of its published code).

LLaDA's loop with two additions. Given tokens ("the answer is") stand in the canvas from the start. And in every step
g of S the difference of the two largest logits is averaged over the answer region, decided or not; once it reaches
the threshold of the phase, every undecided position of the whole response is committed from the same prediction.
Symbol -> knob: constraints (place in the response -> token), answer_start (place; default: two behind the last
constraint, else 0), answer_length (default 5; null: to the end), gap_thresholds (early: g/S < 0.33, mid: < 0.67,
late; default 7.5, 5, 2.5), S -> steps, block_length (default 32).
Deviations from the authors' code: answer_length is heard (5 is fixed there); the region ends with the response.
Steps that close nothing, because constraints left a block fewer masks than steps, cost no call, but they are steps:
the decoder may stop at one of them, as it does there. They run before the next block's first step, on its prediction.
Where nothing is left to decide they are only counted; `idle_calls` has them look at the response, to compare the step.
Invariants: unreachable thresholds equal LLaDA with the same constraints, but that a block which is given whole has its
steps here, too; thresholds of -inf mean one call.
"""

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.needs import Needs
from harness.engine.shared.generation import GIVEN, DecodeError
from harness.engine.shared.largest import two_largest
from harness.engine.shared.model import LanguageModel
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Candidates, Prediction, ScoreDtype
from harness.errors import FieldError, at_least
from methods.diffusion.llada import Split

_EARLY, _MID = 0.33, 0.67


@policy("method/preparation", "constraints")
class Constraints:
    """Give tokens at places of the response, counted from its start; no step touches them."""

    constraints: dict[int, int] | None = None

    def __post_init__(self) -> None:
        for place in self.constraints or {}:
            if place < 0:
                raise FieldError("constraints", place, "name places from 0 on")

    def __call__(self, model: LanguageModel, canvas: Canvas) -> None:
        """Write them; raise DecodeError for a place or a token that does not exist."""
        for place, token in (self.constraints or {}).items():
            given_BL = canvas.response_BL & (canvas.place_BL == place)
            if not bool(given_BL.any(1).all()):
                raise DecodeError(f"constraints: the response has no place {place}")
            if not 0 <= token < model.spec.vocab_size or token == model.spec.mask_id:
                raise DecodeError(f"constraints: {token} at place {place} is no token of model {model.spec.name}")
            canvas.tokens_BL = canvas.tokens_BL.masked_fill(given_BL, token)
            canvas.undecided_BL = canvas.undecided_BL & ~given_BL


@policy("method/schedule", "punctual")
class Punctual:
    """Split a block's masks over its share of `steps`; no block starts before the steps of those before it are over."""

    steps: int | None
    block_length: int
    gen_length: int

    def __post_init__(self) -> None:
        self._split()

    def _split(self) -> Split:
        length = min(self.block_length, self.gen_length)
        return Split(steps=self.steps, block_length=length, gen_length=self.gen_length)

    def quota(self, canvas: Canvas) -> Tensor:
        """Return the share of the present step, 0 while earlier blocks have steps left."""
        share = self._split().steps_per_block
        first_B = torch.where(canvas.window_BL, canvas.place_BL, self.gen_length).amin(1)
        step_B = canvas.clock_B - share * (first_B // self.block_length)
        quota_B = canvas.window_masks_B // share + (step_B < canvas.window_masks_B % share)
        quota_B = torch.where(step_B < share, quota_B, quota_B.clamp(min=1))
        # What holds a complete response has to end: its last step is no idle one.
        last_B = canvas.held_B & (canvas.clock_B >= (self.steps or self.gen_length) - 1)
        return quota_B.masked_fill(step_B < 0, 0).masked_fill(last_B, 1)

    def surplus(self, canvas: Canvas) -> Tensor:
        """Return the steps that are left once nothing is undecided."""
        left_B = ((self.steps or self.gen_length) - canvas.clock_B).clamp(min=0)
        return left_B.masked_fill(canvas.undecided_BL.any(1), 0)


@policy("method/reviser", "run_out")
class RunOut:
    """With `enabled`, hold a complete response while steps are left, so that the stopper may stop in one of them."""

    steps: int | None
    gen_length: int
    enabled: bool = False

    def __call__(self, canvas: Canvas, prediction: Prediction, candidates: Candidates, commit_BL: Tensor) -> None:
        """Hold; all of the steps share one evaluation."""
        if self.enabled:
            left_B = canvas.clock_B < (self.steps or self.gen_length) - 1
            canvas.held_B = left_B & (canvas.stopped_at_B == GIVEN) & ~canvas.undecided_BL.any(1)


@policy("method/stopper", "watch")
class Watch:
    """Never stop, but have the whole response predicted in every step: for observers of when answers emerge."""

    needs = Needs(positions=lambda canvas: canvas.response_BL)

    def __call__(self, prediction: Prediction, candidates: Candidates, canvas: Canvas) -> Tensor:
        """Return False for every row."""
        return torch.zeros_like(canvas.held_B)


@policy("method/stopper", "answer_gap")
class AnswerGap:
    """Stop once the mean logit gap of the answer region reaches the threshold of the phase."""

    steps: int | None
    gen_length: int
    constraints: dict[int, int] | None = None
    answer_start: int | None = None
    answer_length: int | None = 5
    gap_thresholds: tuple[float, ...] = (7.5, 5.0, 2.5)
    score_dtype: ScoreDtype = ScoreDtype.float32

    def __post_init__(self) -> None:
        if len(self.gap_thresholds) != 3:
            raise FieldError("gap_thresholds", len(self.gap_thresholds), "be three (early, mid, late)")
        at_least(0, answer_start=self.answer_start)
        at_least(1, answer_length=self.answer_length)

    def answer(self, canvas: Canvas) -> Tensor:
        """Return the answer region [B, L]; without a position in it nothing ever stops."""
        start = self.answer_start
        if start is None:
            start = max(self.constraints) + 2 if self.constraints else 0
        length = self.answer_length

        def make(response_BL: Tensor, place_BL: Tensor) -> Tensor:
            behind_BL = response_BL & (place_BL >= start)
            return behind_BL if length is None else behind_BL & (place_BL < start + length)

        return canvas.once((AnswerGap, start, length), (canvas.response_BL, canvas.place_BL), make)

    @property
    def needs(self) -> Needs:
        """What `reads` returns."""
        return Needs(positions=self.reads)

    def reads(self, canvas: Canvas) -> Tensor:
        """Read the region, and whatever may have to be committed."""
        return self.answer(canvas) | canvas.undecided_BL

    def threshold(self, step_B: Tensor) -> Tensor:
        """Return the threshold [B] at steps counted from 1."""
        early, mid, late = self.gap_thresholds
        progress_B = step_B.double() / (self.steps or self.gen_length)
        late_B = torch.full_like(progress_B, late)
        return late_B.masked_fill(progress_B < _MID, mid).masked_fill(progress_B < _EARLY, early)

    def __call__(self, prediction: Prediction, candidates: Candidates, canvas: Canvas) -> Tensor:
        """Return which rows are clear."""
        answer_BL = self.answer(canvas)
        best_N2 = two_largest(self.score_dtype.cast(prediction.logits_NV))
        gap_BL = torch.where(answer_BL, prediction.scatter(best_N2[:, 0] - best_N2[:, 1], 0), 0)
        count_B = answer_BL.sum(1)
        mean_B = gap_BL.double().sum(1) / count_B.clamp(min=1)
        threshold_B = self.threshold(canvas.clock_B + 1)
        canvas.note_choice((mean_B - threshold_B).abs().nan_to_num(torch.inf).masked_fill(count_B == 0, torch.inf))
        return (count_B > 0) & (mean_B >= threshold_B)
