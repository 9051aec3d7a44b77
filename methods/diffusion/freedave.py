"""FreeDave: draft several steps from one prediction, verify them in the next call (arXiv:2510.00294; its code).

A prediction says not only what the next step commits but also what the steps after it would. These drafts D_1 (the
step itself, hence certain), D_2, ... are evaluated together, in one call. Then the real step is taken from D_1 and its
own prediction; where it leads to D_2, that prediction is known already, and so on.
Symbol -> knob: d -> draft_steps (their evaluation: 4 to 8), block_length (32), tau -> threshold (FreeDave++, theirs:
0.95 or 0.9), early exit -> early_exit (theirs: on; here off, so that the output is the whole static decode), draft
batching -> drafts (`batch`: a row each; `tree`: one row, in which drafts share what a cache has stored; theirs: tree).
`idle_calls`: theirs verifies a step even where its several positions have completed the window, though nothing can
change any more; made on request only, to compare calls and rows.
Ours: a draft is the method's own step, applied again with the clock of the chain, and what goes on is the state that
the real step led to. So `method/verifier=freedave` speeds up any step rule without changing an answer: quotas that
follow the clock, keyed sampling, policies with a memory, adaptive windows and lengths included. With prefix, dual,
block_causal or sub_block the answer is that of the method with this cache: drafts then end where the window moves or
something outside of it changes (theirs: `method=freedave method/cache=dual method.drafts=tree`).
FreeDave++ (`threshold`): all positions that reach it, else the best; drafts add the best one each. A draft is accepted
if its tokens are a *subset* of what the real step leads to, the longest first; that is a trajectory of its own.
How far drafts go -> reach. `within` (theirs): to the end of the window; the next window is opened by a call without
drafts. `across` (ours, the default of the wrapper): without a cache, a verified draft that completes its window saves
that call. `eager` (theirs for SDAR and TraDo): calls predict ceil(draft_steps / block) more blocks, and drafts go on in
them; once a draft has got there, the step behind it is taken and its block is opened by a call without drafts. Needs
exact predictions: no cache, or block_causal. (Theirs: `method=sdar method/verifier=freedave
method.verifier={reach:eager,drafts:tree,draft_steps:8}` with static remasking.)
Deviations from the authors' code: subset acceptance on block-causal models, too (there exact), and tau in the first
draft of shifted models, too. A block-causal cache charges nothing for drafts that complete their block, stores blocks
that end together by one call and those that end with the answer by none; eager drafts that complete the answer are not
evaluated, and drafts in a later block have their own block predicted, not those behind it.
Invariants: without a threshold equal to draft_steps = 1 token for token, in at most as many calls.
"""

from dataclasses import replace
from enum import Enum

import torch
from torch import Tensor

from harness.engine.branches import Branches
from harness.engine.canvas import SETTLED, Canvas
from harness.engine.method import DiffusionMethod, NoCache
from harness.engine.policies import Observe, Shareable, Step
from harness.engine.policy import policy
from harness.engine.prediction import Prediction
from harness.errors import FieldError
from methods.diffusion.drafts import alike, chain, contained, starts, to_evaluate
from methods.diffusion.freedave_step import KNOWN

_OPENED = "freedave.opened_B"
"""The window that a row's last call without drafts has opened."""


class Reach(Enum):
    """Where drafts end: with their window, behind a verified end of it, or in windows that follow."""

    within = "within"
    across = "across"
    eager = "eager"


class Drafts(Enum):
    """How drafts are evaluated: a row each, or one row for all that come from one."""

    batch = "batch"
    tree = "tree"


@policy("method/verifier", "freedave")
class FreeDave:
    """Evaluate up to `draft_steps` steps at once; with `threshold` a draft need only be a subset of the real step."""

    draft_steps: int = 4
    threshold: float | None = None
    reach: Reach = Reach.across
    drafts: Drafts = Drafts.batch

    def __post_init__(self) -> None:
        if self.draft_steps < 1:
            raise FieldError("draft_steps", self.draft_steps, "be at least 1")

    def fit(self, method: DiffusionMethod) -> None:
        """Refuse eager drafts beside what is kept for one window, and trees that have nothing to share."""
        cache = method.cache
        if self.reach is Reach.eager and not (
            isinstance(cache, NoCache) or (isinstance(cache, Shareable) and cache.exact)
        ):
            raise ValueError(
                "reach=eager leaves the window that this cache is for; use method/cache=none or block_causal"
            )
        if self.drafts is Drafts.tree and not isinstance(cache, Shareable):
            raise ValueError(
                "drafts=tree shares what a cache has stored; use method/cache=prefix, dual, block_causal or sub_block"
            )

    def ahead(self, canvas: Canvas) -> Tensor | None:
        """Ask for as many positions behind the window as there are drafts, until one of these has left it."""
        if self.reach is not Reach.eager:
            return None
        return (canvas.window_index_B == _opened_B(canvas)) * self.draft_steps

    def propose(self, canvas: Canvas, prediction: Prediction, stepped: Canvas, step: Step) -> Canvas:
        """Return the drafts of every row, its real step first; a row whose step opens a window may have no other."""
        stores = stepped.stores
        canvas, stepped = replace(canvas, stores={}), replace(stepped, stores={}, memory=dict(stepped.memory))
        bounded = self.reach is Reach.within or (bool(stores) and self.reach is Reach.across)
        longest_B = self._longest(canvas, stepped)
        drafts, origin_D, useful_D = chain(canvas, prediction, stepped, step, longest_B, bounded=bounded)
        if self.reach is Reach.within or (bounded and self.threshold is not None):
            count_B = None if self.threshold is None else canvas.open_BL.sum(1).clamp(max=self.draft_steps)
            drafts, origin_D = to_evaluate(drafts, origin_D, useful_D, canvas, count_B)
        else:
            kept_D = (starts(origin_D) | (useful_D & drafts.live_B)).nonzero().squeeze(1)
            drafts, origin_D = drafts.rows(kept_D), origin_D[kept_D]
        several_D = torch.bincount(origin_D)[origin_D] > 1
        drafts.draft_from_B = torch.where(several_D, canvas.clock_B[origin_D], SETTLED)
        if self.drafts is Drafts.tree:
            return replace(drafts, stores={key: Branches(store, origin_D) for key, store in stores.items()})
        return drafts.with_stores(stores, origin_D)

    def _longest(self, canvas: Canvas, stepped: Canvas) -> Tensor:
        """Return how many drafts each row may have: eagerly, one where a draft has left the window opened last."""
        longest_B = torch.full_like(stepped.clock_B, self.draft_steps)
        if self.reach is not Reach.eager:
            return longest_B
        opened_B = _opened_B(canvas)
        left_B = canvas.window_index_B != opened_B
        stepped.memory[_OPENED] = torch.where(left_B, stepped.window_index_B, opened_B)
        return longest_B.masked_fill(left_B, 1)

    def accept(self, drafts: Canvas, prediction: Prediction, step: Step, observe: Observe) -> tuple[Canvas, Prediction]:
        """Walk from each row's first draft as long as the real step leads to one whose prediction is known."""
        row_D = torch.unique_consecutive(drafts.sample_B, return_inverse=True)[1]
        draft_D = torch.arange(len(row_D), device=row_D.device)
        at_R = draft_D[starts(row_D)]
        stores, drafts = drafts.stores, replace(drafts, stores={})
        unread_D = ~drafts.open_BL.any(1) & ~drafts.held_B
        state, known = drafts.rows(at_R), prediction.rows(at_R)
        stays: list[tuple[Canvas, Prediction, Tensor]] = []
        while len(at_R):
            target = step(state, known)
            later_RD = (row_D[at_R][:, None] == row_D) & (draft_D > at_R[:, None])
            next_R = self._next(drafts, target, later_RD)
            ends_R = (next_R >= 0) & unread_D[next_R]
            stay, go = ((next_R < 0) | ends_R).nonzero().squeeze(1), ((next_R >= 0) & ~ends_R).nonzero().squeeze(1)
            stays.append((state.rows(stay), known.rows(stay), at_R[stay]))
            stays[-1][0].memory[KNOWN] = ends_R[stay]
            before, seen, at_R = state.rows(go), known.rows(go), next_R[go]
            state, known = drafts.rows(at_R), prediction.rows(at_R)
            if self.threshold is None:
                state = target.rows(go).evaluated_as(state)
            else:
                state.note_margins_of(target.rows(go))
            if len(go):
                observe(before, seen, state)
        states, predictions, origins = zip(*stays, strict=True)
        return Canvas.cat(states).with_stores(stores, torch.cat(origins)), Prediction.cat(predictions)

    def _next(self, drafts: Canvas, target: Canvas, later_RD: Tensor) -> Tensor:
        """Return the last draft of each row that agrees with its real step, -1 where none does."""
        agrees = alike if self.threshold is None else contained
        agrees_D = agrees(drafts, target.rows(later_RD.long().argmax(0)))
        draft_D = torch.arange(len(agrees_D), device=agrees_D.device)
        return torch.where(later_RD & agrees_D, draft_D, -1).amax(1)


def _opened_B(canvas: Canvas) -> Tensor:
    return canvas.memory.get(_OPENED, canvas.window_index_B)
