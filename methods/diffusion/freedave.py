"""FreeDave: draft several steps from one prediction, verify them in the next call (arXiv:2510.00294; its code).

A prediction says not only what the next step commits but also what the steps after it would. These drafts D_1 (the
step itself, hence certain), D_2, ... are evaluated together, in one call. Then the real step is taken from D_1 and its
own prediction; where it leads to D_2, that prediction is known already, and so on.
Symbol -> knob: d -> draft_steps (their evaluation: 4 to 8), block_length (32), tau -> threshold (FreeDave++, theirs:
0.95 or 0.9), early exit -> early_exit (theirs: on; here off, so that the output is the whole static decode), draft
batching -> drafts (`batch`: a row each; `tree`: one row, in which drafts share what a cache has stored; theirs: tree).
Ours: a draft is the method's own step, applied again with the clock of the chain, and what goes on is the state that
the real step led to. So `method/verifier=freedave` speeds up any step rule without changing an answer: quotas that
follow the clock, keyed sampling, policies with a memory and adaptive windows included. Caches whose predictions follow
from the canvas and from what was kept when the window opened (prefix, dual, block_causal, sub_block) go with it, and
the answer is that of the method with this cache (theirs: `method=freedave method/cache=dual method.drafts=tree`).
FreeDave++ (`threshold`): all positions that reach it, else the best; drafts add the best one each. A draft is accepted
if its tokens are a *subset* of what the real step leads to, the longest first; that is a trajectory of its own.
How far drafts go -> reach. `within` (theirs): to the end of their window, which the next one is opened behind by a call
without drafts. `across` (ours, the default of the wrapper): a verified draft that completes its window spares that
call. `eager` (theirs for SDAR and TraDo): each call predicts ceil(draft_steps / block) blocks more, and drafts go on in
them; a row that gets there takes the real step that it knows, stores its block and opens the next by a call. Without a
cache or with block_causal this is exact; other caches keep for a window what drafts behind it must not see. (Theirs is
`method=sdar method/verifier=freedave method.verifier={reach:eager,drafts:tree,draft_steps:8}`, static remasking.)
Deviations from the authors' code: subset acceptance on block-causal models, too (there exact), and tau in the first
draft of shifted models, too. Eager drafts that complete the answer are not evaluated, and one behind the window has its
own window predicted alone. None of this changes an answer without a threshold, or a call.
Invariants: equal to draft_steps = 1 token for token, in at most as many calls (eager: and one more per window).
"""

from dataclasses import replace
from enum import Enum

import torch
from torch import Tensor

from harness.engine.branches import Branches
from harness.engine.canvas import GIVEN, Canvas
from harness.engine.policies import DiffusionMethod, NeverRevise, NoCache, Observe, Step
from harness.engine.policy import policy
from harness.engine.prediction import Candidates, Prediction, top
from methods.caches.block_causal import BlockCausalCache, SubBlockCache
from methods.caches.fast_dllm import DualCache, PrefixCache
from methods.diffusion.drafts import alike, as_published, chain, within

_ANCHOR = "freedave.window_B"
_SHARED = (PrefixCache, DualCache, BlockCausalCache, SubBlockCache)


class Reach(Enum):
    """Where drafts end: with their window, behind a verified end of it, or in windows that follow."""

    within = "within"
    across = "across"
    eager = "eager"


class Drafts(Enum):
    """How drafts are evaluated: a row each, or one row for all that come from one."""

    batch = "batch"
    tree = "tree"


@policy("method/selector", "sure_or_best")
class SureOrBest:
    """Close every open position whose confidence reaches `threshold`, else (and without one) the best."""

    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and self.threshold < 0:
            raise ValueError(f"threshold must be at least 0, got {self.threshold}")

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        """Return the positions to commit."""
        best_BL = top(candidates.score_BL, open_BL, torch.ones_like(canvas.clock_B))
        if self.threshold is None:
            return best_BL
        return best_BL | (open_BL & (candidates.confidence_BL >= self.threshold))


@policy("method/verifier", "freedave")
class FreeDave:
    """Evaluate up to `draft_steps` steps at once; with `threshold` a draft need only be a subset of the real step."""

    draft_steps: int = 4
    threshold: float | None = None
    reach: Reach = Reach.across
    drafts: Drafts = Drafts.batch

    def __post_init__(self) -> None:
        if self.draft_steps < 1:
            raise ValueError(f"draft_steps must be at least 1, got {self.draft_steps}")

    def fit(self, method: DiffusionMethod) -> None:
        """Refuse what changes or is predicted outside of a window that a cache is kept for, and trees without one."""
        cached = not isinstance(method.cache, NoCache)
        if cached and not isinstance(method.reviser, NeverRevise):
            raise ValueError("the verifier freedave needs exact predictions of what is revised; use method/cache=none")
        if cached and self.reach is Reach.eager and not isinstance(method.cache, BlockCausalCache):
            raise ValueError("reach=eager drafts behind the window that the cache is kept for; use cache=block_causal")
        if self.drafts is Drafts.tree and not isinstance(method.cache, _SHARED):
            raise ValueError(
                "drafts=tree shares what a cache has stored, and this one stores nothing; use drafts=batch"
            )

    def ahead(self, canvas: Canvas) -> Tensor | None:
        """Ask for as many positions behind the window as there are drafts, until one of these has left it."""
        if self.reach is not Reach.eager:
            return None
        return (canvas.window_index_B == _anchor_B(canvas)) * self.draft_steps

    def propose(self, canvas: Canvas, prediction: Prediction, stepped: Canvas, step: Step) -> Canvas:
        """Return the drafts of every row, its real step first; a row whose step opens a window may have no other."""
        stores, stepped = stepped.stores, replace(stepped, stores={}, memory=dict(stepped.memory))
        length_B = torch.full_like(stepped.clock_B, self.draft_steps)
        if self.reach is Reach.eager:
            anchor_B = _anchor_B(canvas)
            alone_B = canvas.window_index_B != anchor_B
            stepped.memory[_ANCHOR] = torch.where(alone_B, stepped.window_index_B, anchor_B)
            stepped.draft_B = ~alone_B
            length_B = length_B.masked_fill(alone_B, 1)
        bounded = self.reach is Reach.within or (bool(stores) and self.reach is Reach.across)
        drafts, origin_D = chain(canvas, prediction, stepped, step, length_B, bounded=bounded)
        first_D = torch.nn.functional.pad(origin_D.diff(), (1, 0), value=1) > 0
        left_D = drafts.window_index_B != canvas.window_index_B[origin_D]
        kept_D = (first_D | (drafts.live_B & ~(bounded & left_D))).nonzero().squeeze(1)
        if self.reach is Reach.within:
            kept_D = as_published(kept_D, origin_D, left_D, canvas.open_BL.sum(1).clamp(max=self.draft_steps))
        drafts, origin_D = drafts.rows(kept_D), origin_D[kept_D]
        if self.drafts is Drafts.tree:
            return replace(drafts, stores={key: Branches(store, origin_D) for key, store in stores.items()})
        return drafts.with_stores(stores, origin_D)

    def accept(self, drafts: Canvas, prediction: Prediction, step: Step, observe: Observe) -> tuple[Canvas, Prediction]:
        """Walk from each row's first draft as long as the real step leads to one whose prediction is known."""
        group_D = torch.unique_consecutive(drafts.sample_B, return_inverse=True)[1]
        draft_D = torch.arange(len(group_D), device=group_D.device)
        at_R = draft_D[torch.nn.functional.pad(group_D.diff(), (1, 0), value=1) > 0]
        stores, drafts = drafts.stores, replace(drafts, stores={})
        state, known = drafts.rows(at_R), prediction.rows(at_R)
        stays: list[tuple[Canvas, Prediction, Tensor]] = []
        while len(at_R):
            target = step(state, known)
            next_R = self._furthest(drafts, state, target, group_D[at_R][:, None] == group_D, at_R)
            stay, go = (next_R < 0).nonzero().squeeze(1), (next_R >= 0).nonzero().squeeze(1)
            stays.append((state.rows(stay), known.rows(stay), at_R[stay]))
            before, seen, at_R = state.rows(go), known.rows(go), next_R[go]
            state = target.rows(go) if self.threshold is None else drafts.rows(at_R)
            known = prediction.rows(at_R)
            if len(go):
                observe(before, seen, state)
        states, predictions, origins = zip(*stays, strict=True)
        reached = Canvas.cat(states)
        reached.draft_B = torch.zeros_like(reached.draft_B)
        return reached.with_stores(stores, torch.cat(origins)), Prediction.cat(predictions)

    def _furthest(self, drafts: Canvas, state: Canvas, target: Canvas, own_RD: Tensor, at_R: Tensor) -> Tensor:
        """Return the last draft behind `at_R` that agrees with each row's real step, -1 where none does."""
        row_D = own_RD.long().argmax(0)
        draft_D = torch.arange(drafts.num_rows, device=at_R.device)
        agrees_D = own_RD.any(0) & (draft_D > at_R[row_D]) & drafts.undecided_BL.any(1)
        agrees_D = agrees_D & (within if self.threshold is not None else alike)(drafts, target.rows(row_D))
        if self.reach is Reach.within:
            agrees_D = agrees_D & (drafts.window_index_B == state.window_index_B[row_D])
        return torch.where(own_RD & agrees_D, draft_D, GIVEN).amax(1)


def _anchor_B(canvas: Canvas) -> Tensor:
    """Return the window that each row's last call without drafts has opened."""
    return canvas.memory.get(_ANCHOR, canvas.window_index_B)
