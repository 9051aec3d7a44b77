"""FreeDave: draft several steps from one prediction, verify them in the next call (arXiv:2510.00294; its code).

A prediction says not only what the next step commits but also what the steps after it would. These drafts D_1 (the
step itself, hence certain), D_2, ... are evaluated together: one call, one row each. Then the real step is taken from
D_1 and its own prediction; where it leads to D_2, that prediction is known already, and so on.
Symbol -> knob: d -> draft_steps (their evaluation: 4 to 8), block_length (32), tau -> threshold (FreeDave++, theirs:
0.95 or 0.9), early exit -> early_exit (theirs: on; here off, so that the output is the whole static decode).
`idle_calls`: theirs verifies a step even where its several positions have completed the window, though nothing can
change any more; made on request only, to compare calls and rows.
Ours: a draft is the method's own step, applied again with the clock of the chain, and what goes on is the state that
the real step led to. So `method/verifier=freedave` speeds up any step rule without changing an answer: quotas that
follow the clock, keyed sampling and policies with a memory included. Caches whose predictions follow from the canvas
and from what was kept when the window opened (prefix, dual, block_causal, sub_block) go with it: drafts then end with
the window, and the answer is that of the method with this cache (theirs: `method=freedave method/cache=dual`).
FreeDave++ (`threshold`): all positions that reach it, else the best; drafts add the best one each. A draft is accepted
if its tokens are a *subset* of what the real step leads to, the longest first; that is a trajectory of its own.
`across`: a draft that completes its window may be accepted as well and spares the call that opens the next window.
Theirs evaluates such a draft (a row per window, which `freedave` reproduces) but always opens the window by a call.
Deviations: no eager acceptance (`across` is the lossless part of it); drafts are rows of a batch, no tree.
Invariants: equal to draft_steps = 1 token for token, in at most as many calls.
"""

from dataclasses import replace

import torch
from torch import Tensor

from harness.engine.canvas import GIVEN, Canvas
from harness.engine.policies import DiffusionMethod, NeverRevise, NoCache, Observe, Step
from harness.engine.policy import policy
from harness.engine.prediction import Candidates, Prediction, top

_KNOWN = "freedave.known_B"
"""Whether the step that a row takes next leads to a draft that completes the window."""


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


@policy("method/finish", "all_end")
class AllEnd:
    """Where a completed window holds nothing but one end or padding token, fill the rest of the response with it.

    Filled positions carry the last step.
    """

    enabled: bool = True

    def __call__(self, canvas: Canvas, complete_B: Tensor) -> None:
        """Fill the rows that have ended."""
        if not self.enabled:
            return
        largest_B = canvas.tokens_BL.masked_fill(~canvas.window_BL, -1).amax(1)
        uniform_BL = (canvas.tokens_BL == largest_B[:, None]) | ~canvas.window_BL
        ends = torch.tensor([*canvas.stop_ids, canvas.fill_id], device=canvas.tokens_BL.device)
        ended_B = complete_B & uniform_BL.all(1) & torch.isin(largest_B, ends)
        fill_BL = canvas.undecided_BL & ended_B[:, None]
        last_B1 = canvas.decided_at_BL.amax(1, keepdim=True)
        canvas.tokens_BL = torch.where(fill_BL, largest_B[:, None], canvas.tokens_BL)
        canvas.undecided_BL = canvas.undecided_BL & ~fill_BL
        canvas.decided_at_BL = torch.where(fill_BL, last_B1, canvas.decided_at_BL)


@policy("method/reviser", "confirm")
class Confirm(NeverRevise):
    """With `enabled`, hold a window that a step of several positions has completed for one call that changes nothing.

    Where an accepted draft had completed it, the published code has known before and makes no such call.
    """

    enabled: bool = False

    def __call__(self, canvas: Canvas, prediction: Prediction, candidates: Candidates, commit_BL: Tensor) -> None:
        """Hold, or let go in the step that follows, which commits nothing."""
        if self.enabled:
            known_B = canvas.memory.get(_KNOWN, torch.zeros_like(canvas.held_B))
            canvas.held_B = (commit_BL.sum(1) > 1) & ~canvas.open_BL.any(1) & ~known_B


@policy("method/verifier", "freedave")
class FreeDave:
    """Evaluate up to `draft_steps` steps at once; with `threshold` a draft need only be a subset of the real step."""

    draft_steps: int = 4
    threshold: float | None = None
    across: bool = True

    def __post_init__(self) -> None:
        if self.draft_steps < 1:
            raise ValueError(f"draft_steps must be at least 1, got {self.draft_steps}")

    def fit(self, method: DiffusionMethod) -> None:
        """Refuse adaptive windows, and tokens that change outside of a window whose surroundings are kept."""
        if not isinstance(method.cache, NoCache) and not isinstance(method.reviser, NeverRevise):
            raise ValueError("the verifier freedave needs exact predictions of what is revised; use method/cache=none")
        if method.foreseers:
            raise ValueError("the verifier freedave cannot draft past windows that depend on a prediction")

    def propose(self, canvas: Canvas, prediction: Prediction, stepped: Canvas, step: Step) -> Canvas:
        """Return the chain of every row; it ends with the window, or with what the prediction has read."""
        origin_R = torch.arange(canvas.num_rows, device=canvas.tokens_BL.device)
        draft = replace(stepped, stores={})
        levels, origins = [draft], [origin_R]
        for _ in range(self.draft_steps - 1):
            goes_R = self._can_go_on(draft, prediction)
            if canvas.stores or not self.across:
                goes_R = goes_R & (draft.window_index_B == canvas.window_index_B[origin_R])
            kept = goes_R.nonzero().squeeze(1)
            if not len(kept):
                break
            prediction, origin_R = prediction.rows(kept), origin_R[kept]
            draft = step(draft.rows(kept), prediction)
            levels.append(draft)
            origins.append(origin_R)
        origin_D, order_D = torch.cat(origins).sort(stable=True)
        drafts = Canvas.cat(levels).rows(order_D)
        if canvas.stores:
            first_D = torch.nn.functional.pad(origin_D.diff(), (1, 0), value=1) > 0
            inside_D = drafts.live_B & (drafts.window_index_B == canvas.window_index_B[origin_D])
            kept_D = (first_D | inside_D).nonzero().squeeze(1)
            return drafts.rows(kept_D).with_stores(stepped.stores, origin_D[kept_D])
        if self.across:
            return drafts.rows(drafts.live_B.nonzero().squeeze(1))
        return drafts.rows(self._published(origin_D, canvas.open_BL.sum(1)))

    def _can_go_on(self, draft: Canvas, prediction: Prediction) -> Tensor:
        if not self.across:
            return draft.live_B
        read_RL = prediction.widened(draft.tokens_BL.shape[1]).read_BL
        return draft.live_B & ~(draft.open_BL & ~read_RL).any(1)

    def _published(self, origin_D: Tensor, masks_B: Tensor) -> Tensor:
        """Return what the published code evaluates: a draft per open position, the last repeated if need be."""
        drafts_B = torch.bincount(origin_D, minlength=len(masks_B))
        missing_B = (masks_B.clamp(max=self.draft_steps) - drafts_B).clamp(min=0).masked_fill(drafts_B == 1, 0)
        copies_D = torch.ones_like(origin_D).index_add(0, drafts_B.cumsum(0) - 1, missing_B)
        return torch.arange(len(origin_D), device=origin_D.device).repeat_interleave(copies_D)

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
            next_R, left_R = self._furthest(drafts, state, target, group_D[at_R][:, None] == group_D, at_R)
            stay, go = (next_R < 0).nonzero().squeeze(1), (next_R >= 0).nonzero().squeeze(1)
            stays.append((state.rows(stay), known.rows(stay), at_R[stay]))
            stays[-1][0].memory[_KNOWN] = left_R[stay]
            before, seen, at_R = state.rows(go), known.rows(go), next_R[go]
            state = target.rows(go) if self.threshold is None else drafts.rows(at_R)
            known = prediction.rows(at_R)
            if len(go):
                observe(before, seen, state)
        states, predictions, origins = zip(*stays, strict=True)
        return Canvas.cat(states).with_stores(stores, torch.cat(origins)), Prediction.cat(predictions)

    def _furthest(
        self, drafts: Canvas, state: Canvas, target: Canvas, own_RD: Tensor, at_R: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the last draft behind `at_R` that agrees with each row's real step, and where it leaves the window.

        -1 stands for none, and for one that leaves it: that is where the real step leads, and its prediction is not
        known.
        """
        row_D = own_RD.long().argmax(0)
        draft_D = torch.arange(drafts.num_rows, device=at_R.device)
        agrees_D = own_RD.any(0) & (draft_D > at_R[row_D])
        agrees_D = agrees_D & (_within if self.threshold is not None else _alike)(drafts, target.rows(row_D))
        next_R = torch.where(own_RD & agrees_D, draft_D, GIVEN).amax(1)
        leaves_D = ~drafts.undecided_BL.any(1)
        if not self.across:
            leaves_D = leaves_D | (drafts.window_index_B != state.window_index_B[row_D])
        left_R = (next_R >= 0) & leaves_D[next_R]
        return next_R.masked_fill(left_R, GIVEN), left_R


def _alike(drafts: Canvas, real: Canvas) -> Tensor:
    """Return which drafts a model cannot tell from the real state: same tokens, decided when and where alike."""
    width = min(drafts.tokens_BL.shape[1], real.tokens_BL.shape[1])
    same_D = drafts.length_B == real.length_B
    for name in ("tokens_BL", "undecided_BL", "window_BL", "decided_at_BL"):
        same_D = same_D & (getattr(drafts, name)[:, :width] == getattr(real, name)[:, :width]).all(1)
    return same_D


def _within(drafts: Canvas, real: Canvas) -> Tensor:
    """Return the drafts all of whose decided tokens the real state has, too."""
    return (drafts.undecided_BL | ((drafts.tokens_BL == real.tokens_BL) & ~real.undecided_BL)).all(1)
