"""DFlash: an assistant drafts a block in one call, from hidden states of the target.

Code: transformers 5.24, `DFlashTokenCandidateGenerator` and `_assisted_decoding`; no paper is named there. No trained
pair is on this machine, so that nothing is claimed of how much stands.

Behind every call of the target, the states of its layers `target_layer_ids` at the tokens that stand, side by side, go
to the assistant, which keeps keys and values of them. Its call computes a block of `block_size` positions from the last
token on: that token and masks, embedded by the target, which see the text before them and each other. The target's head
reads all but the first: `block_size` - 1 drafts, each by itself. Behind the last layer the states are those behind the
final norm, as transformers shows them.

| symbol there | argument | default |
|---|---|---|
| block_size, mask_token_id, target_layer_ids | none: the assistant's own | |
| temperature | temperature | 0: greedy |
| top_k, top_p | top_k, top_p | 0 and 1.0: all tokens; the assistant draws from all |

Verification is that of `speculative`: at temperature 0 a draft stands if it is the most probable token, above it with
min(1, p / q). A block is drafted and scored whole, also behind a stop token in it, as there; where less room is left
than the block is long, masks are as many as ever, and only drafts that fit are scored (transformers scores all of them
and cuts). Nothing is drafted before the prompt was read.

Invariants: temperature 0 equals greedy decoding under any assistant; a round that drafts costs one call of the
assistant, `block_size` positions, and one of the target.
"""

from typing import ClassVar

import torch
from torch import Tensor

from harness.engine.autoregressive.drafting import Proposal, Round
from harness.engine.autoregressive.sequences import Sequences, first
from harness.engine.shared.assistant import Context, LendsEnds
from harness.engine.shared.largest import at_largest
from harness.engine.shared.model import NORMED, ForwardRequest, LanguageModel, ModelKind, Models
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import require_numbers
from harness.engine.shared.randomness import uniforms
from harness.engine.shared.records import Charge, Ledger, Role
from harness.engine.shared.sampling import invert
from harness.errors import ConfigError
from methods.autoregressive.sample import Law

STORE = "dflash"
"""The assistant's keys and values of the text, and of the last block, which is written over."""
STATES, START, END = "dflash.states{}_BNC", "dflash.start_B", "dflash.end_B"
"""States of the target that it has not seen yet, by their depth, and from and up to which position they are."""


@policy("method/draft_length", "whole")
class WholeLength:
    """Leave it to the drafter: as much as there is room for."""

    def limit(self, sequences: Sequences) -> Tensor:
        """Return the room of every row."""
        return sequences.limit_B - sequences.length_B


@policy("method/drafter", "block")
class BlockDrafter:
    """Draft a block with an assistant in one call, drawn at `temperature` (0: its most probable tokens)."""

    temperature: float = 0.0
    asks: ClassVar[frozenset[ModelKind]] = frozenset({ModelKind.ASSISTANT})

    def __post_init__(self) -> None:
        Law(self.temperature, 0, 1.0)

    def taps_for(self, models: Models) -> list[int]:
        """Return the depths whose states the assistant reads, in its order; raise ConfigError for another target."""
        target, draft = models.target.spec, models.draft.spec
        for lacks, what in (
            (not isinstance(models.target, LendsEnds), "needs embeddings and head of its target, which lends none"),
            (max(draft.reads) >= target.layers, f"reads layer {max(draft.reads)}, and the target has {target.layers}"),
            (draft.vocab_size > target.vocab_size, f"masks with a token that is none of {target.vocab_size}"),
        ):
            if lacks:
                raise ConfigError(f"model@draft={draft.name}: {what}; use the assistant of this target")
        return [NORMED if layer + 1 == target.layers else layer + 1 for layer in draft.reads]

    def update(self, completed: Round) -> None:
        """Keep the states of a call at the tokens that stand, for the next block."""
        memory = completed.after.memory
        for depth, x_BTC in completed.states.items():
            memory[STATES.format(depth)] = x_BTC
        memory[START], memory[END] = completed.before.computed_B, completed.after.computed_B

    def propose(self, model: LanguageModel, sequences: Sequences, limit_B: Tensor, ledger: Ledger) -> Proposal:
        """Return the drafts of a block for every row that has room, as far as there is room."""
        assert isinstance(model, Models), "there is no model that drafts"
        if not bool((limit_B > 0).any()):
            return Proposal.empty(sequences)
        block = model.draft.spec.block_length
        assert block is not None
        count_B, drafts = limit_B.clamp(0, block - 1), block - 1
        logits_BKV = _asked(model, self.taps_for(model), sequences, count_B > 0, ledger)
        if self.temperature == 0:
            return Proposal(tokens_BK=at_largest(logits_BKV), count_B=count_B)
        q_BKV = Law(self.temperature, 0, 1.0).probabilities(logits_BKV.flatten(0, 1)).unflatten(0, (-1, drafts))
        uniform_BK = uniforms(sequences.seed_B, sequences.length_B, "draft", drafts)
        token_N = invert(q_BKV.flatten(0, 1), uniform_BK.flatten())
        return Proposal(tokens_BK=token_N.view(-1, drafts), count_B=count_B, probabilities_BKV=q_BKV)


def _asked(model: Models, depths: list[int], sequences: Sequences, busy_B: Tensor, ledger: Ledger) -> Tensor:
    """Return what the assistant predicts of the masks of each row, [B, K, V]; one call.

    Every row is computed, so that all states are taken in; those that are not busy have no room, and are padding.
    """
    spec, tokens_BL, anchor_B = model.draft.spec, sequences.tokens_BL, sequences.length_B - 1
    rows, block, mask_id = len(tokens_BL), spec.block_length, spec.mask_id
    assert block is not None and mask_id is not None
    # Behind the block that begins at the last token there is a slot which nobody sees, for padding.
    store = sequences.stores.get(STORE) or model.draft.new_store(rows, tokens_BL.shape[1] + block)
    sequences.stores[STORE] = store
    noise_BT = torch.full((rows, block), mask_id, dtype=torch.int64, device=tokens_BL.device)
    noise_BT[:, 0] = tokens_BL.gather(1, anchor_B[:, None])[:, 0]
    context, start_B = _context(model, depths, sequences, store.slots), sequences.memory[START]
    (lengths,) = sequences.told("length_B")
    position_BT, end = anchor_B[:, None] + torch.arange(block, device=anchor_B.device), max(lengths) - 1 + block
    known_B, slot_S = torch.minimum(sequences.memory[END], anchor_B), torch.arange(end, device=anchor_B.device)
    seen_BS = (slot_S < known_B[:, None]) | ((slot_S >= anchor_B[:, None]) & (slot_S < anchor_B[:, None] + block))
    request = ForwardRequest(
        noise_BT,
        positions_BT=position_BT,
        kv=store,
        end=end,
        visible_BTS=seen_BS[:, None].expand(-1, block, -1),
        select_N=torch.arange(rows * block, device=anchor_B.device).view(rows, block)[:, 1:].flatten(),
        context=context,
    )
    at_R, sample_B = busy_B.nonzero().squeeze(1), sequences.sample_B
    charge = Charge(
        role=Role.DRAFT,
        sample_B=sample_B[at_R],
        query_B=torch.full_like(at_R, block),
        keys_B=(anchor_B + block)[at_R],
        head_B=torch.full_like(at_R, block - 1),
        reused=lambda: first(start_B[at_R], tokens_BL.shape[1]),
        idle_B=None if len(at_R) == rows else sample_B[~busy_B],
    )
    logits_NV = ledger.call(model.draft, request, charge)
    require_numbers(logits_NV, sample_B.repeat_interleave(block - 1), spec.name)
    return logits_NV.view(rows, block - 1, -1)


def _context(model: Models, depths: list[int], sequences: Sequences, slots: int) -> Context:
    """Return what the assistant has not seen of the text; what fills shorter rows up goes to the last slot."""
    memory = sequences.memory
    states_BNC = torch.cat([memory[STATES.format(depth)] for depth in depths], -1)
    position_BN = memory[START][:, None] + torch.arange(states_BNC.shape[1], device=states_BNC.device)
    real_BN = position_BN < memory[END][:, None]
    assert isinstance(model.target, LendsEnds), "the target was found to lend its ends"
    return Context(
        states_BNC=states_BNC,
        positions_BN=position_BN.masked_fill(~real_BN, 0),
        slots_BN=position_BN.masked_fill(~real_BN, slots - 1),
        ends=model.target,
    )
