"""THE masked-diffusion loop: select, commit, evaluate.

One function serves plain samplers, early commit, drafts and caches; a method is a choice of policies. Shapes: B
rows, L positions, N read positions, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.evaluation import EvaluationRequest
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.diffusion.standing import Standing, all_open, number_of, read_counts, reads, tell_inside
from harness.engine.diffusion.steps import Steps
from harness.engine.diffusion.turnover import Arrivals, Turnover
from harness.engine.shared.generation import GIVEN, Generation
from harness.engine.shared.indexing import flags
from harness.engine.shared.model import AttentionMean, LanguageModel
from harness.engine.shared.places import Places
from harness.engine.shared.prediction import Candidates, Prediction, best
from harness.engine.shared.records import Ledger

CALLS_PER_POSITION = 4
HELD_CALLS_PER_POSITION = 64
IDLE_STEPS = 1024
"""What a row may spend: calls that let it commit, calls made only because a policy holds it, and steps that close
nothing on one prediction, beyond those that the schedule has left."""


Observer = Callable[[Canvas, Candidates, Canvas], None]
"""Sees every step of all rows: the canvas before, and with the step's commits; must not change what it sees."""


def decode(
    model: LanguageModel,
    method: DiffusionMethod,
    canvas: Canvas,
    ledger: Ledger,
    observers: Sequence[Observer] = (),
    on_progress: Callable[[int, int], None] = lambda finished, calls: None,
    on_verified: Observer | None = None,
    on_drafts: Callable[[Canvas, Canvas, Canvas], None] = lambda stepped, drafts, reached: None,
    arrivals: Arrivals = lambda rows, width: None,
    on_finished: Callable[[list[Generation]], None] = lambda made: None,
) -> list[Generation]:
    """Decode every row of `canvas`, and of all that arrive, and return the generations ordered by sample.

    Rows are independent: each has its own window and clock. It leaves the batch when everything is decided, or when its
    budget is spent: `CALLS_PER_POSITION` calls for each position of its response (at its longest), and
    `HELD_CALLS_PER_POSITION` of those that a policy held it for. Raises DecodeError for logits that are NaN.

    | callback | is told |
    |---|---|
    | `observers` | each step of the loop: the canvas before, the candidates, the canvas after |
    | `on_verified` | each step that a verifier took, in the same way (default: `observers` are) |
    | `on_drafts` | the step, the drafts that were evaluated in its place, and where they led |
    | `on_progress` | after each call: how many rows are finished, how many calls there were |
    | `on_finished` | the generations of finished rows, several at once |
    | `arrivals` | number and width of the rows that go on, when others have finished; it returns rows that begin |
    """
    turnover = Turnover(model=model, method=method, arrivals=arrivals, on_finished=on_finished, at_once=canvas.num_rows)
    begun, standing = turnover.begin(canvas)
    if (begun := begun or turnover.fresh(None)) is None:
        return turnover.results()
    canvas = begun
    room, step = _room(canvas), Steps(partial(take_step, method))
    observe = partial(_show, method, observers if on_verified is None else [on_verified])
    prediction, calls = evaluate(model, method, canvas, ledger, standing), 1
    while True:
        if calls >= room:
            canvas.given_up_B = canvas.given_up_B | _out_of_budget(canvas)
        taken = None if observers or calls >= room else step.taken(canvas, prediction)
        stepped, known = (taken, None) if taken else _advance(method, canvas, prediction, observers)
        stood = known or Standing.of(method, stepped)
        stepped, standing = turnover.part(stepped, stood)
        if method.drafts and stepped is not None and not all(stood.live):
            keep = [row for row, live in enumerate(stood.live) if live]
            canvas, prediction = replace(canvas, stores={}).rows(stood.index_of(stood.live)), prediction.rows(keep)
            canvas.stores = dict(stepped.stores)
        on_progress(turnover.finished, calls)
        fresh = turnover.fresh(stepped)
        if fresh is None and stepped is None:
            return turnover.results()
        room = room if fresh is None else min(room, calls + _room(fresh))
        stepped, drafts = _propose(method, canvas, prediction, stepped, fresh, step)
        del prediction  # two at once would be twice the memory
        prediction = evaluate(model, method, drafts, ledger, standing if drafts is stepped and fresh is None else None)
        calls += 1
        canvas = drafts
        if drafts is not fresh:
            canvas, prediction = method.verifier.accept(drafts, prediction, step, observe)
        if drafts is not stepped:
            on_drafts(stepped, drafts, canvas)


def _show(
    method: DiffusionMethod,
    observers: Sequence[Observer],
    before: Canvas,
    said: Prediction | Candidates,
    after: Canvas,
) -> None:
    """Show observers a step that a verifier took."""
    if observers and isinstance(said, Prediction):
        prediction = _asked(method, before, said)
        said = replace(method.scorer(prediction, before.copy()), entropy_BL=prediction.entropy())
    for observer in observers:
        assert isinstance(said, Candidates)
        observer(before, said, after)


def _out_of_budget(canvas: Canvas) -> Tensor:
    """Return the rows whose next step is their last, finished or not."""
    positions_B = canvas.longest_B - canvas.prompt_length_B
    spent_B = canvas.calls_B - canvas.held_calls_B
    return (spent_B >= CALLS_PER_POSITION * positions_B) | (
        canvas.held_calls_B >= HELD_CALLS_PER_POSITION * positions_B
    )


def _room(canvas: Canvas) -> int:
    """Return how many calls all rows of a canvas that begins have at least."""
    return CALLS_PER_POSITION * int((canvas.longest_B - canvas.prompt_length_B).min())


def _propose(
    method: DiffusionMethod,
    canvas: Canvas,
    prediction: Prediction,
    stepped: Canvas | None,
    fresh: Canvas | None,
    step: Callable[..., Canvas],
) -> tuple[Canvas, Canvas]:
    """Return the rows that have made their step and what is evaluated in their place, with rows that begin now behind.

    These two are one object where that is the step itself.
    """
    if stepped is None:
        assert fresh is not None, "the loop ends when nobody is left"
        return fresh, fresh
    if fresh is None:
        return stepped, method.verifier.propose(canvas, prediction, stepped, step)
    width = max(fresh.tokens_BL.shape[1], stepped.tokens_BL.shape[1])
    canvas, stepped, prediction = canvas.widened(width), stepped.widened(width), prediction.widened(width)
    drafts = method.verifier.propose(canvas, prediction, stepped, step)
    both = stepped.joined(fresh)
    return both, both if drafts is stepped else drafts.joined(fresh)


def evaluate(
    model: LanguageModel, method: DiffusionMethod, canvas: Canvas, ledger: Ledger, standing: Standing | None = None
) -> Prediction:
    """Return the prediction for the positions of `canvas` that some policy reads; one model call.

    With the canvas's `standing` the host knows their number already. For drafts that share a scorer's candidates, these
    are made here.
    """
    places = _asked_for(method, canvas, standing)
    attention = AttentionMean() if method.reads_attention else None
    shown, shown_places = method.guidance.widen(canvas), places.repeated(method.guidance.copies)
    request = EvaluationRequest(ledger=ledger, model=model, canvas=shown, places=shown_places, observe=attention)
    logits_NV = method.guidance.combine(method.cache.evaluate(request))
    # A NaN makes the maximum NaN, so one number tells; the host reads it with the others of the step.
    broken = logits_NV.amax().isnan() if len(logits_NV) else None
    if model.spec.mask_id is not None:
        logits_NV[:, model.spec.mask_id] = -torch.inf
    canvas.calls_B = canvas.calls_B + 1
    if standing is None or any(standing.held):
        canvas.held_calls_B = canvas.held_calls_B + canvas.held_B
    prediction = Prediction(
        logits_NV=logits_NV,
        places=places,
        spec=model.spec,
        attention_BLL=attention.mean_BTS()[: canvas.num_rows] if attention else None,
        broken=broken,
        open_BL=canvas.open_BL if method.narrowing is None else None,
    )
    once = method.drafts and method.steady
    return replace(prediction, said=method.scorer(prediction, canvas)) if once else prediction


def _asked_for(method: DiffusionMethod, canvas: Canvas, standing: Standing | None) -> Places:
    """Return the positions that the next evaluation is asked for: those that policies read, as a cache narrows them."""
    read_BL, ahead_B = reads(method, canvas) if standing is None else standing.read_BL, method.verifier.ahead(canvas)
    if ahead_B is not None:
        read_BL = read_BL | _windows_ahead(method, canvas, ahead_B)
    if method.narrowing is not None and (standing is None or method.drafts):
        read_BL = method.narrowing.narrow(canvas, read_BL, method.schedule.quota(canvas))
    if standing is None or read_BL is not standing.read_BL:
        read_B = number_of(canvas, read_BL)
        return Places.marked(read_BL, read_counts(canvas, read_B), read_B)
    return Places.marked(read_BL, standing.read, standing.read_B)


def _asked(method: DiffusionMethod, canvas: Canvas, prediction: Prediction) -> Prediction:
    """Return the prediction of the positions that policies read, without those that only the verifier asked for."""
    prediction = prediction.widened(canvas.tokens_BL.shape[1])
    if method.verifier.ahead(canvas) is None:
        return prediction
    return prediction.only(reads(method, canvas))


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
    method: DiffusionMethod,
    canvas: Canvas,
    prediction: Prediction,
    rows: Sequence[bool] | None = None,
    observers: Sequence[Observer] = (),
) -> Canvas:
    """Return the next canvas. Only the rows marked in `rows` (default: all) make the step; ignore the others."""
    return _advance(method, canvas, prediction, observers, rows)[0]


def _advance(
    method: DiffusionMethod,
    canvas: Canvas,
    prediction: Prediction,
    observers: Sequence[Observer] = (),
    rows: Sequence[bool] | None = None,
) -> tuple[Canvas, Standing | None]:
    """Return the next canvas, and how it stands if that is known: commit, revise, finish, and open new windows.

    A step with a quota of 0 is idle: the clock moves on, and the row steps again on the same prediction, up to
    `IDLE_STEPS` times; then the row is given up. Meanwhile rows that have made their step wait, and so do rows that a
    policy wants evaluated again before they commit.
    """
    after, idled, now, layout_B = canvas.copy(), 0, None, canvas.layout_B
    after.begin_step()
    prediction = _asked(method, canvas, prediction)
    candidates = prediction.said or method.scorer(prediction, after)
    after, steps = _before_commit(method, after, prediction, candidates)
    rows = [True] * len(steps) if rows is None else rows
    steps, others = [made and marked for made, marked in zip(steps, rows, strict=True)], after
    while any(steps):
        before, width = after.copy(), after.tokens_BL.shape[1]
        prediction, candidates = prediction.widened(width), candidates.widened(width)
        steps_B = None if all(steps) else flags(steps, after.held_B.device)
        commit_BL, count_B, work_B = _choose(method, candidates, after, prediction, steps_B)
        after.decide(commit_BL, candidates.tokens_BL, count_B)
        if all(steps) and not method.stops:
            tell_inside(before, after)
        method.reviser(after, prediction, candidates, commit_BL)
        after.tick(steps_B)
        standing = Standing.within(method, after, steps, work_B, prediction.broken)
        if any(standing.broken):
            prediction.require_numbers(canvas.sample_B)
        if any(standing.idle):
            after.idle_B = after.idle_B + flags(standing.idle, after.idle_B.device)
        complete = standing.complete([made and not idle for made, idle in zip(steps, standing.idle, strict=True)])
        settled = method.waits and not any(complete) and not any(standing.due) and after.layout_B is layout_B
        if not settled:
            after = _close_windows(method, after, complete, any(standing.held))
        now = standing if settled and standing.open_everywhere else None
        # Rows without a step are as they were, unless somebody may have changed them.
        touched = method.revises or not settled or not after.memory.is_of(others.memory)
        if steps_B is not None and list(steps) != list(rows) and touched:
            after, now = after.where(steps_B, others), None
        if observers:
            shown = replace(candidates, entropy_BL=prediction.entropy())
            for observer in observers:
                observer(before, shown, after)
        idled, steps = idled + 1, standing.idle
        if idled > IDLE_STEPS and any(steps):
            steps, now = _give_up(after, steps, idled > IDLE_STEPS + method.schedule.surplus(canvas)), None
        if any(steps):
            others, layout_B = after.copy(), after.layout_B
            prediction = _still_read(prediction, before, after) if settled and not method.revises else prediction
            after.begin_step()
            if not method.steady:
                prediction = prediction.widened(after.tokens_BL.shape[1])
                candidates = method.scorer(prediction, after)
    return after, now


def _give_up(canvas: Canvas, idle: Sequence[bool], endless_B: Tensor) -> list[bool]:
    """Take idle rows no further that are so without end; return those that step again."""
    idle_B = flags(idle, canvas.held_B.device)
    canvas.given_up_B = canvas.given_up_B | (idle_B & endless_B)
    return (idle_B & ~endless_B).tolist()


def _still_read(prediction: Prediction, before: Canvas, after: Canvas) -> Prediction:
    """Return the prediction, which has read what is open if it had before a step that only closed positions."""
    return replace(prediction, open_BL=after.open_BL) if prediction.open_BL is before.open_BL else prediction


def _before_commit(
    method: DiffusionMethod, canvas: Canvas, prediction: Prediction, candidates: Candidates
) -> tuple[Canvas, list[bool]]:
    """Return the canvas as policies change it before a commit, and which rows commit; others are evaluated again."""
    again_B = None
    for part in method.before_commit:
        before, width = canvas.copy(), canvas.tokens_BL.shape[1]
        asks_B = part.before_commit(canvas, prediction.widened(width), candidates.widened(width))
        if again_B is not None and bool(again_B.any()):
            # A row that will be evaluated again keeps nothing of what this part made of the present prediction.
            canvas = canvas.where(~again_B, before)
        if asks_B is not None:
            again_B = asks_B if again_B is None else again_B | asks_B
    again = [False] * canvas.num_rows if again_B is None else again_B.tolist()
    if again_B is not None and any(again):
        others = canvas.copy()
        method.window.update(canvas)
        canvas = canvas.where(again_B, others)
    return canvas, [not one for one in again]


def _choose(
    method: DiffusionMethod, candidates: Candidates, canvas: Canvas, prediction: Prediction, steps_B: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the positions to commit, how many of each row, and that number plus the row's quota: 0 of idle rows.

    A row with a quota for which the selector chooses nothing commits its best position (forced).
    """
    open_BL = canvas.open_BL
    all_read = open_BL is prediction.open_BL or open_BL is prediction.read_BL
    open_BL = open_BL if all_read else open_BL & prediction.read_BL
    open_BL = open_BL if steps_B is None else open_BL & steps_B[:, None]
    quota_B, noted = method.schedule.quota(canvas), canvas.margins
    commit_BL = method.selector(candidates, open_BL, quota_B, canvas) & open_BL
    # Margins are replaced, never changed: they are the same if the selector has noted nothing.
    by_score = canvas.margins is noted
    count_B, stop_B = commit_BL.sum(1), None
    if not (method.decides or (all_read and method.decides_if_read)):
        open_everywhere = open_BL is canvas.open_BL and all_open(canvas)
        forced_B = count_B == 0 if open_everywhere else open_BL.any(1) > count_B
        forced_B = forced_B if quota_B is None else forced_B & (quota_B != 0)
        best_BL = best(candidates, open_BL, forced_B)
        commit_BL, count_B = commit_BL | best_BL, count_B + forced_B
        canvas.forced_B = canvas.forced_B + forced_B
        if not by_score:
            canvas.note(rankings=(candidates.score_BL, best_BL, open_BL))
    if by_score:
        canvas.note(rankings=(candidates.score_BL, commit_BL, open_BL))
    if method.stops:
        stop_B = method.stopper(prediction, candidates, canvas)
        stop_B = stop_B if steps_B is None else stop_B & steps_B
        canvas.stopped_at_B = torch.where(stop_B, canvas.clock_B, canvas.stopped_at_B)
        commit_BL = commit_BL | (canvas.undecided_BL & stop_B[:, None])
        count_B = commit_BL.sum(1)
    canvas.note(tokens=(_token_gap(candidates, prediction), commit_BL))
    work_B = None if quota_B is None else count_B + quota_B
    return commit_BL, count_B, work_B if work_B is None or stop_B is None else work_B + stop_B


def _token_gap(candidates: Candidates, prediction: Prediction) -> Tensor:
    if candidates.token_gap_BL is not None:
        return candidates.token_gap_BL
    return prediction.token_gap(prediction.gather(candidates.tokens_BL))


def _close_windows(method: DiffusionMethod, canvas: Canvas, complete: Sequence[bool], held: bool) -> Canvas:
    complete_B = flags(complete, canvas.held_B.device)
    if method.scheduled and any(complete):
        surplus_B = method.schedule.surplus(canvas) * (complete_B & (canvas.stopped_at_B == GIVEN))
        canvas.idle_B = canvas.idle_B + surplus_B
        canvas.tick(complete_B, surplus_B)
    before = canvas.copy()
    method.finish(canvas, complete_B)
    method.window.update(canvas)
    return canvas.where(~canvas.held_B, before) if held or canvas.held_B is not before.held_B else canvas
