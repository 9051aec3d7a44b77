"""The drafts of a row of the canvas as one row of the model, which `harness.engine.shared.kv_tree` keeps apart.

Shapes: D drafts, R rows of the model, L positions, E queries of all drafts, T queries of the widest row, S slots.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor

from harness.engine.diffusion.evaluation import EvaluationRequest
from harness.engine.shared.indexing import filled, of_busy
from harness.engine.shared.kv_tree import DraftsStore
from harness.engine.shared.model import ForwardRequest
from harness.engine.shared.records import Charge, Role


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Where the queries of drafts stand in the rows of the model, whose places are counted through all rows.

    `at_DL` is the place of every query, `from_T` what stands at each place: which position, counted through all drafts.
    Shorter rows are padded by the first position of their first draft. `slot_T` is where its keys and values go, and
    `queries` how many each row has, on the device `query_R`; `query_D` is how many each draft has.
    """

    queries: Sequence[int]
    query_R: Tensor
    query_D: Tensor
    at_DL: Tensor
    from_T: Tensor
    slot_T: Tensor

    @classmethod
    def of(cls, store: DraftsStore, query_DL: Tensor) -> "_Rows":
        """Lay the positions `query_DL` out, row by row and draft by draft, and have the store keep them apart."""
        query_D, (_, width), device = query_DL.sum(1), query_DL.shape, query_DL.device
        moves_DL, counts, moved = store.moving(query_DL, query_D)
        of_rows, rows = store.of_rows(counts), len(store.drafts)
        queries = [sum(one) for one in of_rows]
        longest = max(queries)
        starts = [at for row, one in enumerate(of_rows) for at in accumulate(one[:-1], initial=row * longest)]
        firsts = [draft * width for draft in accumulate(store.drafts[:-1], initial=0)]
        numbers = torch.tensor([*starts, *store.take(moved), *queries, *firsts], device=device)
        start_D, slot_D, query_R, first_R = numbers.split([len(starts), len(starts), rows, rows])
        at_DL = query_DL.cumsum(1) + (start_D - 1)[:, None]
        store.slot_DL = torch.where(moves_DL, moves_DL.cumsum(1) + (slot_D - 1)[:, None], store.slot_DL)
        flat_E = torch.nonzero_static(query_DL.view(-1), size=sum(counts)).view(-1)
        at_E = at_DL.view(-1).index_select(0, flat_E)
        from_T = first_R[:, None].expand(-1, longest).reshape(-1).index_copy(0, at_E, flat_E)
        behind_T = filled((rows * longest,), width, torch.int64, device)
        slot_T = behind_T.index_copy(0, at_E, store.slot_DL.view(-1).index_select(0, flat_E))
        return cls(
            queries=queries, query_R=query_R, query_D=query_D, at_DL=at_DL, from_T=from_T, slot_T=slot_T,
        )  # fmt: skip

    def take(self, x_DL: Tensor) -> Tensor:
        """Return what positions have, [R, T]."""
        return x_DL.reshape(-1).index_select(0, self.from_T).view(len(self.queries), -1)


def forward_drafts(
    request: EvaluationRequest, store: DraftsStore, query_DL: Tensor, *, key_DL: Tensor, keys_D: Tensor, role: Role
) -> Tensor:
    """Compute the positions `query_DL` of all drafts, the rows of the request: one row of the model for those of a row.

    Return aligned logits [N, V] of the read positions. Arguments are those of
    `harness.engine.diffusion.reuse.forward_queries`; `keys_D` is how many keys each draft sees.
    """
    drafts, made = request.canvas, _Rows.of(store, query_DL)
    rows, width, device = len(made.queries), query_DL.shape[1], query_DL.device
    none_R, busy = filled((rows,), 0, torch.int64, device), partial(of_busy, made.queries)
    draft_T, position_T = made.from_T // width, made.from_T % width
    visible_TS = store.visible(key_DL, draft_T, position_T, request.model.spec.block_length)
    seen_R = none_R.index_add(0, store.row_D, keys_D * made.query_D)
    window = ForwardRequest(
        made.take(drafts.tokens_BL),
        positions_BT=position_T.view(rows, -1),
        slots_BT=made.slot_T.view(rows, -1),
        kv=store.shared,
        end=store.shared.slots,
        visible_BTS=visible_TS.view(rows, -1, visible_TS.shape[1]),
        structured=False,
        select_N=made.at_DL.view(-1).index_select(0, request.select_N),
        decided_at_BT=made.take(drafts.decided_at_BL),
        observe=request.observe,
    )
    charge = Charge(
        role=role,
        sample_B=busy(none_R.index_copy(0, store.row_D, drafts.sample_B)),
        query_B=busy(made.query_R),
        keys_B=busy(seen_R / made.query_R),
        head_B=busy(none_R.index_add(0, store.row_D, request.head_B)),
        reused=lambda: busy(made.query_R.new_zeros(rows, width).index_add(0, store.row_D, (key_DL & ~query_DL).long())),
    )
    return request.call(window, charge)
