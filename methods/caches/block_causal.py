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

from dataclasses import replace

import torch
from torch import Tensor

from harness.engine.diffusion.evaluation import EvaluationRequest
from harness.engine.diffusion.needs import Gives, Needs
from harness.engine.diffusion.reuse import forward_queries, remember, store_of
from harness.engine.shared.model import ModelKind
from harness.engine.shared.policy import policy
from harness.engine.shared.records import Role
from methods.caches.finished_blocks import FINAL, Blocks, first_block, part_of_window


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


def _evaluate(
    request: EvaluationRequest,
    *,
    merged: bool = False,
    sub_blocks: bool = False,
) -> Tensor:
    """Store finished blocks, then compute what is read and is not yet answered by that."""
    canvas = request.canvas
    blocks = Blocks.of(request)
    final_B, end_B = blocks.final_B, blocks.last_B + 1
    answered_B = light_B = torch.zeros_like(canvas.clock_B, dtype=torch.bool)
    calls: list[tuple[Role, Tensor, Tensor]] = []
    if not merged:
        finished_B = first_block(blocks.block_L, canvas.undecided_BL | canvas.drafted_BL)
        prompt_B = canvas.calls_B == 0
        # Where all that is read comes from finished blocks, the evaluation stores them; at first it is the prefill.
        direct_B = end_B <= finished_B
        stored_B = torch.where(direct_B, torch.where(prompt_B, end_B, 0), finished_B)
        store_BL, answered_B = blocks.between(final_B, stored_B), direct_B & prompt_B
        calls.append((Role.PREFILL, store_BL & prompt_B[:, None], answered_B))
        calls.append((Role.CACHE, store_BL & ~prompt_B[:, None], light_B))
        final_B = torch.maximum(final_B, stored_B)
    part_BL = part_of_window(canvas)
    if sub_blocks:
        light_B = blocks.part_is_enough(part_BL)
    query_BL = torch.where(light_B[:, None], part_BL, blocks.between(final_B, end_B)) | blocks.source_BL
    calls.append((Role.TARGET, query_BL & ~answered_B[:, None], ~answered_B))
    logits_NV, computed_BL = _make(request, calls, blocks.block_L)
    known_B = torch.where(light_B, blocks.last_B, torch.maximum(final_B, end_B))
    canvas.memory[FINAL] = torch.minimum(known_B, first_block(blocks.block_L, canvas.drafted_BL))
    remember(canvas, blocks.past, computed_BL)
    return logits_NV


def _make(
    request: EvaluationRequest,
    calls: list[tuple[Role, Tensor, Tensor]],
    block_L: Tensor,
) -> tuple[Tensor, Tensor]:
    """Make the calls that compute anything (role, queries, rows read); return the logits and all that was computed."""
    store, whole = store_of(request), request.canvas.whole_BL
    logits_NV, computed_BL = torch.empty(0), torch.zeros_like(whole)
    calls = [(role, query_BL & whole, read_B) for role, query_BL, read_B in calls]
    # One transfer for all calls: whether each computes anything, and the rows that it is read for.
    told = torch.stack([torch.cat([query_BL.any()[None], read_B]) for _, query_BL, read_B in calls]).tolist()
    for (role, query_BL, _), (computes, *read) in zip(calls, told, strict=True):
        if not computes:
            continue
        last_B1 = block_L.masked_fill(~query_BL, -1).amax(1, keepdim=True)
        key_BL = whole & ((block_L <= last_B1) | (last_B1 < 0))
        computed_BL = computed_BL | query_BL
        if all(read):
            logits_NV = forward_queries(request, store, query_BL, key_BL=key_BL, role=role)
            continue
        places, entry_M = request.places.within([row for row, one in enumerate(read) if one])
        made_NV = forward_queries(replace(request, places=places), store, query_BL, key_BL=key_BL, role=role)
        if not len(logits_NV):
            logits_NV = made_NV.new_empty(len(request.row_N), made_NV.shape[1])
        logits_NV.index_copy_(0, entry_M, made_NV)
    return logits_NV, computed_BL
