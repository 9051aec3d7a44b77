"""What one evaluation says about a canvas: logits of the positions that were read, and candidates made of them.

Shapes: B rows, L positions, N read positions, V vocabulary.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from enum import Enum
from functools import cache, cached_property, wraps
from importlib.util import find_spec
from types import ModuleType
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.engine.shared.generation import DecodeError
from harness.engine.shared.indexing import filled, positions
from harness.engine.shared.largest import largest
from harness.engine.shared.model import ModelSpec
from harness.engine.shared.places import Places

Made = TypeVar("Made")


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


def require_numbers(logits_NV: Tensor, sample_N: Tensor, model: str) -> None:
    """Raise DecodeError naming the first sample for which a model has returned logits that are NaN; waits for them."""
    for sample in sample_N[logits_NV.isnan().any(-1)][:1].tolist():
        raise DecodeError(f"model {model} returned logits that are not numbers (NaN)", sample=sample)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Aligned logits [N, V] of the positions of a canvas that were read, its `places`.

    Logits of position i predict the token at i; the mask token's are -inf. `attention_BLL` is the attention of every
    position to every other, mean over layers and heads, if some policy asked for it.

    What is at hand need not be worked out again: `broken` is whether some logit was not a number, `said` the candidates
    of a scorer that looks at nothing but predictions, and `open_BL` were open positions all of which were read.
    """

    logits_NV: Tensor
    places: Places
    spec: ModelSpec
    attention_BLL: Tensor | None = None
    broken: Tensor | None = None
    said: "Candidates | None" = None
    open_BL: Tensor | None = None

    @classmethod
    def together(cls, parts: "Sequence[Prediction]") -> "Prediction":
        """Return what several calls said, each of other rows, in the order of these; of a row as its call did."""
        if len(parts) == 1:
            return parts[0]
        flat_N = torch.cat([one.places.flat_N for one in parts])
        # Not by position: tokens of a tree stand in an order of their own.
        order_N = (flat_N // parts[0].shape[1]).argsort(stable=True)
        logits_NV = torch.cat([one.logits_NV for one in parts]).index_select(0, order_N)
        return replace(parts[0], logits_NV=logits_NV, places=Places(known_N=flat_N[order_N], shape=parts[0].shape))

    @property
    def row_N(self) -> Tensor:
        """The row of each entry."""
        return self.places.row_N

    @property
    def position_N(self) -> Tensor:
        """The position of each entry."""
        return self.places.position_N

    @property
    def shape(self) -> tuple[int, int]:
        """Rows B and positions L of the canvas."""
        return self.places.shape

    @property
    def read_BL(self) -> Tensor:
        """Positions that were read."""
        return self.places.marked_BL

    def scatter(self, values_N: Tensor, fill: float | int) -> Tensor:
        """Return [B, L] with the values at their positions and `fill` where nothing was read."""
        return self.places.put(values_N, fill)

    def candidates(
        self, tokens_N: Tensor, score_N: Tensor, confidence_N: Tensor, behind_N: Tensor | None
    ) -> "Candidates":
        """Return candidates of what is known of the read positions.

        `behind_N` is log p of the next best token less that of the token; None of tokens that were drawn.
        """
        values_KN = [score_N, confidence_N] if behind_N is None else [score_N, confidence_N, behind_N]
        score_BL, confidence_BL, *behind_BL = self.places.put(torch.stack(values_KN, 1), -torch.inf).unbind(2)
        return Candidates(
            tokens_BL=self.scatter(tokens_N, 0),
            score_BL=score_BL,
            confidence_BL=confidence_BL,
            token_gap_BL=-behind_BL[0] if behind_BL else torch.full_like(score_BL, torch.inf),
        )

    def latest(self, values_N: Tensor, earlier_BL: Tensor | None) -> Tensor:
        """Return [B, L] with the values where something was read, elsewhere the earlier ones (None: 0)."""
        values_BL = self.scatter(values_N, 0)
        return values_BL if earlier_BL is None else torch.where(self.read_BL, values_BL, earlier_BL)

    def gather(self, values_BL: Tensor) -> Tensor:
        """Return the entries [N] of the read positions."""
        return self.places.take(values_BL)

    def token_gap(self, tokens_N: Tensor, logits_NV: Tensor | None = None) -> Tensor:
        """Return `token_gap` as [B, L], infinite where nothing was read; other logits replace the prediction's own."""
        return self.scatter(token_gap(self.logits_NV if logits_NV is None else logits_NV, tokens_N), torch.inf)

    def entropy(self) -> Tensor:
        """Return the entropy of the predicted distributions as [B, L], in nats, nan where nothing was read."""
        if (kernels := _kernels(self.logits_NV)) is not None:
            return self.scatter(kernels.entropy(self.logits_NV), torch.nan)
        return self.scatter(torch.special.entr(self.logits_NV.float().softmax(-1)).sum(-1), torch.nan)

    def require_numbers(self, sample_B: Tensor) -> None:
        """Raise DecodeError naming the first sample whose logits are NaN, if `broken` says that there are some."""
        if self.broken is not None and bool(self.broken):
            require_numbers(self.logits_NV, sample_B[self.row_N], self.spec.name)

    def rows(self, index_B: Tensor | Sequence[int]) -> "Prediction":
        """Return the prediction of the rows of `index_B`, in that order, repeats allowed."""
        places, entry_N, index_B = self.places.rows(index_B.tolist() if isinstance(index_B, Tensor) else index_B)
        return replace(
            self,
            logits_NV=self.logits_NV.index_select(0, entry_N),
            places=places,
            attention_BLL=None if self.attention_BLL is None else self.attention_BLL[index_B],
            said=None if self.said is None else self.said.rows(index_B),
        )

    def only(self, some_BL: Tensor) -> "Prediction":
        """Return the prediction of some positions."""
        places, entry_N = self.places.only(some_BL)
        return replace(self, logits_NV=self.logits_NV.index_select(0, entry_N), places=places, said=None)

    def widened(self, width: int) -> "Prediction":
        """Return the prediction of a canvas that has grown to `width` positions; nothing was read of the new ones."""
        attention_BLL, extra = self.attention_BLL, width - self.shape[1]
        if not extra:
            return self
        if attention_BLL is not None:
            attention_BLL = F.pad(attention_BLL, (0, extra, 0, extra))
        said = None if self.said is None else self.said.widened(width)
        return replace(self, places=self.places.widened(width), attention_BLL=attention_BLL, said=said)


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

    @cached_property
    def finite_BL(self) -> Tensor:
        """The scores, none below every other number: what an open position that scores -inf has beside closed ones."""
        return _finite(self.score_BL)

    def rows(self, index_B: Tensor) -> "Candidates":
        """Return the candidates of some rows, repeats allowed."""
        tensors = {f.name: kept for f in fields(self) if (kept := getattr(self, f.name)) is not None}
        # What is both score and confidence is gathered once, and stays one.
        chosen = {one: one.index_select(0, index_B) for one in dict.fromkeys(tensors.values())}
        return Candidates(**{name: chosen[kept] for name, kept in tensors.items()})

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


_ONE_BLOCK, _BLOCK = 1 << 15, 1 << 17
"""Logits that are worked on at once: so few that they stay in the processor's cache, and four blocks of larger ones."""


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None


def _kernels(logits_NV: Tensor) -> ModuleType | None:
    """Return `harness.engine.shared.kernels` where it can be used: on a GPU whose torch brings Triton."""
    if not logits_NV.is_cuda or not _has_triton():
        return None
    from harness.engine.shared import kernels

    return kernels


def _by_blocks(make: Callable[..., Made]) -> Callable[..., Made]:
    """Have logits, and what belongs to them, go by blocks of positions: what is made of them takes a block's memory."""

    @wraps(make)
    def of_all(logits_NV: Tensor, *others_N: Tensor) -> Any:
        size, (count, vocab) = logits_NV.numel(), logits_NV.shape
        rows = count if size <= _ONE_BLOCK else min(-(-count // 4), max(1, _BLOCK // vocab))
        if rows >= count:
            return make(logits_NV, *others_N)
        blocks = zip(*(one.split(max(1, rows)) for one in (logits_NV, *others_N)), strict=True)
        made: list[Any] = [make(*block) for block in blocks]
        return torch.cat(made) if isinstance(made[0], Tensor) else tuple(map(torch.cat, zip(*made, strict=True)))

    return of_all


def surest(logits_NV: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the most probable token (the lowest of equals), its log p, and the log p of the next best less that, [N].

    For the largest logit m, log p = -log1p(sum over the others of exp(z - m)): unlike a softmax, this neither
    saturates at 1 nor loses the order of confident positions in float32.
    """
    kernels = _kernels(logits_NV)
    return _surest(logits_NV) if kernels is None else kernels.surest(logits_NV)


@_by_blocks
def _surest(logits_NV: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    most_N1, tokens_N1 = largest(logits_NV)
    others_NV = (logits_NV - most_N1).scatter_(-1, tokens_N1, -torch.inf)
    behind_N = others_NV.amax(-1)
    return tokens_N1[:, 0], others_NV.exp_().sum(-1).log1p_().neg_(), behind_N


def log_probability(logits_NV: Tensor, tokens_N: Tensor) -> Tensor:
    """Return log p of `tokens_N`, exact also where p is next to 1 (see `surest`); other tokens need no such care."""
    kernels = _kernels(logits_NV)
    return _log_probability(logits_NV, tokens_N) if kernels is None else kernels.log_probability(logits_NV, tokens_N)


@_by_blocks
def _log_probability(logits_NV: Tensor, tokens_N: Tensor) -> Tensor:
    at_N1, most_N = tokens_N[:, None], logits_NV.amax(-1)
    chosen_N = logits_NV.gather(-1, at_N1)[:, 0]
    parts_NV = (logits_NV - most_N[:, None]).exp_()
    of_all_N = parts_NV.sum(-1).log_().add_(most_N)
    others_N = parts_NV.scatter_(-1, at_N1, 0.0).sum(-1)
    return torch.where(chosen_N == most_N, -others_N.log1p_(), chosen_N - of_all_N)


@_by_blocks
def leading(logits_NV: Tensor) -> tuple[Tensor, Tensor]:
    """Return the most probable token (the lowest of equals), and by how much its log p exceeds every other's, [N]."""
    most_N1, tokens_N1 = largest(logits_NV)
    others_NV = logits_NV.scatter(-1, tokens_N1, -torch.inf)
    return tokens_N1[:, 0], most_N1[:, 0] - others_NV.amax(-1)


def token_gap(logits_NV: Tensor, tokens_N: Tensor) -> Tensor:
    """Return by how much log p of `tokens_N` exceeds that of every other token, [N]; infinite if it does not.

    Then something else than the order of these logits has decided.
    """
    lead_N = lead(logits_NV, tokens_N)
    return torch.where(lead_N >= 0, lead_N, torch.inf)


@_by_blocks
def lead(logits_NV: Tensor, tokens_N: Tensor) -> Tensor:
    """Return log p of `tokens_N` less that of the best other token, [N]."""
    chosen_N1 = tokens_N[:, None]
    others_NV = logits_NV.scatter(-1, chosen_N1, -torch.inf)
    return logits_NV.gather(-1, chosen_N1)[:, 0] - others_NV.amax(-1)


def rank_descending(score_BL: Tensor) -> Tensor:
    """Return the rank of every position in its row: highest score first, ties by lowest position."""
    order_BL = score_BL.argsort(dim=1, descending=True, stable=True)
    rank_BL = positions(score_BL.shape[1], score_BL.device).expand_as(order_BL)
    return torch.empty_like(order_BL).scatter_(1, order_BL, rank_BL)


def top(score_BL: Tensor, open_BL: Tensor, count: Tensor | int) -> Tensor:
    """Return the `count` ([B], or of every row) best open positions (all of them where fewer are open)."""
    return first(score_BL, open_BL, count).logical_and_(open_BL)


def first(score_BL: Tensor, open_BL: Tensor, count: Tensor | int) -> Tensor:
    """Return the `count` ([B], or of every row) best positions of each row, all open ones before any other."""
    return _leading(_open_first(score_BL, open_BL).argsort(dim=1, descending=True, stable=True), count)


def least(value_BL: Tensor, among_BL: Tensor, count: Tensor | int) -> Tensor:
    """Return the `count` positions of `among_BL` of least value (all of them where there are fewer), as `top` does."""
    order_BL = torch.where(among_BL, value_BL, torch.inf).argsort(dim=1, stable=True)
    return _leading(order_BL, count).logical_and_(among_BL)


def _leading(order_BL: Tensor, count: Tensor | int) -> Tensor:
    """Return the `count` positions that come first."""
    first_BL = positions(order_BL.shape[1], order_BL.device) < (count if isinstance(count, int) else count[:, None])
    # Every position has a rank, so that all of the copy is overwritten.
    return first_BL.expand_as(order_BL).scatter(1, order_BL, first_BL.expand_as(order_BL))


def open_rank(score_BL: Tensor, open_BL: Tensor) -> Tensor:
    """Return the rank of every position in its row as `first` counts: open ones before any other."""
    return rank_descending(_open_first(score_BL, open_BL))


def best(candidates: Candidates, open_BL: Tensor, rows_B: Tensor | None = None) -> Tensor:
    """Return the best position of the rows marked in `rows_B` (default: of all), an open one where there is one."""
    at_B1 = torch.where(open_BL, candidates.finite_BL, -torch.inf).argmax(1, keepdim=True)
    none_BL = filled((*open_BL.shape,), False, torch.bool, open_BL.device)
    return none_BL.scatter(1, at_B1, True) if rows_B is None else none_BL.scatter(1, at_B1, rows_B[:, None])


def _open_first(score_BL: Tensor, open_BL: Tensor) -> Tensor:
    """Return the scores of open positions, -inf elsewhere: less than an open position has that itself scores -inf."""
    return torch.where(open_BL, _finite(score_BL), -torch.inf)


def _finite(score_BL: Tensor) -> Tensor:
    return score_BL.clamp(min=torch.finfo(score_BL.dtype).min)
