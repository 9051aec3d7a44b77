"""Prompt lookup: the last tokens are looked for in what stands before, and what followed them there is the draft.

Source: apoorvumang/prompt-lookup-decoding (2023); transformers: PromptLookupCandidateGenerator. No paper.

From `max_ngram` tokens at the end of the text down to one, the first length that occurs before gives the draft: up to
`num_tokens` of what follows there, ending with the text or with a stop token. Nothing found is plain decoding. Drafts
cost no call of a model.

| symbol | argument | default |
|---|---|---|
| max_matching_ngram_size | max_ngram | 3 (transformers: 2) |
| prompt_lookup_num_tokens | num_tokens | 10 |
| | prefer | first: the occurrence furthest to the left, as both sources; last: the newest |

Deviation from transformers: a stop token is drafted, and nothing behind it; there, drafts end before it.
Invariants: output equals plain decoding, sampled too: a draft stands if it equals the token that the position's own
random number draws. `nfe_draft` = 0.
"""

from enum import Enum
from typing import ClassVar

import torch
from torch import Tensor

from harness.engine.autoregressive.drafting import Proposal
from harness.engine.autoregressive.sequences import Sequences, first, is_stop
from harness.engine.shared.model import LanguageModel
from harness.engine.shared.policy import policy
from harness.engine.shared.records import Ledger
from harness.errors import at_least


class Prefer(Enum):
    """Which occurrence of several is gone on from."""

    first = "first"
    last = "last"


@policy("method/drafter", "prompt_lookup")
class PromptLookup:
    """Draft what followed the last `max_ngram` tokens, or fewer, where they stood before."""

    max_ngram: int = 3
    prefer: Prefer = Prefer.first
    from_text: ClassVar[bool] = True
    nested: ClassVar[bool] = True

    def __post_init__(self) -> None:
        at_least(1, max_ngram=self.max_ngram)

    def propose(self, model: LanguageModel, sequences: Sequences, limit_B: Tensor, ledger: Ledger) -> Proposal:
        """Return up to `limit_B` tokens per row, none where nothing stood before."""
        tokens_BL, length_B = sequences.tokens_BL, sequences.length_B
        source_B = torch.zeros_like(length_B)
        for size in range(min(self.max_ngram, tokens_BL.shape[1]), 0, -1):
            found_B = self._behind(tokens_BL, length_B, size)
            source_B = torch.where(source_B > 0, source_B, found_B)
        place_K = torch.arange(int(limit_B.max()), device=length_B.device)
        place_BK = (source_B[:, None] + place_K).clamp(max=tokens_BL.shape[1] - 1)
        drafted_BK = tokens_BL.gather(1, place_BK)
        stops_BK = is_stop(drafted_BK, model.spec.stop_ids)
        before_stop_B = ((stops_BK.cumsum(1) - stops_BK.long()) == 0).sum(1)
        there_B = torch.where(source_B > 0, length_B - source_B, 0)
        return Proposal(tokens_BK=drafted_BK, count_B=torch.minimum(torch.minimum(there_B, before_stop_B), limit_B))

    def _behind(self, tokens_BL: Tensor, length_B: Tensor, size: int) -> Tensor:
        """Return the position behind an earlier occurrence of the last `size` tokens of each row, 0 for none."""
        place_S = torch.arange(size, device=length_B.device)
        suffix_BS = tokens_BL.gather(1, (length_B[:, None] - size + place_S).clamp(min=0))
        match_BW = (tokens_BL.unfold(1, size, 1) == suffix_BS[:, None]).all(2)
        # The tokens themselves are no occurrence: nothing stands behind them.
        match_BW &= first(length_B - size, match_BW.shape[1])
        if self.prefer is Prefer.first:
            start_B = match_BW.byte().argmax(1)
        else:
            start_B = match_BW.shape[1] - 1 - match_BW.flip(1).byte().argmax(1)
        return torch.where(match_BW.any(1), start_B + size, 0)
