"""Evaluation of some positions against stored keys and values of the others: what every cache policy is made of.

Shapes: B rows, L positions of the canvas, T query positions of the widest row, S key slots, N read positions.
"""

import torch
from torch import Tensor

from harness.engine.canvas import Canvas
from harness.engine.model import AttentionObserver, LanguageModel, Store
from harness.engine.records import Ledger, Role


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
    count_B = query_BL.sum(1)
    longest = int(count_B.max())
    order_BT = query_BL.long().argsort(dim=1, descending=True, stable=True)[:, :longest]
    padded_BT = torch.arange(longest, device=order_BT.device) >= count_B[:, None]
    rank_BL = query_BL.long().cumsum(1) - 1
    source_N = sources(model, position_N)
    assert bool(query_BL[row_N, source_N].all()), "a position that is read is not computed"
    key_BL = whole_BL(canvas) if key_BL is None else key_BL
    busy_R = (count_B > 0).nonzero().squeeze(1)
    return ledger.call(
        model,
        canvas.tokens_BL.gather(1, order_BT),
        role=role,
        sample_B=canvas.sample_B[busy_R],
        query_B=count_B[busy_R],
        keys_B=key_BL.sum(1)[busy_R],
        head_B=torch.bincount(row_N, minlength=canvas.num_rows)[busy_R],
        positions_BT=order_BT,
        slots_BT=order_BT.masked_fill(padded_BT, width),
        kv=store,
        end=width,
        visible_BTS=key_BL[:, None, :],
        select_N=row_N * longest + rank_BL[row_N, source_N],
        decided_at_BT=canvas.decided_at_BL.gather(1, order_BT),
        observe=observe,
    )
