"""What the loop guards: every row ends, alone, whatever its policies do; faults of the model end the run."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine.diffusion import loop as diffusion
from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.loop import decode
from harness.engine.diffusion.method import DiffusionMethod, Unscheduled
from harness.engine.diffusion.needs import Gives
from harness.engine.shared.generation import DecodeError, Generation
from harness.engine.shared.model import ForwardRequest, ModelKind, ModelSpec
from harness.engine.shared.prediction import Candidates, Prediction
from harness.engine.shared.records import Ledger
from methods.diffusion.blocks import Blocks
from methods.diffusion.freedave import FreeDave
from methods.diffusion.llada import Confidence, Split, Top
from methods.diffusion.lopa import LookAhead

MASK, SICK, LENGTH = 9, 8, 4
PLAIN = DiffusionMethod(window=Blocks(length=LENGTH), scorer=Confidence(), selector=Top())


SPEC = ModelSpec(
    name="scripted", kind=ModelKind.MASKED_DIFFUSION, vocab_size=10, mask_id=MASK, pad_id=0, stop_ids=(), max_length=32,
    layers=1,
)  # fmt: skip


class Scripted:
    """A model that predicts, everywhere, the token of the prompt; a row that begins with `SICK` gets no numbers."""

    spec = SPEC
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.calls = 0

    def new_store(self, rows: int, slots: int) -> Any:
        """Nothing is stored."""
        raise AssertionError("no cache was asked for")

    def forward(self, request: ForwardRequest) -> Tensor:
        """Return logits in which the row's first token leads, more so further left."""
        self.calls, tokens_BT = self.calls + 1, request.tokens_BT
        rows, width = tokens_BT.shape
        place_BT = torch.arange(width).expand(rows, -1)
        logits_BTV = (
            torch.nn.functional.one_hot(tokens_BT[:, :1].expand(-1, width), 10) * (4 - 0.1 * place_BT)[..., None]
        )
        return request.selected(logits_BTV.masked_fill((tokens_BT[:, :1] == SICK)[..., None], torch.nan))


@dataclass(frozen=True)
class Undo:
    """Takes back, in rows whose prompt is `token`, everything behind the first `keep` places."""

    token: int
    keep: int = 0

    def __call__(self, canvas: Canvas, prediction: Prediction, candidates: Candidates, commit_BL: Tensor) -> None:
        """Open them again."""
        canvas.remask((canvas.place_BL >= self.keep) & (canvas.tokens_BL[:, :1] == self.token))


@dataclass(frozen=True)
class Hold:
    """Never lets a complete row go whose prompt is `token`."""

    token: int

    def __call__(self, canvas: Canvas, prediction: Prediction, candidates: Candidates, commit_BL: Tensor) -> None:
        """Ask for one more evaluation."""
        canvas.held_B = ~canvas.undecided_BL.any(1) & (canvas.tokens_BL[:, 0] == self.token)


@dataclass(frozen=True)
class Grow:
    """Appends a mask after every step to rows whose prompt is `token`, up to `most` positions."""

    token: int
    most: int

    def __call__(self, canvas: Canvas, complete_B: Tensor) -> None:
        """Grow, and take back what was decided."""
        grows_B = canvas.tokens_BL[:, 0] == self.token
        canvas.remask(canvas.response_BL & grows_B[:, None])
        canvas.resize(torch.where(grows_B, (canvas.length_B + 1).clamp(max=self.most), canvas.length_B))


@dataclass(frozen=True)
class Sleep(Unscheduled):
    """Closes nothing, ever, in rows whose prompt is `token`, and claims to have `left` steps."""

    token: int
    left: int = 0

    def quota(self, canvas: Canvas) -> Tensor:
        """Return 0 or 1."""
        return (canvas.tokens_BL[:, 0] != self.token).long()

    def surplus(self, canvas: Canvas) -> Tensor:
        """Return the same number as ever."""
        return torch.full_like(canvas.clock_B, self.left)


class Nothing:
    """Chooses nothing."""

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        """Return no position."""
        return torch.zeros_like(open_BL)


def made(method: DiffusionMethod, *prompts: int, model: Scripted | None = None) -> list[Generation]:
    """Decode prompts of one token each."""
    rows = [[token] for token in prompts]
    canvas = Canvas.from_prompts(rows, gen_length=LENGTH, mask_id=MASK, pad_id=0, seeds=range(len(rows)))
    return decode(model or Scripted(), method, canvas, Ledger())


OSCILLATING = {
    "a reviser": replace(PLAIN, reviser=Undo(7)),
    "a reviser under drafts": replace(PLAIN, reviser=Undo(7, keep=2), verifier=FreeDave()),
    "a reviser under subset drafts": replace(PLAIN, reviser=Undo(7), verifier=FreeDave(threshold=0.5)),
    "a reviser under branches": replace(PLAIN, reviser=Undo(7, keep=1), verifier=LookAhead()),
    "a growing canvas": replace(PLAIN, finish=Grow(7, most=9)),
    "a held row": replace(PLAIN, reviser=Hold(7)),
    "an idle schedule": replace(PLAIN, schedule=Sleep(7)),
    "an idle schedule with steps left": replace(PLAIN, schedule=Sleep(7, left=30)),
    "an idle schedule under drafts": replace(PLAIN, schedule=Sleep(7), verifier=FreeDave()),
}


@pytest.mark.parametrize("name", OSCILLATING)
def test_a_row_without_end_ends_alone(name: str, monkeypatch: pytest.MonkeyPatch):
    """Guards a batch against the one row that never finishes, wherever it stands and whatever keeps it going."""
    monkeypatch.setattr(diffusion, "IDLE_STEPS", 20)
    method = OSCILLATING[name]
    others = made(method, 1, 2, 3)
    assert not any(one.out_of_budget for one in others)
    first, endless, *rest = made(method, 1, 7, 2, 3)
    assert endless.out_of_budget
    assert [first, *(replace(one, sample=one.sample - 1) for one in rest)] == others
    assert [one.tokens for one in others] == [(token,) * LENGTH for token in (1, 2, 3)]


def test_what_a_row_without_end_leaves():
    """Guards the answer of such a row: masks and -2 where nothing was decided, and nothing behind the first of them."""
    (one,) = made(replace(PLAIN, reviser=Undo(7, keep=2)), 7)
    assert one.tokens == (7, 7, MASK, MASK)
    assert one.decided_at == (0, 1, -2, -2)
    assert one.answer == (7, 7)
    (none,) = made(replace(PLAIN, reviser=Undo(7)), 7)
    assert (none.answer, none.first_call) == ((), -1)


def test_the_budget_is_four_calls_per_position():
    """Guards the number of calls of a row that ends so, and rows that need every one of them."""
    model = Scripted()
    made(replace(PLAIN, reviser=Undo(7)), 7, model=model)
    assert model.calls == diffusion.CALLS_PER_POSITION * LENGTH
    model = Scripted()
    (held,) = made(replace(PLAIN, reviser=Hold(7)), 7, model=model)
    assert model.calls == LENGTH + diffusion.HELD_CALLS_PER_POSITION * LENGTH
    assert held.answer == (7,) * LENGTH


@dataclass(frozen=True)
class Late:
    """Takes everything back until the row's last call, and cuts the row to one place before that."""

    cut_at: int | None = None

    def __call__(self, canvas: Canvas, prediction: Prediction, candidates: Candidates, commit_BL: Tensor) -> None:
        """Open everything again before the last call."""
        canvas.remask(canvas.response_BL & (canvas.calls_B < diffusion.CALLS_PER_POSITION * LENGTH)[:, None])
        if self.cut_at is not None:
            canvas.resize(torch.where(canvas.calls_B >= self.cut_at, canvas.prompt_length_B + 1, canvas.length_B))


def test_the_last_call_may_finish_a_row():
    """Guards a row that comes to its end with its last call, and one that has become shorter than its calls allow."""
    (one,) = made(replace(PLAIN, reviser=Late(), selector=_Everything()), 7)
    assert not one.out_of_budget and one.tokens == (7,) * LENGTH
    (cut,) = made(replace(PLAIN, reviser=Late(cut_at=10), selector=_Everything()), 7)
    assert not cut.out_of_budget and cut.tokens == (7,)


class _Everything:
    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        return open_BL


def test_many_idle_steps_of_a_schedule_are_no_fault():
    """Guards schedules with more steps than positions: they may idle as long as they say."""
    steps = 4 * (diffusion.IDLE_STEPS + 10)
    (one,) = made(replace(PLAIN, schedule=Split(steps=steps, block_length=4, gen_length=LENGTH)), 7)
    assert not one.out_of_budget and one.idle == steps - LENGTH


def test_progress_is_forced():
    """Guards a selector that never chooses: the best position closes in every step, and is counted."""
    (one,) = made(replace(PLAIN, selector=Nothing()), 7)
    assert (one.tokens, one.decided_at, one.forced) == ((7,) * LENGTH, (0, 1, 2, 3), LENGTH)


def test_nothing_is_forced_where_the_schedule_closes_nothing():
    """Guards idle steps, which cost no call and close nothing, against forced progress."""
    model = Scripted()
    schedule = Split(steps=2 * LENGTH, block_length=LENGTH, gen_length=LENGTH)
    (one,) = made(replace(PLAIN, schedule=schedule), 7, model=model)
    assert (one.idle, one.forced, model.calls) == (LENGTH, 0, LENGTH)


def test_logits_that_are_no_numbers_end_the_run_and_name_the_row():
    """Guards against answers of a broken model, and for whoever looks for the sample that breaks it."""
    with pytest.raises(DecodeError, match=r"scripted returned logits that are not numbers \(NaN\)") as caught:
        made(PLAIN, 1, 2, SICK)
    assert caught.value.sample == 2


@dataclass(frozen=True)
class Short:
    """Cuts a row behind its first `most` positions once these are decided, and waits for the end of its window else."""

    gives = Gives(waits=True)

    most: int

    def __call__(self, canvas: Canvas, complete_B: Tensor) -> None:
        """Cut rows."""
        ends_B = canvas.committed_BL.sum(1) >= self.most
        canvas.resize(torch.where(ends_B, canvas.prompt_length_B + self.most, canvas.length_B))


@dataclass(frozen=True)
class ShortAtOnce:
    """The same, which says when it cuts."""

    gives = Gives(waits=True)

    most: int

    def __call__(self, canvas: Canvas, complete_B: Tensor) -> None:
        """Cut rows."""
        Short(self.most)(canvas, complete_B)

    def due(self, canvas: Canvas) -> Tensor:
        """Return the rows to be cut."""
        return canvas.committed_BL.sum(1) >= self.most


def test_a_part_that_waits_is_called_when_it_is_due():
    """Guards ends in the middle of a window, and parts that wait against being called in every step."""
    for finish, calls in ((Short(2), LENGTH), (ShortAtOnce(2), 2)):
        model = Scripted()
        (one,) = made(replace(PLAIN, finish=finish), 1, model=model)
        assert (one.tokens, model.calls) == ((1, 1), calls)
