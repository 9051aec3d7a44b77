"""FreeDave: draft several steps from one prediction, verify them in the next call.

Paper: arXiv:2510.00294; released code: cychomatica/FreeDave.

A prediction says what the next step commits, and what the steps after it would. These drafts D_1 (the step itself,
hence certain), D_2, ... are evaluated together, in one call. Then the real step is taken from D_1 and its own
prediction; where it leads to D_2, that prediction is known already, and so on. A draft is the method's own step with
the clock of the chain, and the state that goes on is the one that the real step led to. So `method/verifier=freedave`
speeds up any step rule and changes no answer: quotas by the clock, keyed sampling, policies with a memory, adaptive
windows and lengths.

| symbol | argument | default | in their evaluation |
|---|---|---|---|
| d | draft_steps | 4 | 4 to 8 |
| | block_length | 32 | |
| tau | threshold | null: exact | 0.95 or 0.9 (FreeDave++) |
| early exit | early_exit | false: the output is the whole static decode | true |
| draft batching | drafts | batch: a row each | tree: one row, whose drafts share what a cache has stored |
| | reach | method: within; verifier alone: across | within; for SDAR and TraDo eager |
| | idle_calls | false | true: a step is verified although its window is complete (to compare calls and rows) |

| reach | how far drafts go |
|---|---|
| within | to the end of the window; a call without drafts opens the next window |
| across | without a cache, a verified draft that completes its window saves the call that opens the next (ours) |
| eager | into ceil(draft_steps / block) more blocks, which calls predict, too; a call without drafts opens each |

Eager drafts need exact predictions: no cache, or block_causal. Once one has got to a later block, the step behind it is
taken before that block is opened.
FreeDave++ (`threshold`) commits all positions that reach it, else the best; drafts add the best one each. A draft is
accepted if its tokens are a *subset* of what the real step leads to, the longest first; that is another trajectory.
With prefix, dual, block_causal or sub_block the answer is that of the method with this cache: drafts end where the
window moves, or where something outside of it changes. On models whose logits are shifted, all but block_causal compute
and keep the position before a window, or its whole block, as long as the first one of the window is masked: drafts end
before the one that decides it, as what is kept then is of the last call before that.

| as published | words |
|---|---|
| with a cache | method=freedave method/cache=dual method.drafts=tree |
| SDAR, TraDo (static) | method=sdar method/verifier=freedave method.verifier={reach:eager,drafts:tree,draft_steps:8} |

Deviations from the authors' code: subset acceptance on block-causal models, too (there exact), and tau in the first
draft of shifted models, too. A block-causal cache charges nothing for drafts that complete their block, stores blocks
that end together by one call and those that end with the answer by none; eager drafts that complete the answer are not
evaluated, and drafts in a later block have their own block predicted, not those behind it.
Invariants: without a threshold equal to draft_steps = 1 token for token, in at most as many calls. Those that store
blocks are not counted with `within` on shifted block-causal models: drafts finish blocks that an evaluation would have
stored by itself.
"""

from dataclasses import replace
from enum import Enum
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import SETTLED, Canvas
from harness.engine.diffusion.needs import Needs
from harness.engine.diffusion.policies import Observe, Step
from harness.engine.diffusion.standing import Told, tell, told
from harness.engine.shared.indexing import flags
from harness.engine.shared.kv_tree import DraftsStore
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Prediction
from harness.errors import at_least
from methods.diffusion.drafts import alike, chain, contained, left_in_window, to_evaluate
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
        at_least(1, draft_steps=self.draft_steps)

    @property
    def needs(self) -> Needs:
        """Eager drafts leave the window, and trees share what a cache has stored."""
        return Needs(any_draft=self.reach is Reach.eager, shared=self.drafts is Drafts.tree)

    def ahead(self, canvas: Canvas) -> Tensor | None:
        """Ask for as many positions behind the window as there are drafts, until one of these has left it."""
        if self.reach is not Reach.eager:
            return None
        return (canvas.window_index_B == _opened_B(canvas)) * self.draft_steps

    def propose(self, canvas: Canvas, prediction: Prediction, stepped: Canvas, step: Step) -> Canvas:
        """Return the drafts of every row, its real step first; a row whose step opens a window may have no other."""
        stores = stepped.stores
        canvas, stepped = replace(canvas, stores={}), replace(stepped, stores={}, memory=stepped.memory.copy())
        bounded = self.reach is Reach.within or (bool(stores) and self.reach is Reach.across)
        longest = self._longest(canvas, stepped)
        exact = self.threshold is None
        levels, drafts = chain(canvas, prediction, stepped, step, longest, bounded=bounded, exact=exact)
        as_published = self.reach is Reach.within or (bounded and not exact)
        if as_published:
            counts = None if exact else [min(opened, self.draft_steps) for opened in told(canvas).opened]
            chosen = to_evaluate(drafts, counts)
        else:
            chosen = [one for one in drafts if not one.level or (one.useful and one.live)]
        origins = [one.row for one in chosen]
        least = [0 if origins.count(row) > 1 else SETTLED for row in origins]
        numbers = [[one.at for one in chosen], origins, least]
        at_D, origin_D, least_D = torch.tensor(numbers, device=stepped.held_B.device)
        made = Canvas.cat(levels, at_D)
        made = left_in_window(made, chosen, origin_D, canvas) if as_published else made
        made.draft_from_B = torch.maximum(canvas.clock_B[origin_D], least_D)
        opened = [0 if as_published and one.ended else one.opened for one in chosen]
        tell(made, Told([one.sample for one in chosen], opened, [one.held for one in chosen]))
        if self.drafts is Drafts.tree:
            drafts_of = [origins.count(row) for row in range(canvas.num_rows)]
            return replace(made, stores={key: DraftsStore(store, origin_D, drafts_of) for key, store in stores.items()})
        return made.with_stores(stores, origin_D)

    def _longest(self, canvas: Canvas, stepped: Canvas) -> list[int]:
        """Return how many drafts each row may have: eagerly, one where a draft has left the window opened last."""
        if self.reach is not Reach.eager:
            return [self.draft_steps] * stepped.num_rows
        opened_B = _opened_B(canvas)
        left_B = canvas.window_index_B != opened_B
        stepped.memory[_OPENED] = torch.where(left_B, stepped.window_index_B, opened_B)
        return [1 if left else self.draft_steps for left in left_B.tolist()]

    def accept(self, drafts: Canvas, prediction: Prediction, step: Step, observe: Observe) -> tuple[Canvas, Prediction]:
        """Walk from each row's first draft as long as the real step leads to one whose prediction is known."""
        stores, drafts, device = drafts.stores, replace(drafts, stores={}), drafts.held_B.device
        samples, opened, held = told(drafts)
        unread = [not one and not other for one, other in zip(opened, held, strict=True)]
        row_of = [*accumulate((one != other for one, other in pairwise(samples)), initial=0)]
        at = [row_of.index(row) for row in range(row_of[-1] + 1)]
        row_D, index_B = torch.tensor([*row_of, *at], device=device).split([len(row_of), len(at)])
        agrees, known_ends, goes = alike if self.threshold is None else contained, [False] * len(at), [True] * len(at)
        state, known = drafts.rows(index_B), prediction.rows(at)
        while True:
            # Rows that go no further step again, too: what they step to is what the loop wants next.
            target = step(state, known)
            agreed = agrees(drafts, target, row_D).tolist()
            later = [
                [one for one in range(len(row_of)) if row_of[one] == row and one > at[row] and agreed[one]]
                for row in range(len(at))
            ]
            further = [later[row][-1] if goes[row] and later[row] else -1 for row in range(len(at))]
            known_ends = [was or (one >= 0 and unread[one]) for was, one in zip(known_ends, further, strict=True)]
            goes = [one >= 0 and not unread[one] for one in further]
            if not any(goes):
                if KNOWN in state.memory:
                    state.memory[KNOWN] = torch.tensor(known_ends, device=device)
                return state.with_stores(stores, index_B), known
            at = [one if goes_on else before for one, goes_on, before in zip(further, goes, at, strict=True)]
            before, seen, index_B = state, known, torch.tensor(at, device=device)
            known = prediction.rows(at)
            if self.threshold is None:
                evaluated = drafts.memory.only_cached().rows(index_B)
                state = replace(target, memory=target.memory.with_(evaluated))
            else:
                state = drafts.rows(index_B)
                state.margins = state.margins.and_(target.margins)
            state = state if all(goes) else state.where(flags(tuple(goes), device), before)
            observe(before, seen, state)


def _opened_B(canvas: Canvas) -> Tensor:
    return canvas.memory.get(_OPENED, canvas.window_index_B)
