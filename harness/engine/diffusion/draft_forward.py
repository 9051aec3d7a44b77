"""The drafts of a row of the canvas as one row of the model, which `harness.engine.shared.kv_tree` keeps apart.

Shapes: D drafts, R rows of the model, L positions, E queries of all drafts, T queries of the widest row, S slots.
"""

import torch
from torch import Tensor

from harness.engine.diffusion.evaluation import EvaluationRequest
from harness.engine.shared.indexing import Busy, per_row, positions
from harness.engine.shared.kv_tree import DraftsStore
from harness.engine.shared.model import ForwardRequest
from harness.engine.shared.records import Charge, Role


def _place_in_row(row_E: Tensor, count_R: Tensor) -> Tensor:
    """Return the place of every entry among those of its row, of which there are so many; rows in ascending order."""
    return positions(len(row_E), row_E.device) - (count_R.cumsum(0) - count_R)[row_E]


def forward_drafts(
    request: EvaluationRequest, store: DraftsStore, query_DL: Tensor, *, key_DL: Tensor, role: Role
) -> Tensor:
    """Compute the positions `query_DL` of all drafts, the rows of the request: one row of the model for those of a row.

    Return aligned logits [N, V] of the read positions. Arguments are those of
    `harness.engine.diffusion.reuse.forward_queries`.
    """
    drafts, draft_N, source_N = request.canvas, request.row_N, request.source_N
    rows, width = len(store.drafts_R), drafts.tokens_BL.shape[1]
    draft_E, position_E = query_DL.nonzero(as_tuple=True)
    row_E = store.row_D[draft_E]
    query_R = per_row(row_E, rows)
    place_E, counts = _place_in_row(row_E, query_R), query_R.tolist()
    longest, busy = max(counts), Busy(counts)
    first_R = store.drafts_R.cumsum(0) - store.drafts_R
    padding_R3 = torch.stack([torch.zeros_like(first_R), first_R, torch.full_like(first_R, width)], 1)
    laid_out_RT3 = padding_R3[:, None].repeat(1, longest, 1)
    laid_out_RT3[row_E, place_E] = torch.stack([position_E, draft_E, store.write(draft_E, position_E)], 1)
    position_RT, draft_RT, slot_RT = laid_out_RT3.unbind(2)
    place_DL = torch.zeros_like(drafts.tokens_BL)
    place_DL[draft_E, position_E] = place_E
    keys_R = torch.zeros_like(query_R).index_add(0, row_E, key_DL.sum(1)[draft_E])
    head_R = per_row(store.row_D[draft_N], rows)
    window = ForwardRequest(
        drafts.tokens_BL[draft_RT, position_RT],
        positions_BT=position_RT,
        slots_BT=slot_RT,
        kv=store.shared,
        end=store.shared.slots,
        visible_BTS=store.visible(key_DL, draft_RT, position_RT, request.model.spec.block_length),
        structured=False,
        select_N=store.row_D[draft_N] * longest + place_DL[draft_N, source_N],
        decided_at_BT=drafts.decided_at_BL[draft_RT, position_RT],
        observe=request.observe,
    )
    charge = Charge(
        role=role,
        sample_B=busy(drafts.sample_B[first_R]),
        query_B=busy(query_R),
        keys_B=busy(keys_R / query_R),
        head_B=busy(head_R),
        reused=lambda: busy(query_R.new_zeros(rows, width).index_add(0, store.row_D, (key_DL & ~query_DL).long())),
    )
    return request.call(window, charge)
