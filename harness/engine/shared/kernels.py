"""Scores of logits in one pass, for accelerators: each logit is read once, and nothing as large as the logits is made.

Only imported where it is used: Triton comes with torch's builds for GPUs. Sums go block by block, so that numbers
agree with the plain path up to rounding; tokens are the same.
Shapes: N positions, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton  # type: ignore[import-not-found]
import triton.language as tl  # type: ignore[import-not-found]
from torch import Tensor

_BLOCK = 4096


@triton.jit
def _one_pass(
    logits: Any,
    numbers: Any,
    token: Any,
    vocab: Any,
    block: tl.constexpr,
    dtype: tl.constexpr,
):
    """Write of row `program_id`: its largest logit, the next best, and two sums relative to the largest.

    These are the sum of exp(z - m) over the other tokens, and that of exp(z - m) (z - m) over all.
    """
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, block)
    nothing = tl.full((), float("-inf"), dtype)
    zero = tl.full((), 0.0, dtype)
    most, second, others, weighted = nothing, nothing, zero, zero
    best = tl.full((), 0, tl.int64)
    for first in range(0, vocab, block):
        at = first + lane
        z = tl.load(logits + row * vocab + at, mask=at < vocab, other=float("-inf")).to(dtype)
        most_here, best_here = tl.max(z, 0), tl.argmax(z, 0)
        behind = tl.where(z == nothing, zero, z - tl.where(most_here == nothing, zero, most_here))
        part = tl.where(z == nothing, zero, tl.exp(behind))
        is_best = lane == best_here
        others_here = tl.sum(tl.where(is_best, zero, part), 0)
        second_here = tl.max(tl.where(is_best, nothing, z), 0)
        weighted_here = tl.sum(part * behind, 0)
        # Of equals the first stays, which has the lower number.
        stays = most >= most_here
        all_before = tl.where(most == nothing, zero, others + 1.0)
        all_here = tl.where(most_here == nothing, zero, others_here + 1.0)
        high, low = tl.maximum(most, most_here), tl.minimum(most, most_here)
        lower = tl.where(low == nothing, zero, low - high)
        shrunk = tl.where(low == nothing, zero, tl.exp(lower))
        moved = tl.where(stays, weighted_here + lower * all_here, weighted + lower * all_before)
        weighted = tl.where(stays, weighted, weighted_here) + shrunk * moved
        second = tl.where(stays, tl.maximum(second, most_here), tl.maximum(second_here, most))
        others = tl.where(stays, others + shrunk * all_here, others_here + shrunk * all_before)
        best = tl.where(stays, best, first + best_here.to(tl.int64))
        most = high
    tl.store(token + row, best)
    tl.store(numbers + row * 4, most)
    tl.store(numbers + row * 4 + 1, second)
    tl.store(numbers + row * 4 + 2, others)
    tl.store(numbers + row * 4 + 3, weighted)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What one pass over logits tells: the most probable token (the lowest of equals), its logit, and the next best.

    `others_N` sums exp(z - m) over all tokens but that one, m being its logit, `weighted_N` those times z - m.
    """

    tokens_N: Tensor
    most_N: Tensor
    second_N: Tensor
    others_N: Tensor
    weighted_N: Tensor

    @classmethod
    def of(cls, logits_NV: Tensor) -> "Scored":
        """Read logits of any floating type once; numbers are float64 for float64, else float32."""
        logits_NV, (count, vocab) = logits_NV.contiguous(), logits_NV.shape
        wide = logits_NV.dtype is torch.float64
        numbers_N4 = logits_NV.new_empty(count, 4, dtype=torch.float64 if wide else torch.float32)
        tokens_N = logits_NV.new_empty(count, dtype=torch.int64)
        if count:
            with torch.cuda.device_of(logits_NV):
                block = min(_BLOCK, triton.next_power_of_2(vocab))
                _one_pass[(count,)](  # type: ignore[index]
                    logits_NV, numbers_N4, tokens_N, vocab, block=block, dtype=tl.float64 if wide else tl.float32
                )
        most_N, second_N, others_N, weighted_N = numbers_N4.unbind(1)
        return cls(tokens_N=tokens_N, most_N=most_N, second_N=second_N, others_N=others_N, weighted_N=weighted_N)


def surest(logits_NV: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `harness.engine.shared.prediction.surest` does."""
    one, dtype = Scored.of(logits_NV), logits_NV.dtype
    return one.tokens_N, one.others_N.log1p().neg().to(dtype), (one.second_N - one.most_N).to(dtype)


def log_probability(logits_NV: Tensor, tokens_N: Tensor) -> Tensor:
    """Return what `harness.engine.shared.prediction.log_probability` does."""
    one = Scored.of(logits_NV)
    behind_N = logits_NV.gather(-1, tokens_N[:, None])[:, 0].to(one.most_N.dtype) - one.most_N
    # Of tokens with the largest logit, too, all others together have what the first one's have.
    return (behind_N - one.others_N.log1p()).to(logits_NV.dtype)


def entropy(logits_NV: Tensor) -> Tensor:
    """Return the entropy of the predicted distributions, in nats."""
    one = Scored.of(logits_NV)
    return one.others_N.log1p() - one.weighted_N / (1 + one.others_N)
