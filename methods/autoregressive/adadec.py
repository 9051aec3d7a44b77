"""AdaDec: pause where the model is unsure, look ahead from its best candidates, and take the one with the best future.

Paper: He et al., arXiv:2506.08980; `SYSUSELab/AdaDec`.

Where the entropy H of the next token (raw softmax, nats) is at least theta, each of the B most probable tokens c is
followed greedily for up to L tokens, and the token with the largest lambda (ln p(c) + sum ln p(rollout)) / (1 + rollout
length) is committed, ties to the more probable; elsewhere the most probable one is.

| symbol | argument | default |
|---|---|---|
| theta | theta | 0.985025, that of DeepSeek-Coder 1.3B as released; `decbench train adadec` learns a model's own |
| B | B | 3 |
| L | L | 5 |
| lambda | no argument: above 0 it multiplies every candidate alike, so that nothing depends on it |

A rollout ends behind a stop token and where the answer has no room. Deviations: its log probability ends there, too (in
the release it goes on to add up while the length does not); keys and values are kept; the stop rule for Python bodies
is the task's. `reuse_rollout` (ours) commits the winner's rollout as far as decoding would not pause, since these are
the tokens that it would take: the same answer in fewer calls.

Invariants: theta above ln V, or theta=0 with B=1, equals greedy decoding; `reuse_rollout` changes no token. Without it,
T tokens with R pauses that have room take T + R L calls, T + R B L rows, and make T + R B L tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from harness.engine.autoregressive.asking import append, go_on, of_rows
from harness.engine.autoregressive.branching import MOST_ROWS
from harness.engine.autoregressive.drafting import Proposal, Verdict
from harness.engine.autoregressive.sequences import Sequences, is_stop
from harness.engine.shared.model import LanguageModel
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Prediction, leading, log_probability
from harness.engine.shared.records import Ledger
from harness.errors import FieldError, at_least, within


@policy("method/acceptor", "lookahead_rerank")
class LookaheadRerank:
    """Take the most probable token, or, at an entropy of at least `theta`, the best of `B` after `L` tokens more."""

    theta: float = 0.985025
    B: int = 3
    L: int = 5
    reuse_rollout: bool = True
    judges_drafts: ClassVar[bool] = False
    # Rollouts run the whole model.
    goes_with: ClassVar[Mapping[str, str]] = {"layers": "all"}

    def __post_init__(self) -> None:
        within(1, MOST_ROWS, B=self.B)
        at_least(1, L=self.L)
        if self.theta < 0:
            raise FieldError("theta", self.theta, "be at least 0 (0 pauses at every token)")

    def __call__(self, prediction: Prediction, proposal: Proposal, sequences: Sequences) -> Verdict:
        """Take the most probable token."""
        token_B, gap_B = leading(prediction.logits_NV)
        return Verdict(accepted_B=torch.zeros_like(token_B), token_B=token_B, token_gap_BT=gap_B[:, None])

    def judge(
        self, model: LanguageModel, prediction: Prediction, proposal: Proposal, sequences: Sequences, ledger: Ledger
    ) -> Verdict:
        """Return the most probable token of each row, or what looking ahead decides."""
        logits_BV, entropy_B = prediction.logits_NV, _entropy(prediction.logits_NV)
        token_B, gap_B = leading(logits_BV)
        paused_B = entropy_B >= self.theta
        gap_B = torch.where(paused_B, torch.inf, gap_B)
        gap_B, made_B = torch.minimum(gap_B, (entropy_B - self.theta).abs()), (~paused_B).long()
        sure_K, busy_K = (~paused_B).nonzero().squeeze(1), paused_B.nonzero().squeeze(1)
        rows, logits_KV = append(sequences, sure_K, token_B[sure_K]), logits_BV[busy_K]
        while len(busy_K):
            ahead = _Ahead.begun(rows, busy_K, logits_KV, self.B)
            ahead.run(model, self.L, ledger)
            made_B = made_B.index_add(0, ahead.of_C, 1 + ahead.length_C)
            rows, gap_K, busy_K, logits_KV = ahead.chosen(self.theta if self.reuse_rollout else None)
            gap_B = gap_B.index_copy(0, ahead.rows_K, torch.minimum(gap_B[ahead.rows_K], gap_K))
        return of_rows(sequences, rows, made_B, gap_B[:, None])


@dataclass(kw_only=True)
class _Ahead:
    """K rows that pause, each with its candidates, C in all, which are copies of it in `rows` at `at_C`.

    `of_C` is the row that each candidate is of; `origin_R` that of every copy, those that do not pause once. Of every
    step of the rollouts there are the entropy, the gap of the token and the logits; entropies are infinite behind the
    end of a rollout.
    """

    rows: Sequences
    rows_K: Tensor
    origin_R: Tensor
    at_C: Tensor
    score_C: Tensor
    length_C: Tensor
    entropies_C: list[Tensor] = field(default_factory=list)
    gaps_C: list[Tensor] = field(default_factory=list)
    logits_CV: list[Tensor] = field(default_factory=list)

    @classmethod
    def begun(cls, rows: Sequences, rows_K: Tensor, logits_KV: Tensor, candidates: int) -> Self:
        """Fork the rows that pause, a candidate behind each copy."""
        count_B = torch.ones_like(rows.length_B).index_fill(0, rows_K, min(candidates, logits_KV.shape[1]))
        origin_R = torch.arange(rows.num_rows, device=count_B.device).repeat_interleave(count_B)
        at_C = torch.isin(origin_R, rows_K).nonzero().squeeze(1)
        # A stable sort: of equal logits the lowest token goes first.
        token_KB = logits_KV.sort(dim=-1, descending=True, stable=True).indices[:, : int(count_B.max())]
        repeated_CV = logits_KV.repeat_interleave(token_KB.shape[1], 0)
        return cls(
            rows=append(rows.rows(origin_R), at_C, token_KB.flatten()),
            rows_K=rows_K,
            origin_R=origin_R,
            at_C=at_C,
            score_C=log_probability(repeated_CV, token_KB.flatten()),
            length_C=torch.zeros_like(at_C),
        )

    @property
    def of_C(self) -> Tensor:
        """The row that each candidate is of."""
        return self.origin_R[self.at_C]

    def run(self, model: LanguageModel, steps: int, ledger: Ledger) -> None:
        """Follow every candidate greedily for `steps` tokens, fewer where it ends."""
        for _ in range(steps):
            rows, last_C = self.rows, self.rows.length_B[self.at_C] - 1
            token_C = rows.tokens_BL[self.at_C, last_C]
            open_C = ~is_stop(token_C, model.spec.stop_ids) & (rows.length_B < rows.limit_B)[self.at_C]
            # Who has ended once has not gone on since.
            open_C &= self.length_C == len(self.logits_CV)
            going_D = open_C.nonzero().squeeze(1)
            if not len(going_D):
                return
            logits_DV = go_on(model, rows, self.at_C[going_D], ledger)
            token_D, gap_D = leading(logits_DV)
            self.rows = append(rows, self.at_C[going_D], token_D)
            self.score_C = self.score_C.index_add(0, going_D, log_probability(logits_DV, token_D))
            self.length_C = self.length_C.index_add(0, going_D, torch.ones_like(going_D))
            self.entropies_C.append(_spread(_entropy(logits_DV), going_D, len(self.at_C), torch.inf))
            self.gaps_C.append(_spread(gap_D, going_D, len(self.at_C), torch.inf))
            self.logits_CV.append(_spread(logits_DV, going_D, len(self.at_C), 0.0))

    def chosen(self, theta: float | None) -> tuple[Sequences, Tensor, Tensor, Tensor]:
        """Return the rows with the best candidates, and of their rollouts what comes before an entropy of `theta`.

        Nothing does where it is None. And how near each row was to another outcome, which rows pause again at once, and
        the logits there.
        """
        score_KB = (self.score_C / (1 + self.length_C)).view(len(self.rows_K), -1)
        best_K = score_KB.argmax(1)
        gap_K = _lead(score_KB)
        best_C = best_K + torch.arange(len(best_K), device=best_K.device) * score_KB.shape[1]
        kept_B = torch.searchsorted(self.origin_R, torch.arange(int(self.origin_R.max()) + 1, device=best_K.device))
        kept_B = kept_B.index_copy(0, self.rows_K, self.at_C[best_C])
        sure_K = torch.zeros_like(best_K)
        for step, (entropy_C, gap_C) in enumerate(zip(self.entropies_C, self.gaps_C, strict=True)):
            if theta is None:
                break
            near_K = torch.where(sure_K == step, (entropy_C[best_C] - theta).abs(), torch.inf)
            goes_on_K = (sure_K == step) & (entropy_C[best_C] < theta)
            near_K = torch.minimum(near_K, torch.where(goes_on_K, gap_C[best_C], torch.inf))
            gap_K, sure_K = torch.minimum(gap_K, near_K), sure_K + goes_on_K
        rows = self.rows.rows(kept_B)
        length_K = rows.length_B[self.rows_K] - self.length_C[best_C] + sure_K
        rows = replace(rows, length_B=rows.length_B.index_copy(0, self.rows_K, length_K))
        again_K = (sure_K < self.length_C[best_C]).nonzero().squeeze(1) if theta is not None else best_K[:0]
        if not len(again_K):
            return rows, gap_K, again_K, self.score_C.new_zeros(0, 0)
        logits_SCV = torch.stack(self.logits_CV)
        return rows, gap_K, self.rows_K[again_K], logits_SCV[sure_K[again_K], best_C[again_K]]


def _entropy(logits_NV: Tensor) -> Tensor:
    """Return entropies in nats, in float64."""
    return torch.special.entr(logits_NV.double().softmax(-1)).sum(-1)


def _spread(values_D: Tensor, at_D: Tensor, count: int, fill: float) -> Tensor:
    """Return `count` entries, the values at theirs and `fill` elsewhere."""
    return values_D.new_full((count, *values_D.shape[1:]), fill).index_copy(0, at_D, values_D)


def _lead(score_KB: Tensor) -> Tensor:
    """Return by how much the best of each row exceeds the next best; infinite where there is none."""
    if score_KB.shape[1] == 1:
        return torch.full_like(score_KB[:, 0], torch.inf)
    best_K2 = score_KB.topk(2, 1).values
    return best_K2[:, 0] - best_K2[:, 1]
