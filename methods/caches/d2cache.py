"""d2Cache: compute the masks that are next, the tokens just decided, and those that are looked at (arXiv:2509.23094).

Symbol -> knob: masks per call -> k (default 32), width of the certainty density -> sigma (default 10), share of the
attention rollout -> p_roll (default 0.1), distance of two chosen positions up to which all between them are chosen, too
-> w (default 0; 1 does nothing), frozen_conf (default false). The first call computes everything. Each later one
computes the k masks with the largest last confidence times certainty density, those of the window first, up to the end
of the block (of the window's length, from its start) where k masks have been counted; the tokens that changed since
they were computed; and of all other positions those of the largest attention rollout, up to p_roll of the others' sum,
one at least. Keys and values of the rest stay.
Use: `method=threshold method/cache=d2cache method.cache.k=8 method.cache.sigma=3`.
Deviations from the authors' code: theirs never updates the confidence after the first call; `frozen_conf` does the
same. Rows are ragged and not topped up. On shifted models the positions before the masks are computed besides.
Invariant: k at least the response and p_roll = 1 equals no cache.
"""

from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.evaluation import EvaluationRequest
from harness.engine.diffusion.needs import Gives, Leaves
from harness.engine.diffusion.positional import sources_of
from harness.engine.diffusion.reuse import (
    Gathered,
    forward_queries,
    kept,
    recall,
    remember,
    store_of,
    top_probability,
)
from harness.engine.shared.indexing import filled as constant
from harness.engine.shared.indexing import positions
from harness.engine.shared.places import Places
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import top
from harness.errors import FieldError, at_least
from methods.diffusion.certainty_prior import certainty_density

_QUERY, _CONFIDENCE, _IMPORTANCE = "d2cache.query_BL", "d2cache.confidence_BL", "d2cache.importance_BL"
_SHIFT = "d2cache.shift_B"
_ROUNDING = 1e-6


@policy("method/cache", "d2cache")
class DualAdaptiveCache:
    """Compute `k` masks, what changed, and what attention flows to."""

    gives = Gives(leaves=Leaves.open)

    k: int = 32
    sigma: float = 10.0
    p_roll: float = 0.1
    w: int = 0
    frozen_conf: bool = False

    def __post_init__(self) -> None:
        at_least(1, k=self.k)
        if self.sigma <= 0:
            raise FieldError("sigma", self.sigma, "be above 0")
        if not 0 <= self.p_roll <= 1:
            raise FieldError("p_roll", self.p_roll, "be between 0 and 1")
        at_least(0, w=self.w)

    def narrow(self, canvas: Canvas, read_BL: Tensor, quota_B: Tensor | None) -> Tensor:
        """Return the positions that will be computed, of those read."""
        past, whole = recall(canvas), canvas.whole_BL
        chosen_BL = self._masks(canvas) | past.changed_BL(canvas)
        others_BL = whole & ~_with_sources_of(canvas, chosen_BL)
        query_BL = chosen_BL | nucleus(self._importance(canvas), others_BL, self.p_roll)
        query_BL = (filled(query_BL, self.w) | past.fresh_B[:, None]) & whole
        canvas.memory[_QUERY] = query_BL
        return read_BL & query_BL

    def _importance(self, canvas: Canvas) -> Tensor:
        return kept(canvas, _IMPORTANCE, _nothing(canvas))

    def _masks(self, canvas: Canvas) -> Tensor:
        """Return the `k` masks that are next."""
        density_BL = certainty_density(canvas, self.sigma)
        score_BL = kept(canvas, _CONFIDENCE, _nothing(canvas)) * density_BL
        score_BL = torch.where(canvas.undecided_BL, score_BL, 0.0)
        score_BL = score_BL + score_BL.amax(1, keepdim=True) * canvas.window_BL
        part_BL = canvas.once(DualAdaptiveCache, (canvas.window_BL,), lambda window_BL: _parts(canvas, window_BL))
        masked_BL = canvas.undecided_BL & (part_BL >= 0)
        enough_BL = masked_BL.cumsum(1) >= self.k
        last_B1 = torch.where(enough_BL, part_BL, canvas.tokens_BL.shape[1]).amin(1, keepdim=True)
        return top(score_BL, masked_BL & (part_BL <= last_B1), self.k)

    def evaluate(self, request: EvaluationRequest) -> Tensor:
        """Return aligned logits of the read positions, which `narrow` has chosen."""
        canvas, spec = request.canvas, request.model.spec
        past, query_BL = recall(canvas), canvas.memory[_QUERY]
        asked_BL = (query_BL & canvas.undecided_BL) | request.places.marked_BL
        query_BL = query_BL | sources_of(asked_BL, spec.shift)
        count_B = query_BL.sum(1)
        counts, asked = torch.stack([count_B, asked_BL.sum(1)]).tolist()
        queries, places = Gathered.of(query_BL, count_B, counts), Places.marked(asked_BL, asked)
        rollout = Rollout(queries)
        watched = replace(request, places=places, observe=rollout)
        logits_MV = forward_queries(watched, store_of(request), query_BL, queries=queries)
        told_BL = asked_BL & past.fresh_B[:, None] if self.frozen_conf else asked_BL
        sure_BL = places.put(top_probability(logits_MV.double(), spec), 0.0)
        confidence_BL = kept(canvas, _CONFIDENCE, _nothing(canvas))
        canvas.memory |= {
            _CONFIDENCE: torch.where(told_BL, sure_BL, confidence_BL),
            _IMPORTANCE: rollout.flow_BLL.sum(1),
        }
        if spec.shift:
            canvas.memory[_SHIFT] = torch.full_like(canvas.clock_B, spec.shift)
        remember(canvas, past, query_BL)
        rank_BL = asked_BL.view(-1).cumsum(0).view_as(asked_BL) - 1
        return logits_MV.index_select(0, request.places.take(rank_BL))


class Rollout:
    """Attention rollout, the product over layers of row-normalised (attention + identity): [B, to, from].

    Positions that are no queries pass themselves on.
    """

    def __init__(self, queries: Gathered) -> None:
        rows, width = queries.chosen_BL.shape
        self.queries = queries
        self.flow_BLL = _identity(width, queries.chosen_BL.device).expand(rows, -1, -1)

    def __call__(self, layer: int, attention_BTS: Tensor) -> None:
        """Multiply by one layer."""
        attention_BTS = attention_BTS.double()
        flow_BTL = attention_BTS @ self.flow_BLL + self.queries.take(self.flow_BLL)
        self.flow_BLL = self.queries.put(self.flow_BLL, flow_BTL / (attention_BTS.sum(2, keepdim=True) + 1))


@lru_cache
def _identity(width: int, device: torch.device) -> Tensor:
    """Return the identity [L, L]; the same tensor to all, so that nobody may write to it."""
    with torch.inference_mode(False):
        return torch.eye(width, dtype=torch.float64, device=device)


def _nothing(canvas: Canvas) -> Tensor:
    """Return zeros [B, L]; nobody may write to them."""
    return constant((*canvas.tokens_BL.shape,), 0.0, torch.float64, canvas.tokens_BL.device)


def _parts(canvas: Canvas, window_BL: Tensor) -> Tensor:
    """Return which of the parts, each as long as the window, every position is in, from that on; -1 or less before."""
    return canvas.window_place_BL // window_BL.sum(1, keepdim=True).clamp(min=1)


def _with_sources_of(canvas: Canvas, chosen_BL: Tensor) -> Tensor:
    """Return the chosen positions, and those that the logits of the undecided ones among them come from."""
    if _SHIFT not in canvas.memory:
        return chosen_BL
    shift_B1 = kept(canvas, _SHIFT, torch.zeros_like(canvas.clock_B))[:, None]
    reader_BL = canvas.position_L + shift_B1
    inside_BL, last = reader_BL < canvas.tokens_BL.shape[1], canvas.tokens_BL.shape[1] - 1
    read_BL = (chosen_BL & canvas.undecided_BL).gather(1, reader_BL.clamp(max=last))
    return chosen_BL | (read_BL & inside_BL)


def nucleus(importance_BL: Tensor, open_BL: Tensor, share: float) -> Tensor:
    """Return the most important open positions while they sum to at most `share` of all open ones, one at least."""
    importance_BL = torch.where(open_BL, importance_BL, 0.0)
    sorted_BL = importance_BL.sort(dim=1, descending=True).values
    limit_B1 = share * (1 + _ROUNDING) * importance_BL.sum(1, keepdim=True)
    count_B = (sorted_BL.cumsum(1) <= limit_B1).sum(1).clamp(min=1)
    return top(importance_BL, open_BL, count_B)


def filled(chosen_BL: Tensor, distance: int) -> Tensor:
    """Return `chosen_BL` and what lies between two of them that are neighbours and at most `distance` apart."""
    if distance < 2:
        return chosen_BL
    width = chosen_BL.shape[1]
    at_L = positions(width, chosen_BL.device)
    before_BL = torch.where(chosen_BL, at_L, -width).cummax(1).values
    behind_BL = torch.where(chosen_BL, at_L, 3 * width).flip(1).cummin(1).values.flip(1)
    return chosen_BL | (behind_BL - before_BL <= distance)
