"""A drafter that needs no model: what followed the last time that the same words stood there."""

import torch

from harness.engine.autoregressive.drafting import Proposal
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.shared.model import LanguageModel
from harness.engine.shared.policy import policy
from harness.engine.shared.records import Ledger


@policy("method/drafter", "ngram")
class Ngram:
    """Draft what followed the last earlier occurrence of the last `n` tokens, in prompt and answer."""

    n: int = 2

    def propose(self, model: LanguageModel, sequences: Sequences, limit_B: torch.Tensor, ledger: Ledger) -> Proposal:
        """Return drafts of the rows that have such an occurrence."""
        rows = zip(sequences.tokens_BL.tolist(), sequences.length_B.tolist(), limit_B.tolist(), strict=True)
        drafts = [self._followed(tokens[:length], limit) for tokens, length, limit in rows]
        count_B = torch.tensor([len(draft) for draft in drafts], device=limit_B.device)
        width = max(map(len, drafts))
        tokens = [draft + [0] * (width - len(draft)) for draft in drafts]
        return Proposal(tokens_BK=torch.tensor(tokens, dtype=torch.int64, device=limit_B.device), count_B=count_B)

    def _followed(self, tokens: list[int], limit: int) -> list[int]:
        last = tokens[-self.n :]
        for start in range(len(tokens) - self.n - 1, -1, -1):
            if tokens[start : start + self.n] == last:
                return tokens[start + self.n :][:limit]
        return []
