"""THE masked-diffusion loop: select, commit, evaluate.

One function serves plain samplers, early commit, drafts and caches; a method is a choice of policies. Shapes: B
rows, L positions, N read positions, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from harness.engine.canvas import GIVEN, UNDECIDED, Canvas
from harness.engine.generation import DecodeError, Generation, known_margin
from harness.engine.margins import across
from harness.engine.method import DiffusionMethod
from harness.engine.model import AttentionMean, LanguageModel
from harness.engine.policies import Narrowing
from harness.engine.prediction import Candidates, Prediction, top
from harness.engine.records import Ledger

CALLS_PER_POSITION = 4
HELD_CALLS_PER_POSITION = 64
IDLE_STEPS = 1024
"""What a row may spend: calls that let it commit, calls made only because a policy holds it, and steps that close
nothing on one prediction, beyond those that the schedule has left."""


class Observer(Protocol):
    """Sees every step; must not change what it sees."""

    def __call__(self, before: Canvas, candidates: Candidates, after: Canvas) -> None:
        """Record one step of all rows: `after` is `before` with the step's commits."""
        ...


def decode(
    model: LanguageModel,
    method: DiffusionMethod,
    canvas: Canvas,
    ledger: Ledger,
    observers: Sequence[Observer] = (),
    on_progress: Callable[[int, int], None] = lambda finished, calls: None,
) -> list[Generation]:
    """Decode every row of `canvas` and return the generations ordered by sample.

    Rows are independent: each has its own window and clock, and leaves the batch when nothing is undecided, or out of
    budget: after `CALLS_PER_POSITION` calls for each position that its response has had at most, of those for which a
    policy held it `HELD_CALLS_PER_POSITION`. `on_progress` is told after each step how many rows are finished and how
    many calls have had their effect. Raises DecodeError for logits that are not numbers.
    """
    canvas = canvas.copy()
    method.preparation(model, canvas)
    method.window.update(canvas)
    results: list[Generation] = []
    canvas = _retire(canvas, results)

    def step(before: Canvas, prediction: Prediction) -> Canvas:
        return take_step(method, before, prediction)

    def observe(before: Canvas, said: Prediction | Candidates, after: Canvas) -> None:
        if observers:
            if isinstance(said, Prediction):
                prediction = _asked(method, before, said)
                said = replace(method.scorer(prediction, before.copy()), entropy_BL=prediction.entropy())
            for observer in observers:
                observer(before, said, after)

    prediction = evaluate(model, method, canvas, ledger) if canvas.num_rows else None
    calls = 1
    while prediction is not None:
        canvas.given_up_B = canvas.given_up_B | _out_of_budget(canvas)
        stepped = take_step(method, canvas, prediction, observers)
        live_B = stepped.live_B
        if not bool(live_B.all()):
            keep = live_B.nonzero().squeeze(1)
            _collect(stepped, ~live_B, results)
            canvas, prediction, stepped = canvas.rows(keep), prediction.rows(keep), stepped.rows(keep)
        on_progress(len(results), calls)
        if not stepped.num_rows:
            break
        drafts = method.verifier.propose(canvas, prediction, stepped, step)
        prediction = evaluate(model, method, drafts, ledger)
        calls += 1
        canvas, prediction = method.verifier.accept(drafts, prediction, step, observe)
    return sorted(results, key=lambda generation: generation.sample)


def _out_of_budget(canvas: Canvas) -> Tensor:
    """Return the rows whose next step is their last, finished or not."""
    positions_B = canvas.longest_B - canvas.prompt_length_B
    spent_B = canvas.calls_B - canvas.held_calls_B
    return (spent_B >= CALLS_PER_POSITION * positions_B) | (
        canvas.held_calls_B >= HELD_CALLS_PER_POSITION * positions_B
    )


def evaluate(model: LanguageModel, method: DiffusionMethod, canvas: Canvas, ledger: Ledger) -> Prediction:
    """Return the prediction for the positions of `canvas` that some policy reads; one model call."""
    read_BL, ahead_B = _reads(method, canvas), method.verifier.ahead(canvas)
    if ahead_B is not None:
        read_BL = read_BL | _windows_ahead(method, canvas, ahead_B)
    if isinstance(method.cache, Narrowing):
        read_BL = method.cache.narrow(canvas, read_BL, method.schedule.quota(canvas))
    shown = method.guidance.widen(canvas)
    row_N, position_N = read_BL.repeat(method.guidance.copies, 1).nonzero(as_tuple=True)
    attention = AttentionMean() if method.reads_attention else None
    logits_NV = method.guidance.combine(method.cache.evaluate(ledger, model, shown, row_N, position_N, attention))
    if bool(logits_NV.isnan().any()):
        row = int(row_N[logits_NV.isnan().any(-1).nonzero()[0, 0]]) % canvas.num_rows
        raise DecodeError(
            f"model {model.spec.name} returned logits that are not numbers (NaN)", sample=int(canvas.sample_B[row])
        )
    own = len(logits_NV)
    if model.spec.mask_id is not None:
        logits_NV[:, model.spec.mask_id] = -torch.inf
    canvas.calls_B = canvas.calls_B + 1
    canvas.held_calls_B = canvas.held_calls_B + canvas.held_B
    return Prediction(
        logits_NV=logits_NV,
        row_N=row_N[:own],
        position_N=position_N[:own],
        shape=(canvas.num_rows, canvas.tokens_BL.shape[1]),
        spec=model.spec,
        attention_BLL=attention.mean_BTS()[: canvas.num_rows] if attention else None,
    )


def _reads(method: DiffusionMethod, canvas: Canvas) -> Tensor:
    """Return the positions that the policies read of a prediction of this canvas."""
    read_BL = canvas.open_BL
    for reader in method.readers:
        read_BL = read_BL | reader.reads(canvas)
    return read_BL


def _asked(method: DiffusionMethod, canvas: Canvas, prediction: Prediction) -> Prediction:
    """Return what the policies would have been told of this canvas, had no verifier asked for more."""
    prediction = prediction.widened(canvas.tokens_BL.shape[1])
    return prediction if method.verifier.ahead(canvas) is None else prediction.only(_reads(method, canvas))


def _windows_ahead(method: DiffusionMethod, canvas: Canvas, count_B: Tensor) -> Tensor:
    """Return the undecided positions of the next windows of each row, of as many as hold `count_B` of them."""
    ahead, found_BL = canvas.copy(), torch.zeros_like(canvas.undecided_BL)
    while True:
        ahead.undecided_BL = ahead.undecided_BL & ~ahead.window_BL
        method.window.update(ahead)
        next_BL = ahead.open_BL & (found_BL.sum(1) < count_B)[:, None]
        if not bool(next_BL.any()):
            return found_BL
        found_BL = found_BL | next_BL


def take_step(
    method: DiffusionMethod, canvas: Canvas, prediction: Prediction, observers: Sequence[Observer] = ()
) -> Canvas:
    """Return the next canvas: commit, revise, finish, and open new windows.

    Steps that close nothing by their schedule need no new evaluation: the clock moves on, the step is counted as
    idle, and the row steps again on the same prediction, until it does so endlessly and is given up. Rows that have
    made their step are not touched by that, nor are those that a policy wants evaluated again before they commit.
    """
    after, idled = canvas.copy(), 0
    after.begin_step()
    prediction = _asked(method, canvas, prediction)
    candidates = method.scorer(prediction, after)
    after, pending_B = _foresee(method, after, prediction, candidates)
    width = after.tokens_BL.shape[1]
    prediction, candidates = prediction.widened(width), candidates.widened(width)
    others = after.copy()
    while bool(pending_B.any()):
        before = after.copy()
        commit_BL, idle_B = _choose(method, candidates, after, prediction, pending_B)
        after.commit(commit_BL, candidates.tokens_BL)
        method.reviser(after, prediction, candidates, commit_BL)
        after.tick(pending_B)
        after.idle_B = after.idle_B + idle_B
        after = _close_windows(method, after, pending_B & ~idle_B)
        if not bool(pending_B.all()):
            after = after.where(pending_B, others)
        if observers:
            shown = replace(candidates, entropy_BL=prediction.entropy())
            for observer in observers:
                observer(before, shown, after)
        idled += 1
        if idled > IDLE_STEPS:
            endless_B = idle_B & (idled > IDLE_STEPS + method.schedule.surplus(canvas))
            after.given_up_B, idle_B = after.given_up_B | endless_B, idle_B & ~endless_B
        pending_B, others = idle_B, after.copy()
        if bool(pending_B.any()):
            after.begin_step()
            prediction = prediction.widened(after.tokens_BL.shape[1])
            candidates = method.scorer(prediction, after)
    return after


def _foresee(
    method: DiffusionMethod, canvas: Canvas, prediction: Prediction, candidates: Candidates
) -> tuple[Canvas, Tensor]:
    """Return the canvas as policies change it before a commit, and the rows that need no further evaluation first."""
    again_B = torch.zeros_like(canvas.held_B)
    for part in method.foreseers:
        before, width = canvas.copy(), canvas.tokens_BL.shape[1]
        asks_B = part.foresee(canvas, prediction.widened(width), candidates.widened(width))
        if bool(again_B.any()):
            # Rows that are evaluated again show the other parts that prediction; this one must leave no trace in them.
            canvas = canvas.where(~again_B, before)
        again_B = again_B | asks_B
    if bool(again_B.any()):
        others = canvas.copy()
        method.window.update(canvas)
        canvas = canvas.where(again_B, others)
    return canvas, ~again_B


def _choose(
    method: DiffusionMethod, candidates: Candidates, canvas: Canvas, prediction: Prediction, pending_B: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the positions to commit and the rows whose schedule closes none; a stalled row is forced."""
    open_BL = canvas.open_BL & prediction.read_BL & pending_B[:, None]
    quota_B, noted_B = method.schedule.quota(canvas), canvas.step_choice_margin_B
    commit_BL = method.selector(candidates, open_BL, quota_B, canvas) & open_BL
    # Tensors are replaced, never changed: this one is the same if the selector has noted nothing.
    by_score = canvas.step_choice_margin_B is noted_B
    empty_B = pending_B & ~commit_BL.any(1)
    idle_B = torch.zeros_like(empty_B) if quota_B is None else empty_B & (quota_B == 0)
    forced_B = empty_B & ~idle_B & open_BL.any(1)
    commit_BL = commit_BL | top(candidates.score_BL, open_BL, forced_B.long())
    canvas.forced_B = canvas.forced_B + forced_B
    gap_B = across(candidates.score_BL, commit_BL, open_BL)
    canvas.note_choice(gap_B if by_score else gap_B.masked_fill(~forced_B, torch.inf))
    stop_B = method.stopper(prediction, candidates, canvas) & pending_B
    canvas.stopped_at_B = torch.where(stop_B, canvas.clock_B, canvas.stopped_at_B)
    commit_BL = commit_BL | (canvas.undecided_BL & stop_B[:, None])
    canvas.note_tokens(_token_gap(candidates, prediction).masked_fill(~commit_BL, torch.inf).amin(1))
    return commit_BL, idle_B & ~stop_B


def _token_gap(candidates: Candidates, prediction: Prediction) -> Tensor:
    if candidates.token_gap_BL is not None:
        return candidates.token_gap_BL
    return prediction.token_gap(prediction.gather(candidates.tokens_BL))


def _close_windows(method: DiffusionMethod, canvas: Canvas, moved_B: Tensor) -> Canvas:
    complete_B = moved_B & ~canvas.open_BL.any(1) & ~canvas.held_B
    surplus_B = method.schedule.surplus(canvas) * (complete_B & (canvas.stopped_at_B == GIVEN))
    canvas.idle_B = canvas.idle_B + surplus_B
    canvas.tick(complete_B, surplus_B)
    held = canvas.copy()
    method.finish(canvas, complete_B)
    method.window.update(canvas)
    return canvas.where(~canvas.held_B, held) if bool(canvas.held_B.any()) else canvas


def _collect(canvas: Canvas, finished_B: Tensor, results: list[Generation]) -> None:
    done = canvas.rows(finished_B.nonzero().squeeze(1))
    tokens_BL = done.tokens_BL.masked_fill(done.undecided_BL, done.mask_id)
    decided_at_BL = done.decided_at_BL.masked_fill(done.undecided_BL, UNDECIDED)
    first_call_B = done.first_call_B.masked_fill(done.first_undecided_B == 0, GIVEN)
    for row in range(done.num_rows):
        response = slice(int(done.prompt_length_B[row]), int(done.length_B[row]))
        results.append(
            Generation(
                sample=int(done.sample_B[row]),
                tokens=tuple(tokens_BL[row, response].tolist()),
                decided_at=tuple(decided_at_BL[row, response].tolist()),
                idle=int(done.idle_B[row]),
                forced=int(done.forced_B[row]),
                remasked=int(done.remasked_B[row]),
                tokens_generated=int(done.generated_B[row]),
                first_call=int(first_call_B[row]),
                stopped_at=int(done.stopped_at_B[row]),
                out_of_budget=bool(done.unfinished_B[row]),
                token_margin=known_margin(float(done.token_margin_B[row])),
                choice_margin=known_margin(float(done.choice_margin_B[row])),
            )
        )


def _retire(canvas: Canvas, results: list[Generation]) -> Canvas:
    live_B = canvas.live_B
    _collect(canvas, ~live_B, results)
    return canvas.rows(live_B.nonzero().squeeze(1))
