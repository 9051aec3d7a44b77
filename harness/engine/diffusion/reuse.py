"""Evaluation of some positions against stored keys and values of the others: what every cache policy is made of.

Shapes: B rows, L positions of the canvas, T query positions of the widest row, S key slots, N read positions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.draft_forward import forward_drafts
from harness.engine.diffusion.evaluation import EvaluationRequest
from harness.engine.diffusion.standing import outside
from harness.engine.shared.indexing import filled, of_busy, positions
from harness.engine.shared.kv_tree import DraftsStore
from harness.engine.shared.model import ForwardRequest, Layer, ModelSpec, Store
from harness.engine.shared.records import Charge, Role

_STORE = "cache"
# Slots S stay where they are when positions move; 0 is a slot that nothing is stored in, else the token plus 1.
_TOKENS, _WHEN = "cache.tokens_BS", "cache.layout_window_calls_B3"
RENEWS = "cache.renews_B"
"""Rows of which a call that reads what is predicted from before the window keeps more than one that does not."""
_UP_TO_DATE, _NEVER = "reuse.up_to_date", ((None, None), None)


@dataclass(frozen=True, kw_only=True)
class Past:
    """What is known of a canvas's earlier evaluations: with which token each position was last computed.

    `stored_BL` is that token plus 1, 0 where there is none. `calls_B` counts the evaluations since the row's window
    opened, wherever that and the positions moved since; those of `compute_again` go without.
    """

    stored_BL: Tensor
    calls_B: Tensor

    @property
    def fresh_B(self) -> Tensor:
        """Rows of which nothing is stored."""
        return ~self.stored_BL.any(1)

    def changed_BL(self, canvas: Canvas) -> Tensor:
        """Return positions whose token is another one than what is stored was computed with, or that have nothing.

        That is every position committed, edited or masked again since.
        """
        return real(self.stored_BL != _to_store(canvas), canvas)

    def other_BL(self, canvas: Canvas) -> Tensor:
        """Return these, and positions that were computed and are no longer part of their row."""
        return self.stored_BL != real(_to_store(canvas), canvas)


def real(x_BL: Tensor, canvas: Canvas) -> Tensor:
    """Return `x_BL`, nothing where there is padding."""
    return x_BL if canvas.unpadded else x_BL * canvas.whole_BL


def _to_store(canvas: Canvas) -> Tensor:
    return canvas.once("reuse.to_store", (canvas.tokens_BL,), lambda tokens_BL: tokens_BL + 1)


def recall(canvas: Canvas, *, anew: bool = True) -> Past:
    """Return what `remember` kept: no tokens (`anew`) of a row whose positions moved or whose end did."""
    nothing_BL = filled((*canvas.tokens_BL.shape,), 0, torch.int64, canvas.tokens_BL.device)
    if _TOKENS not in canvas.memory:
        return Past(stored_BL=nothing_BL, calls_B=torch.zeros_like(canvas.clock_B))
    when_B3 = canvas.memory[_WHEN]

    def make(stored_BL: Tensor, when_B3: Tensor, *_: Tensor) -> Past:
        layout_B, window_B, calls_B = when_B3.unbind(1)
        return Past(
            stored_BL=stored_BL * (layout_B == canvas.layout_B)[:, None] if anew else stored_BL,
            calls_B=calls_B * (window_B == canvas.window_index_B),
        )

    known = (kept(canvas, _TOKENS, nothing_BL), when_B3, canvas.layout_B, canvas.window_index_B)
    return canvas.once((recall, anew), known, make)


def remember(canvas: Canvas, past: Past, computed_BL: Tensor) -> None:
    """Keep for the next call that an evaluation has computed and stored the positions `computed_BL`."""
    stored_BL = real(torch.where(computed_BL, _to_store(canvas), past.stored_BL), canvas)
    calls_B, now = past.calls_B + 1, (canvas.layout_B, canvas.window_index_B)
    canvas.memory[_TOKENS], canvas.memory[_WHEN] = stored_BL, torch.stack([*now, calls_B], 1)
    # What `recall` finds as long as nothing moves and no window opens.
    known = stored_BL, canvas.memory[_WHEN], *now
    canvas.once((recall, True), known, lambda *_: Past(stored_BL=stored_BL, calls_B=calls_B))


def kept(canvas: Canvas, key: str, default: Tensor) -> Tensor:
    """Return what the memory has under `key`, and `default` where it has nothing: at all, or as the canvas grew."""
    found = canvas.memory.get(key)
    if found is None or found.shape == default.shape:
        return canvas.memory.get(key, default)
    inside = tuple(slice(size) for size in found.shape)
    whole = default.clone()
    whole[inside] = canvas.memory.get(key, default[inside])
    return whole


def store_of(request: EvaluationRequest) -> Store:
    """Return the canvas's keys and values, empty where there are none, and as wide as the canvas has become."""
    return _held(request.canvas, partial(request.model.new_store, request.canvas.num_rows))


def features_of(canvas: Canvas) -> "Features":
    """Return the canvas's features of layers, none at first, and as wide as the canvas has become."""
    features = _held(canvas, Features)
    assert isinstance(features, Features)
    return features


def _held(canvas: Canvas, make: Callable[[int], Store]) -> Store:
    """Return what the canvas holds, made of slots for its positions and a last one for what padded queries write."""
    store, slots = canvas.stores.get(_STORE), canvas.tokens_BL.shape[1] + 1
    if store is None or store.slots != slots:
        store = canvas.stores[_STORE] = make(slots) if store is None else store.grown(slots)
    return store


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """The chosen positions of each row, T of the widest row; shorter rows are padded by positions not chosen.

    `counts` are their numbers, `slot_BT` the position, or behind the canvas where it is padding.
    """

    chosen_BL: Tensor
    count_B: Tensor
    counts: Sequence[int]
    position_BT: Tensor
    slot_BT: Tensor

    @classmethod
    def of(cls, chosen_BL: Tensor, count_B: Tensor | None = None, counts: Sequence[int] | None = None) -> "Gathered":
        """Gather the positions marked in `chosen_BL`, in ascending order; `counts` are their numbers, if at hand."""
        count_B = chosen_BL.sum(1) if count_B is None else count_B
        counts = count_B.tolist() if counts is None else counts
        longest = max(counts)
        position_BT = slot_BT = chosen_BL.long().argsort(dim=1, descending=True, stable=True)[:, :longest]
        if min(counts) < longest:
            padded_BT = positions(longest, position_BT.device) >= count_B[:, None]
            slot_BT = position_BT.masked_fill(padded_BT, chosen_BL.shape[1])
        return cls(chosen_BL=chosen_BL, count_B=count_B, counts=counts, position_BT=position_BT, slot_BT=slot_BT)

    @cached_property
    def rank_BL(self) -> Tensor:
        """The place in T of each chosen position."""
        return self.chosen_BL.cumsum(1) - 1

    @cached_property
    def place_BL(self) -> Tensor:
        """The same, counted through all rows."""
        (rows, longest), device = self.position_BT.shape, self.position_BT.device
        return self.rank_BL + positions(rows * longest, device)[::longest][:, None]

    @property
    def _row_B1(self) -> Tensor:
        return positions(len(self.counts), self.position_BT.device)[:, None]

    def take(self, x_BLX: Tensor) -> Tensor:
        """Return the entries [B, T, ...] of the chosen positions."""
        return x_BLX[self._row_B1, self.position_BT]

    def put(self, x_BLX: Tensor, values_BTX: Tensor) -> Tensor:
        """Return `x_BLX` with the entries of the chosen positions replaced."""
        out = torch.cat([x_BLX, x_BLX[:, :1]], 1)
        self.write(out, values_BTX)
        return out[:, :-1]

    def write(self, x_BSX: Tensor, values_BTX: Tensor) -> None:
        """Replace the entries of the chosen positions in place; what padding has goes to the slot behind them."""
        x_BSX[self._row_B1, self.slot_BT] = values_BTX


def forward_queries(
    request: EvaluationRequest,
    store: Store,
    query_BL: Tensor,
    *,
    key_BL: Tensor | None = None,
    role: Role = Role.TARGET,
    queries: Gathered | None = None,
) -> Tensor:
    """Compute the positions `query_BL` and return aligned logits [N, V] of the read positions, in their order.

    Keys and values of the queries replace those in `store`, in place; queries see the slots `key_BL` (default: all
    that are no padding, which must have been computed before or be among the queries) as the model's structure
    allows. The source of every read position must be a query. Rows without a query are neither changed nor charged.
    `queries` are those positions where they are gathered already, which spares a wait.
    """
    canvas, read_N = request.canvas, request.select_N
    keys_B, key_BL = (canvas.length_B, canvas.whole_BL) if key_BL is None else (key_BL.sum(1), key_BL)
    if isinstance(store, DraftsStore):
        return forward_drafts(request, store, query_BL, key_DL=key_BL, keys_D=keys_B, role=role)
    if queries is None:
        count_B, found = query_BL.sum(1), query_BL.view(-1).index_select(0, read_N).sum(0, keepdim=True)
        *counts, found = torch.cat([count_B, found]).tolist()
        assert found == len(read_N), "a position that is read is not computed"
        queries = Gathered.of(query_BL, count_B, counts)
    # No mask at all is faster than one that hides nothing.
    masked = key_BL is not None or not canvas.unpadded
    busy = partial(of_busy, queries.counts)
    window = ForwardRequest(
        queries.take(canvas.tokens_BL),
        positions_BT=queries.position_BT,
        slots_BT=queries.slot_BT,
        kv=store,
        end=canvas.tokens_BL.shape[1],
        visible_BTS=key_BL[:, None] if masked else None,
        select_N=queries.place_BL.view(-1).index_select(0, read_N),
        decided_at_BT=queries.take(canvas.decided_at_BL),
        observe=request.observe,
    )
    charge = Charge(
        role=role,
        sample_B=busy(canvas.sample_B),
        query_B=busy(queries.count_B),
        keys_B=busy(keys_B),
        head_B=busy(request.head_B),
        reused=lambda: busy(key_BL & ~query_BL),
    )
    return request.call(window, charge)


def compute(request: EvaluationRequest, query_BL: Tensor, past: Past) -> Tensor:
    """Compute and keep `query_BL` and the sources of the read positions; return aligned logits [N, V] of these."""
    canvas = request.canvas
    query_BL = with_sources(request, real(query_BL, canvas))
    logits_NV = forward_queries(request, store_of(request), query_BL)
    remember(canvas, past, query_BL)
    return logits_NV


def renews(request: EvaluationRequest, more: Callable[[], Tensor]) -> None:
    """Leave RENEWS, on models whose logits are shifted: such a call keeps the positions [B, L] of `more` besides."""
    if request.model.spec.shift:
        request.canvas.memory[RENEWS] = more().any(1)


def up_to_date(canvas: Canvas) -> None:
    """Know that what is stored of all positions was computed with the tokens that they have, in the present window."""
    canvas.known[_UP_TO_DATE] = (canvas.memory[_TOKENS], canvas.window_BL), outside(canvas)


def compute_again(request: EvaluationRequest, query_BL: Tensor) -> Tensor | None:
    """Compute and keep `query_BL`, which holds the window, if the host knows that nothing else has changed or is read.

    Return None where it does not: the window is another one than at the call that `up_to_date` followed, a policy has
    changed other tokens or reads elsewhere, or drafts share what is stored. Nobody waits for the device, but where the
    window has just opened.
    """
    canvas, ((tokens_BS, window_BL), since_BL) = request.canvas, request.canvas.known.get(_UP_TO_DATE, _NEVER)
    stayed = window_BL is canvas.window_BL and tokens_BS is canvas.memory.get(_TOKENS) and outside(canvas) is since_BL
    inside = request.places.known_BL is canvas.open_BL and not request.model.spec.shift
    store = canvas.stores.get(_STORE)
    if not (stayed and inside) or store is None or isinstance(store, DraftsStore):
        return None
    known = query_BL, canvas.length_B
    queries = canvas.once(Gathered, known, lambda query_BL, _: Gathered.of(real(query_BL, canvas)))
    logits_NV = forward_queries(request, store, queries.chosen_BL, queries=queries)
    canvas.memory[_TOKENS] = real(_to_store(canvas), canvas)
    up_to_date(canvas)
    return logits_NV


def with_sources(request: EvaluationRequest, query_BL: Tensor) -> Tensor:
    """Return `query_BL` and every position that the logits of the read positions come from."""
    return query_BL.reshape(-1).index_fill(0, request.select_N, True).view_as(query_BL)


def sources(request: EvaluationRequest) -> Tensor:
    """Return every position that the logits of the read positions come from, [B, L]."""
    if not request.model.spec.shift:
        return request.places.marked_BL
    nothing_BL = filled(request.places.shape, False, torch.bool, request.select_N.device)
    return with_sources(request, nothing_BL)


def top_probability(logits_NV: Tensor, spec: ModelSpec) -> Tensor:
    """Return the probability [N] of the most probable token, the mask token left out."""
    if spec.mask_id is not None:
        logits_NV = logits_NV.index_fill(1, torch.tensor([spec.mask_id], device=logits_NV.device), -torch.inf)
    return logits_NV.softmax(-1).amax(-1)


class Features:
    """What layers computed of every position, [B, L, ...], by name and layer; written in place.

    A store of `harness.engine.shared.model.Store`, for plans; the last slot takes what padded positions write.
    """

    def __init__(self, slots: int, tensors: dict[tuple[str, int], Tensor] | None = None) -> None:
        self.slots = slots
        self._tensors = {} if tensors is None else tensors

    def rows(self, index_B: Tensor) -> "Features":
        """Return a copy with the rows of `index_B`, in that order, repeats allowed."""
        return Features(self.slots, {key: kept.index_select(0, index_B) for key, kept in self._tensors.items()})

    def grown(self, slots: int) -> "Features":
        """Return a copy with more slots, which hold nothing yet."""
        made = {
            key: torch.cat([old, old.new_zeros(old.shape[0], slots - self.slots, *old.shape[2:])], 1)
            for key, old in self._tensors.items()
        }
        return Features(slots, made)

    def extended(self, rows: int) -> "Features":
        """Return a copy with so many more rows behind its own, which hold nothing yet."""
        made = {key: torch.cat([old, old.new_zeros(rows, *old.shape[1:])]) for key, old in self._tensors.items()}
        return Features(self.slots, made)

    def get(self, name: str, layer: int, default: Tensor | None = None) -> Tensor:
        """Return the entries of all positions, zeros where none was put, or `default` if none was anywhere."""
        if default is not None and (name, layer) not in self._tensors:
            return default
        return self._tensors[name, layer][:, :-1]

    def put(self, name: str, layer: int, at: Gathered, values_BTX: Tensor) -> Tensor:
        """Replace the entries of the chosen positions; return those of all positions."""
        rows, inner = values_BTX.shape[0], values_BTX.shape[2:]
        if (name, layer) not in self._tensors:
            self._tensors[name, layer] = values_BTX.new_zeros(rows, self.slots, *inner)
        at.write(self._tensors[name, layer], values_BTX)
        return self.get(name, layer)


def run_layer(features: Features, index: int, layer: Layer, x_BLC: Tensor, at: Gathered) -> Tensor:
    """Run a layer for the chosen positions against kept keys and values of the others; return the stream behind it.

    Other positions of the stream are left as they are.
    """
    if not at.position_BT.shape[1]:
        return x_BLC
    x_BTC = at.take(x_BLC)
    queries, keys, values = layer.project(x_BTC, at.position_BT)
    keys, values = features.put("keys", index, at, keys), features.put("values", index, at, values)
    x_BTC = x_BTC + layer.attend(queries, keys, values, at.position_BT)
    return at.put(x_BLC, x_BTC + layer.feed_forward(x_BTC))
