"""Caches of block-causal models: finished blocks are computed for the last time (SDAR; Fast-dLLM v2, arXiv:2509.26328).

Blocks are the model's, counted from absolute position 0. No position sees a later block, so keys and values of a block
are final as soon as its tokens and those before are: `block_causal` is exact, whatever the decoder's windows are. Each
call computes the blocks from the first that is not stored to the last that is read from.
A call of its own stores blocks that have just been finished: a prefill for those of the prompt, later ones counted as
cache calls. Where everything that is read is predicted from such a block (the next token of a shifted model), the
evaluation is that call; the last block is never stored, nor is one that only a draft has finished. With `merged` there
are no such calls: the next evaluation computes the finished block as well.
`sub_block` (Fast-dLLM v2: use_block_cache) reuses keys and values within a block, too: a call that opens a window, one
that reads what is predicted from before its sub-block, and one after a change outside of that compute the whole block,
others the sub-block alone, which replaces its keys and values in place. These are stale until the block is stored. The
sub-block is the window; where windows are counted from absolute position 0, so is the sub-block, and what is given in
it (the end of the prompt, an inherited token) is computed with it. One that reaches into several blocks is computed as
`block_causal` does.
Deviations from the authors' code: rows are independent (there, one row whose sub-block begins with a mask has the whole
block computed for all); a sub-block's opening call computes the whole block also where the model is not shifted.
Use: `model=tiny_block method=threshold method.block_length=8 method/cache=block_causal`.
Invariants: `block_causal` equals no cache; `sub_block` with windows of a whole block equals `block_causal`.
"""

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
    canvas = request.canvas
    store, whole = store_of(request), canvas.whole_BL
    logits_NV, computed_BL = torch.empty(0), torch.zeros_like(whole)
    for role, query_BL, read_B in calls:
        query_BL, read_N = query_BL & whole, read_B[request.row_N]
        if not bool(query_BL.any()):
            continue
        last_B1 = block_L.masked_fill(~query_BL, -1).amax(1, keepdim=True)
        key_BL = whole & ((block_L <= last_B1) | (last_B1 < 0))
        made_NV = forward_queries(
            request.only(request.row_N[read_N], request.position_N[read_N]),
            store,
            query_BL,
            key_BL=key_BL,
            role=role,
        )
        if not len(logits_NV):
            logits_NV = made_NV.new_empty(len(request.row_N), made_NV.shape[1])
        logits_NV[read_N] = made_NV
        computed_BL = computed_BL | query_BL
    return logits_NV, computed_BL
