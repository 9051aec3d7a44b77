"""Greedy decoding: the most probable token at every position.

No paper; the baseline of every lossless autoregressive method. With a drafter this is greedy verification
(Leviathan et al., arXiv:2211.17192, section 2.3, at temperature 0): any draft gives the same tokens.
Invariants: without drafts, `nfe` = `tokens_out`, `nfe_prefill` = 1, `query_tokens` = prompt + `tokens_out` - 1.
"""

from harness.engine.autoregressive.drafting import Proposal, Verdict
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Prediction, leading


@policy("method/acceptor", "greedy")
class Greedy:
    """Accept drafts that equal the most probable token (ties: lowest id)."""

    def __call__(self, prediction: Prediction, proposal: Proposal, sequences: Sequences) -> Verdict:
        """Return the longest agreeing prefix and the most probable token behind it."""
        tokens_N, gap_N = leading(prediction.logits_NV)
        return Verdict.exact_match(prediction, tokens_N, proposal, sequences, gap_N)
