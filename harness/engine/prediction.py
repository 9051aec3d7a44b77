"""What one evaluation says about a canvas: logits of the positions that were read, and candidates made of them.

Shapes: B rows, L positions, N read positions, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.engine.model import ModelSpec


class ScoreDtype(Enum):
    """Arithmetic of probabilities and scores; `model` keeps the dtype of the logits."""

    float32 = "float32"
    float64 = "float64"
    model = "model"

    def cast(self, logits: Tensor) -> Tensor:
        """Return logits in this arithmetic."""
        if self is ScoreDtype.model:
            return logits
        return logits.to(torch.float64 if self is ScoreDtype.float64 else torch.float32)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Aligned logits [N, V] of the positions (`row_N`, `position_N`) of a canvas of `shape` [B, L].

    Logits of position i predict the token at i; the mask token's are -inf. `attention_BLL` is the attention of every
    position to every other, mean over layers and heads, if some policy asked for it.
    """

    logits_NV: Tensor
    row_N: Tensor
    position_N: Tensor
    shape: tuple[int, int]
    spec: ModelSpec
    attention_BLL: Tensor | None = None

    @property
    def read_BL(self) -> Tensor:
        """Positions that were read."""
        return self.scatter(torch.ones_like(self.row_N, dtype=torch.bool), False)

    def scatter(self, values_N: Tensor, fill: float | int) -> Tensor:
        """Return [B, L] with the values at their positions and `fill` where nothing was read."""
        out_BL = values_N.new_full(self.shape, fill)
        out_BL[self.row_N, self.position_N] = values_N
        return out_BL

    def latest(self, values_N: Tensor, earlier_BL: Tensor | None) -> Tensor:
        """Return [B, L] with the values where something was read, elsewhere the earlier ones (None: 0)."""
        values_BL = self.scatter(values_N, 0)
        return values_BL if earlier_BL is None else torch.where(self.read_BL, values_BL, earlier_BL)

    def gather(self, values_BL: Tensor) -> Tensor:
        """Return the entries [N] of the read positions."""
        return values_BL[self.row_N, self.position_N]

    def token_gap(self, tokens_N: Tensor, logits_NV: Tensor | None = None) -> Tensor:
        """Return `token_gap` as [B, L], infinite where nothing was read; other logits replace the prediction's own."""
        return self.scatter(token_gap(self.logits_NV if logits_NV is None else logits_NV, tokens_N), torch.inf)

    def entropy(self) -> Tensor:
        """Return the entropy of the predicted distributions as [B, L], in nats, nan where nothing was read."""
        return self.scatter(torch.special.entr(self.logits_NV.float().softmax(-1)).sum(-1), torch.nan)

    def rows(self, index_B: Tensor) -> "Prediction":
        """Return the prediction of the rows of `index_B`, in that order, repeats allowed."""
        entries_BN = self.row_N[None, :] == index_B[:, None]
        row_N, entry_N = entries_BN.nonzero(as_tuple=True)
        return replace(
            self,
            logits_NV=self.logits_NV[entry_N],
            row_N=row_N,
            position_N=self.position_N[entry_N],
            shape=(len(index_B), self.shape[1]),
            attention_BLL=None if self.attention_BLL is None else self.attention_BLL[index_B],
        )

    def only(self, some_BL: Tensor) -> "Prediction":
        """Return the prediction of some positions."""
        entry_N = self.gather(some_BL).nonzero().squeeze(1)
        return replace(
            self, logits_NV=self.logits_NV[entry_N], row_N=self.row_N[entry_N], position_N=self.position_N[entry_N]
        )

    def widened(self, width: int) -> "Prediction":
        """Return the prediction of a canvas that has grown to `width` positions; nothing was read of the new ones."""
        attention_BLL, extra = self.attention_BLL, width - self.shape[1]
        if not extra:
            return self
        if attention_BLL is not None:
            attention_BLL = F.pad(attention_BLL, (0, extra, 0, extra))
        return replace(self, shape=(self.shape[0], width), attention_BLL=attention_BLL)

    @classmethod
    def cat(cls, parts: Sequence["Prediction"]) -> "Prediction":
        """Return the predictions of all parts, one part's rows behind the other's."""
        before = [0, *accumulate(part.shape[0] for part in parts)]
        width = max(part.shape[1] for part in parts)
        attentions = [part.widened(width).attention_BLL for part in parts]
        known = [attention for attention in attentions if attention is not None]
        return replace(
            parts[0],
            attention_BLL=torch.cat(known) if known else None,
            logits_NV=torch.cat([part.logits_NV for part in parts]),
            row_N=torch.cat([part.row_N + first for part, first in zip(parts, before, strict=False)]),
            position_N=torch.cat([part.position_N for part in parts]),
            shape=(before[-1], width),
        )


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The token that each position would get, and how sure that is; -inf where nothing was read.

    `score_BL` orders positions (best first); `confidence_BL` is what thresholds are compared with: the token's
    probability, unless the scorer documents another measure. `token_gap_BL` is how far the token was from the next
    best one (`Prediction.token_gap`), infinite where it was drawn; None leaves it to the prediction's own logits.
    `entropy_BL` is for observers alone (`Prediction.entropy`), None where nobody told it.
    """

    tokens_BL: Tensor
    score_BL: Tensor
    confidence_BL: Tensor
    token_gap_BL: Tensor | None = None
    entropy_BL: Tensor | None = None

    def widened(self, width: int) -> "Candidates":
        """Return the candidates of a canvas that has grown to `width` positions."""
        extra = (0, width - self.tokens_BL.shape[1])
        if not extra[1]:
            return self
        return Candidates(
            tokens_BL=F.pad(self.tokens_BL, extra),
            score_BL=F.pad(self.score_BL, extra, value=-torch.inf),
            confidence_BL=F.pad(self.confidence_BL, extra, value=-torch.inf),
            token_gap_BL=None if self.token_gap_BL is None else F.pad(self.token_gap_BL, extra, value=torch.inf),
            entropy_BL=None if self.entropy_BL is None else F.pad(self.entropy_BL, extra, value=torch.nan),
        )


def log_probability(logits_NV: Tensor, tokens_N: Tensor) -> Tensor:
    """Return log p of `tokens_N`, exact also where p is next to 1.

    For the largest logit m, log p = -log1p(sum over the others of exp(z - m)): unlike a softmax, this neither
    saturates at 1 nor loses the order of confident positions in float32. Other tokens need no such care.
    """
    chosen_N1 = logits_NV.gather(-1, tokens_N[:, None])
    below_NV = (logits_NV - logits_NV.amax(-1, keepdim=True)).exp().scatter(-1, tokens_N[:, None], 0.0)
    largest_N = chosen_N1[:, 0] == logits_NV.amax(-1)
    return torch.where(largest_N, -below_NV.sum(-1).log1p(), chosen_N1[:, 0] - logits_NV.logsumexp(-1))


def token_gap(logits_NV: Tensor, tokens_N: Tensor) -> Tensor:
    """Return by how much log p of `tokens_N` exceeds that of every other token, [N]; infinite if it does not.

    Then something else than the order of these logits has decided.
    """
    lead_N = lead(logits_NV, tokens_N)
    return torch.where(lead_N >= 0, lead_N, torch.inf)


def lead(logits_NV: Tensor, tokens_N: Tensor) -> Tensor:
    """Return log p of `tokens_N` less that of the best other token, [N]."""
    chosen_N1 = tokens_N[:, None]
    others_NV = logits_NV.scatter(-1, chosen_N1, -torch.inf)
    return logits_NV.gather(-1, chosen_N1)[:, 0] - others_NV.amax(-1)


def rank_descending(score_BL: Tensor) -> Tensor:
    """Return the rank of every position in its row: highest score first, ties by lowest position."""
    order_BL = score_BL.argsort(dim=1, descending=True, stable=True)
    return torch.empty_like(order_BL).scatter_(
        1, order_BL, torch.arange(score_BL.shape[1], device=score_BL.device).expand_as(order_BL)
    )


def top(score_BL: Tensor, open_BL: Tensor, count_B: Tensor) -> Tensor:
    """Return the `count_B` best open positions of each row (all of them where fewer are open)."""
    rank_BL = rank_descending(score_BL.masked_fill(~open_BL, -torch.inf))
    # An open position may itself score -inf: rank by openness first.
    rank_BL = torch.where(open_BL, rank_BL - _closed_before(rank_BL, open_BL), rank_BL)
    return open_BL & (rank_BL < count_B[:, None])


def _closed_before(rank_BL: Tensor, open_BL: Tensor) -> Tensor:
    """Return how many closed positions precede each position in rank order."""
    closed_by_rank_BL = torch.zeros_like(rank_BL).scatter_(1, rank_BL, (~open_BL).long())
    return closed_by_rank_BL.cumsum(1).gather(1, rank_BL)
