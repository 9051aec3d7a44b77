"""Evaluation of some positions against stored keys and values of the others: what every cache policy is made of.

Shapes: B rows, L positions of the canvas, T query positions of the widest row, S key slots, N read positions.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.engine.canvas import Canvas
from harness.engine.model import AttentionObserver, LanguageModel, LayerPlan, Store
from harness.engine.policies import DiffusionMethod, NeverStop, Unverified, padding_mask
from harness.engine.records import Ledger, Role

_STORE = "cache"
_TOKENS, _LENGTH, _WINDOW, _CALLS = "cache.tokens_BL", "cache.length_B", "cache.window_B", "cache.calls_B"
_NOTHING = -1


def refuse_misfits(method: DiffusionMethod, name: str, *, narrows: bool = False) -> None:
    """Raise ValueError if `method` has policies that the cache `name` cannot work with.

    A cache that `narrows` gives no logits of some open positions.
    """
    if method.guidance.copies != 1:
        raise ValueError(f"the cache {name} keeps the rows of the canvas alone; use it without guidance (scale 0)")
    if not isinstance(method.verifier, Unverified):
        raise ValueError(f"the cache {name} gives no exact predictions of drafts; use method/verifier=none")
    if method.reads_attention():
        raise ValueError(f"the cache {name} computes no attention of whole canvases; use method/cache=none")
    if narrows and not isinstance(method.stopper, NeverStop):
        raise ValueError(f"the cache {name} does not predict every open position; use method/stopper=never")
    if narrows and method.readers():
        reader = type(method.readers()[0]).__name__
        raise ValueError(f"the cache {name} does not predict every position that {reader} reads; use method/cache=none")


@dataclass(frozen=True, kw_only=True)
class Past:
    """What is known of a canvas's earlier evaluations: with which token each position was last computed.

    `calls_B` counts the evaluations since the row's window opened. A row whose length changed starts anew, since its
    positions may have moved.
    """

    tokens_BL: Tensor
    calls_B: Tensor

    @property
    def fresh_B(self) -> Tensor:
        """Rows of which nothing is stored."""
        return (self.tokens_BL == _NOTHING).all(1)

    def changed_BL(self, canvas: Canvas) -> Tensor:
        """Return positions whose token is another one than what is stored was computed with, or that have nothing.

        That is every position committed, edited or masked again since.
        """
        return (self.tokens_BL != canvas.tokens_BL) & whole_BL(canvas)


def recall(canvas: Canvas) -> Past:
    """Return what `remember` kept."""
    tokens_BL = canvas.memory.get(_TOKENS)
    if tokens_BL is None or tokens_BL.shape != canvas.tokens_BL.shape:
        return Past(tokens_BL=torch.full_like(canvas.tokens_BL, _NOTHING), calls_B=torch.zeros_like(canvas.clock_B))
    kept_B = canvas.memory[_LENGTH] == canvas.length_B
    same_B = kept_B & (canvas.memory[_WINDOW] == canvas.window_index_B)
    return Past(
        tokens_BL=tokens_BL.masked_fill(~kept_B[:, None], _NOTHING),
        calls_B=canvas.memory[_CALLS].masked_fill(~same_B, 0),
    )


def remember(canvas: Canvas, past: Past, computed_BL: Tensor) -> None:
    """Keep for the next call that an evaluation has computed and stored the positions `computed_BL`."""
    canvas.memory[_TOKENS] = torch.where(computed_BL, canvas.tokens_BL, past.tokens_BL)
    canvas.memory[_LENGTH] = canvas.length_B
    canvas.memory[_WINDOW] = canvas.window_index_B
    canvas.memory[_CALLS] = past.calls_B + 1


def store_of(canvas: Canvas, make: Callable[[], Store]) -> Store:
    """Return the canvas's store, made new where there is none of its width."""
    store = canvas.stores.get(_STORE)
    if store is None or store.slots != canvas.tokens_BL.shape[1] + 1:
        store = canvas.stores[_STORE] = make()
    return store


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """The chosen positions of each row, T of the widest row; shorter rows are padded by positions not chosen.

    `slot_BT` is the position, or behind the canvas where it is padding; `rank_BL` is the place in T of a position.
    """

    count_B: Tensor
    position_BT: Tensor
    slot_BT: Tensor
    rank_BL: Tensor

    @classmethod
    def of(cls, chosen_BL: Tensor) -> "Gathered":
        """Gather the positions marked in `chosen_BL`, in ascending order."""
        count_B = chosen_BL.sum(1)
        longest = int(count_B.max())
        order_BT = chosen_BL.long().argsort(dim=1, descending=True, stable=True)[:, :longest]
        padded_BT = torch.arange(longest, device=order_BT.device) >= count_B[:, None]
        return cls(
            count_B=count_B,
            position_BT=order_BT,
            slot_BT=order_BT.masked_fill(padded_BT, chosen_BL.shape[1]),
            rank_BL=chosen_BL.long().cumsum(1) - 1,
        )

    def take(self, x_BLX: Tensor) -> Tensor:
        """Return the entries [B, T, ...] of the chosen positions."""
        return x_BLX[torch.arange(x_BLX.shape[0], device=x_BLX.device)[:, None], self.position_BT]

    def put(self, x_BLX: Tensor, values_BTX: Tensor) -> Tensor:
        """Return `x_BLX` with the entries of the chosen positions replaced."""
        out = torch.cat([x_BLX, x_BLX[:, :1]], 1)
        out[torch.arange(x_BLX.shape[0], device=x_BLX.device)[:, None], self.slot_BT] = values_BTX
        return out[:, :-1]


def sources(model: LanguageModel, position_N: Tensor) -> Tensor:
    """Return the positions whose raw logits predict `position_N`: one before, for shifted models."""
    return (position_N - model.spec.shift).clamp(min=0)


def whole_BL(canvas: Canvas) -> Tensor:
    """Return every position that is no padding."""
    position_L = torch.arange(canvas.tokens_BL.shape[1], device=canvas.tokens_BL.device)
    return position_L < canvas.length_B[:, None]


def new_store(model: LanguageModel, canvas: Canvas) -> Store:
    """Return an empty store for the canvas, with a last slot that takes what padded queries write."""
    return model.new_store(canvas.num_rows, canvas.tokens_BL.shape[1] + 1)


def forward_queries(
    ledger: Ledger,
    model: LanguageModel,
    canvas: Canvas,
    store: Store,
    query_BL: Tensor,
    row_N: Tensor,
    position_N: Tensor,
    *,
    key_BL: Tensor | None = None,
    role: Role = Role.TARGET,
    observe: AttentionObserver | None = None,
) -> Tensor:
    """Compute the positions `query_BL` and return aligned logits [N, V] of the read positions, in their order.

    Keys and values of the queries replace those in `store`, in place; queries see the slots `key_BL` (default: all
    that are no padding, which must have been computed before or be among the queries) as the model's structure
    allows. The source of every read position must be a query. Rows without a query are neither changed nor charged.
    """
    width = canvas.tokens_BL.shape[1]
    queries = Gathered.of(query_BL)
    count_B, longest = queries.count_B, queries.position_BT.shape[1]
    source_N = sources(model, position_N)
    assert bool(query_BL[row_N, source_N].all()), "a position that is read is not computed"
    key_BL = whole_BL(canvas) if key_BL is None else key_BL
    busy_R = (count_B > 0).nonzero().squeeze(1)
    return ledger.call(
        model,
        queries.take(canvas.tokens_BL),
        role=role,
        sample_B=canvas.sample_B[busy_R],
        query_B=count_B[busy_R],
        keys_B=key_BL.sum(1)[busy_R],
        head_B=torch.bincount(row_N, minlength=canvas.num_rows)[busy_R],
        positions_BT=queries.position_BT,
        slots_BT=queries.slot_BT,
        kv=store,
        end=width,
        visible_BTS=key_BL[:, None, :],
        select_N=row_N * longest + queries.rank_BL[row_N, source_N],
        decided_at_BT=queries.take(canvas.decided_at_BL),
        observe=observe,
    )


def with_sources(model: LanguageModel, query_BL: Tensor, row_N: Tensor, position_N: Tensor) -> Tensor:
    """Return `query_BL` and every position that the logits of the read positions come from."""
    query_BL = query_BL.clone()
    query_BL[row_N, sources(model, position_N)] = True
    return query_BL


def forward_layers(
    ledger: Ledger, model: LanguageModel, canvas: Canvas, plan: LayerPlan, row_N: Tensor, position_N: Tensor
) -> Tensor:
    """Return aligned logits [N, V] of the read positions, the layers run by `plan`."""
    width = canvas.tokens_BL.shape[1]
    return ledger.call(
        model,
        canvas.tokens_BL,
        role=Role.TARGET,
        sample_B=canvas.sample_B,
        query_B=None,
        keys_B=canvas.length_B,
        head_B=torch.bincount(row_N, minlength=canvas.num_rows),
        plan=plan,
        visible_BTS=padding_mask(canvas.length_B, width),
        select_N=row_N * width + sources(model, position_N),
        decided_at_BT=canvas.decided_at_BL,
    )
