"""Sampling with temperature, top-k and top-p, reproducible token by token under any drafter.

Papers: top-k, Fan et al., arXiv:1805.04833, section 3; top-p, Holtzman et al., arXiv:1904.09751, section 3.1.

Every absolute position has its own uniform number, keyed by the seed of the row and nothing else, and a token is
drawn by inverse CDF. A draft is accepted if it equals the token so drawn: an exact sample from the model that
does not depend on what was drafted, on the batch, or on the number of rounds.

| symbol | argument | default |
|---|---|---|
| tau | temperature | 1.0; 0 takes the most probable token and uses no random number |
| k | top_k | 0: all tokens |
| p | top_p | 1.0: all tokens |

Invariants: output equals that of the empty drafter for every drafter, row by row: which of a sample's rows end first
(`ffs`), and so which wins a tied vote, follows from the calls; temperature 0 equals greedy decoding.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.engine.autoregressive.drafting import Proposal, Verdict
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.shared.largest import at_largest
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Prediction, token_gap
from harness.engine.shared.randomness import uniforms
from harness.engine.shared.sampling import invert
from harness.errors import FieldError


@dataclass(frozen=True)
class Law:
    """What tokens are drawn from: logits after temperature, top-k and top-p; at temperature 0 the most probable."""

    temperature: float
    top_k: int
    top_p: float

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise FieldError("temperature", self.temperature, "be at least 0, which is greedy")
        if self.top_k < 0:
            raise FieldError("top_k", self.top_k, "be at least 0, which keeps all tokens")
        if not 0 < self.top_p <= 1:
            raise FieldError("top_p", self.top_p, "lie in (0, 1]; 1 keeps all tokens")

    def probabilities(self, logits_NV: Tensor) -> Tensor:
        """Return float64 probabilities after temperature, top-k, then top-p over what top-k left (ties: lowest id).

        Needs a temperature above 0.
        """
        scaled_NV = logits_NV.float() / self.temperature
        if self.top_k == 0 and self.top_p == 1:
            return scaled_NV.double().softmax(-1)
        sorted_NV, order_NV = scaled_NV.sort(dim=-1, descending=True, stable=True)
        if self.top_k:
            sorted_NV[:, self.top_k :] = -torch.inf
        mass_NV = sorted_NV.double().softmax(-1)
        # The token that crosses top_p is kept, so the mass before it decides.
        kept_NV = (mass_NV.cumsum(-1) - mass_NV) < self.top_p
        sorted_NV = sorted_NV.masked_fill(~kept_NV, -torch.inf)
        return torch.empty_like(sorted_NV).scatter_(1, order_NV, sorted_NV).double().softmax(-1)


@policy("method/acceptor", "keyed_sample")
class KeyedSample:
    """Accept drafts that equal the token sampled with the position's own random number.

    `temperature` >= 0; `top_k` >= 0 most probable tokens are kept (0: all); of these, the fewest whose probability
    reaches `top_p`, in (0, 1].
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        Law(self.temperature, self.top_k, self.top_p)

    def __call__(self, prediction: Prediction, proposal: Proposal, sequences: Sequences) -> Verdict:
        """Return the longest prefix that equals the sampled tokens, and the token sampled behind it."""
        seed_N = sequences.seed_B[prediction.row_N]
        tokens_N = self.draw(prediction.logits_NV, seed_N, prediction.position_N)
        gap_N = token_gap(prediction.logits_NV, tokens_N) if self.temperature == 0 else None
        return Verdict.exact_match(prediction, tokens_N, proposal, sequences, gap_N)

    def draw(self, logits_NV: Tensor, seed_N: Tensor, position_N: Tensor) -> Tensor:
        """Return one token per entry, a function of its logits, seed and absolute position."""
        if self.temperature == 0:
            return at_largest(logits_NV)
        # The CDF runs over token ids, not over ranks: nearly equal logits that swap ranks hardly move it.
        return invert(self.probabilities(logits_NV), uniforms(seed_N, position_N, "token", 1).squeeze(1))

    def probabilities(self, logits_NV: Tensor) -> Tensor:
        """Return float64 probabilities of the tokens, as `Law` does."""
        return Law(self.temperature, self.top_k, self.top_p).probabilities(logits_NV)
