"""Caches of block-causal models: finished blocks are computed for the last time.

Source: SDAR; Fast-dLLM v2, arXiv:2509.26328.

Blocks are the model's, counted from absolute position 0. A position sees its own block and those before, so keys and
values of a block are final as soon as its tokens and those before are: `block_causal` is exact, whatever the decoder's
windows are. Each call computes the blocks from the first that is not stored to the last that is read from.

| block | when it is stored |
|---|---|
| of the prompt | by a prefill |
| finished by a step | by a call of its own, a cache call; `merged`: by the next evaluation, which computes it, too |
| from which all is predicted that is read (shifted models) | by the evaluation itself |
| the last one, or finished by a draft alone | never |

`sub_block` (Fast-dLLM v2: use_block_cache) reuses keys and values within a block, too: most calls compute the window
alone, and replace its keys and values in place, which are stale until the block is stored.

| call of sub_block | computes |
|---|---|
| that opens a window, reads what is predicted from before it, or follows a change outside of it | the whole block |
| any other | the sub-block, that is the window; counted from position 0 where windows are, with what is given in it |
| with a sub-block that reaches into several blocks | what block_causal does |

Deviations from the authors' code: rows are independent (there, one row whose sub-block begins with a mask has the whole
block computed for all); a sub-block's opening call computes the whole block also where the model is not shifted.
Use: `model=tiny_block method=threshold method.block_length=8 method/cache=block_causal`.
Invariants: `block_causal` equals no cache; `sub_block` with windows of a whole block equals `block_causal`.
"""

from dataclasses import dataclass, replace
from functools import partial, reduce

import torch
from torch import Tensor

from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.evaluation import EvaluationRequest
from harness.engine.diffusion.needs import Gives, Needs
from harness.engine.diffusion.reuse import Gathered, forward_queries, real, remember, renews, store_of
from harness.engine.shared.model import ModelKind
from harness.engine.shared.policy import policy
from harness.engine.shared.records import Role
from methods.caches.finished_blocks import FINAL, Blocks, part_of_window


@policy("method/cache", "block_causal")
class BlockCausalCache:
    """Store finished blocks; `merged`: with the next call, not by a call of their own."""

    gives = Gives(drafts=True, any_draft=True, shared=True)
    # In other models, finished blocks change with every later token.
    needs = Needs(kinds=frozenset({ModelKind.BLOCK_DIFFUSION}))

    merged: bool = False

    def evaluate(self, request: EvaluationRequest) -> Tensor:
        """Return aligned logits of the read positions."""
        return _evaluate(request, merged=self.merged)


@policy("method/cache", "sub_block")
class SubBlockCache:
    """Store finished blocks, and keep the rest of a block while the calls of a window go on."""

    gives = Gives(drafts=True, shared=True)
    needs = Needs(kinds=frozenset({ModelKind.BLOCK_DIFFUSION}))

    def evaluate(self, request: EvaluationRequest) -> Tensor:
        """Return aligned logits of the read positions."""
        return _evaluate(request, sub_blocks=True)


@dataclass(frozen=True, kw_only=True)
class _Call:
    """The positions that a call computes, those of blocks before `end_B` being seen."""

    role: Role
    query_BL: Tensor
    end_B: Tensor


def _evaluate(
    request: EvaluationRequest,
    *,
    merged: bool = False,
    sub_blocks: bool = False,
) -> Tensor:
    """Store finished blocks, then compute what is read and is not yet answered by that."""
    canvas, blocks, drafted_BL = request.canvas, Blocks.of(request), _drafted(request.canvas)
    calls, answered_B = ([], None) if merged else _storing(canvas, blocks, drafted_BL)
    final_B = torch.maximum(blocks.final_B, calls[-1].end_B) if calls else blocks.final_B
    end_B = blocks.end_B
    query_BL, known_B = blocks.between(final_B, end_B), torch.maximum(final_B, end_B)
    if sub_blocks:
        part_BL = part_of_window(canvas)
        light_B = blocks.part_is_enough(part_BL)
        block_BL, query_BL = query_BL, torch.where(light_B[:, None], part_BL, query_BL)
        known_B = torch.where(light_B, end_B - 1, known_B)
        renews(request, lambda: block_BL & ~part_BL)
    query_BL = query_BL | blocks.source_BL
    query_BL = query_BL if answered_B is None else query_BL & ~answered_B[:, None]
    calls.append(_Call(role=Role.TARGET, query_BL=query_BL, end_B=end_B))
    logits_NV, computed_BL = _make(request, calls, blocks, answered_B)
    canvas.memory[FINAL] = torch.minimum(known_B, blocks.first(drafted_BL))
    remember(canvas, blocks.past, computed_BL)
    return logits_NV


def _drafted(canvas: Canvas) -> Tensor:
    """Return positions whose decision a verifier may drop: nothing of them is stored for good."""
    return canvas.decided_at_BL >= canvas.draft_from_B[:, None]


def _storing(canvas: Canvas, blocks: Blocks, drafted_BL: Tensor) -> tuple[list[_Call], Tensor | None]:
    """Return the calls that store blocks, and the rows whose prefill answers all that is read (None: there are none).

    Where all that is read comes from finished blocks, the evaluation stores them; at first it is the prefill.
    """
    finished_B = blocks.first(canvas.undecided_BL | drafted_BL)
    further_B = finished_B < blocks.end_B
    if canvas.memory.complete(FINAL):
        stored_B = finished_B * further_B
        store_BL = blocks.between(blocks.final_B, stored_B)
        return [_Call(role=Role.CACHE, query_BL=store_BL, end_B=stored_B)], None
    prompt_B = canvas.calls_B == 0
    stored_B = torch.where(further_B, finished_B, blocks.end_B * prompt_B)
    store_BL = blocks.between(blocks.final_B, stored_B)
    first_BL = store_BL & prompt_B[:, None]
    prefill = _Call(role=Role.PREFILL, query_BL=first_BL, end_B=stored_B)
    return [prefill, _Call(role=Role.CACHE, query_BL=store_BL ^ first_BL, end_B=stored_B)], prompt_B & ~further_B


def _make(
    request: EvaluationRequest, calls: list[_Call], blocks: Blocks, answered_B: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Make the calls that compute anything; return the logits and all that was computed.

    What is read is taken from the last one, that of the rows `answered_B` from the first.
    """
    store, canvas = store_of(request), request.canvas
    logits_NV, made = None, []
    query_CBL = real(torch.stack([call.query_BL for call in calls]), canvas)
    count_CB = query_CBL.sum(2)
    # One transfer for all calls: how much each computes, and which rows the first one is read for.
    told = (count_CB if answered_B is None else torch.cat([count_CB, answered_B[None]])).tolist()
    answered = [0] * canvas.num_rows if answered_B is None else told.pop()
    reads = {Role.PREFILL: answered, Role.TARGET: [not one for one in answered]}
    for call, counts, query_BL, count_B in zip(calls, told, query_CBL, count_CB, strict=True):
        if not any(counts):
            continue
        read = reads.get(call.role, [])
        made.append(query_BL)
        queries = Gathered.of(query_BL, count_B, counts)
        # Rows without a query see something, too: of nothing there is no mean.
        end_B = call.end_B if all(counts) else call.end_B.clamp(min=1)
        key_BL = real(blocks.before(end_B), canvas)
        forward = partial(forward_queries, store=store, query_BL=query_BL, key_BL=key_BL, role=call.role)
        if read and all(read):
            logits_NV = forward(request, queries=queries)
            continue
        places, entry_M = request.places.within([row for row, one in enumerate(read) if one])
        made_NV = forward(replace(request, places=places), queries=queries)
        if logits_NV is None:
            logits_NV = made_NV.new_empty(len(request.row_N), made_NV.shape[1])
        logits_NV.index_copy_(0, entry_M, made_NV)
    assert logits_NV is not None, "nothing was computed"
    return logits_NV, reduce(torch.logical_or, made)
