"""Superposed Decoding: k drafts of one prompt from one pass, in which their last tokens are fed as a blend.

Paper: Shen et al., NeurIPS 2024, arXiv:2405.18400; released code: RAIVNLab/SuperposedDecoding, superposed/llama.

Every call feeds, as one position, the embeddings of the drafts' last tokens, weighed by softmax(S), where S are the
drafts' scores. Of the law softmax(z / T) the n likeliest tokens are kept and normalised, and every draft j scores each
token v of them

    S_j + (1 - A) log p(v) + A log g_j(v),    g_j(v) = sum over m of lambda_m P_m(v | last m tokens of draft j),

or S_j + (1 - A) log p(v) - 200 where g_j is 0 for all of them. Of the best 2k pairs those with a stop token join the k
best drafts that are finished, and the best k others go on, until there is no more room. The answers are the k drafts of
the lowest perplexity, exp(-S / length), finished or not; the first of them is the row's, the others are `beside` it.

| symbol | argument | default (prompts of 15 tokens) |
|---|---|---|
| k | k | 3 |
| T | T | 0.06 |
| n | n | 9 (3k) |
| A (alpha) | A | 0.54 |
| lambda_1, lambda_2, ... | weights | 0.01, 0.04, 0.15, 0.18, 0.12 |
| | corpus_file | null: no n-grams, S_j + log p(v); else a JSON list of documents, lists of token ids |

Contexts of n-grams reach into the prompt. Of a model with several stop tokens there are as many more pairs, so that k
of them go on. A pair that n-grams rule out keeps the released score of -10^7. Scores are kept in float64.

Lossy: no draft is what the model says of its own text, and n-grams of an unfit corpus mislead it.
Invariants: calls = gen_length, whatever k is; k tokens are generated per call; with k = 1 and no corpus, greedy
decoding up to its first stop token.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from harness.engine.autoregressive.branching import MOST_ROWS, Spread, fork
from harness.engine.autoregressive.drafting import Proposal, Verdict
from harness.engine.autoregressive.sequences import Sequences, is_stop
from harness.engine.shared.model import Blend
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Prediction
from harness.errors import ConfigError, FieldError, within
from methods.autoregressive.ngrams import Ngrams, read_documents

TOKENS, SCORES = "superposed.tokens_BJG", "superposed.score_BJ"
ENDED, ENDED_SCORES, ENDED_LENGTHS = "superposed.ended_BJG", "superposed.ended_score_BJ", "superposed.ended_length_BJ"
"""What a row keeps: J drafts of up to G tokens that go on, the best first, and as many that are finished."""

PENALTY, FLOOR = 200.0, -1e7


@dataclass(frozen=True, kw_only=True)
class _Drafts:
    tokens_BJG: Tensor
    score_BJ: Tensor
    ended_BJG: Tensor
    ended_score_BJ: Tensor
    ended_length_BJ: Tensor

    @classmethod
    def of(cls, sequences: Sequences, k: int) -> "_Drafts":
        """Return those of every row, none written yet where there are none."""
        memory, rows = sequences.memory, sequences.num_rows
        if TOKENS not in memory:
            width = int((sequences.limit_B - sequences.prompt_length_B).max())
            tokens_BJG = sequences.tokens_BL.new_zeros(rows, k, width)
            score_BJ = torch.zeros(rows, k, dtype=torch.float64, device=tokens_BJG.device)
            length_BJ = tokens_BJG.new_zeros(rows, k)
            return cls(
                tokens_BJG=tokens_BJG,
                score_BJ=score_BJ,
                ended_BJG=tokens_BJG,
                ended_score_BJ=torch.full_like(score_BJ, -torch.inf),
                ended_length_BJ=length_BJ,
            )
        kept = [memory[name] for name in (TOKENS, SCORES, ENDED, ENDED_SCORES, ENDED_LENGTHS)]
        return cls(**dict(zip(cls.__dataclass_fields__, kept, strict=True)))  # type: ignore[arg-type]

    def keep(self, sequences: Sequences) -> None:
        """Have the rows know them."""
        names = (TOKENS, SCORES, ENDED, ENDED_SCORES, ENDED_LENGTHS)
        memory = sequences.memory
        memory |= dict(zip(names, (getattr(self, one) for one in self.__dataclass_fields__), strict=True))

    def grown(
        self, score_BC: Tensor, draft_BC: Tensor, token_BC: Tensor, place_B: Tensor, ends_BC: Tensor
    ) -> "_Drafts":
        """Return the drafts with their candidates, the best first, each a token more at `place_B`."""
        k, width = self.score_BJ.shape[1], self.tokens_BJG.shape[2]
        grown_BCG = self.tokens_BJG.gather(1, draft_BC[..., None].expand(-1, -1, width))
        at_BC1 = place_B[:, None, None].expand(-1, token_BC.shape[1], 1)
        grown_BCG = grown_BCG.scatter(2, at_BC1, token_BC[..., None])
        on_BJ = ends_BC.byte().argsort(dim=1, stable=True)[:, :k]
        # Should too few go on without a stop token, one that has it goes on as the worst.
        score_BJ = score_BC.masked_fill(ends_BC, FLOOR).gather(1, on_BJ)
        pool_BP = torch.cat([self.ended_score_BJ, score_BC.masked_fill(~ends_BC, -torch.inf)], 1)
        best_BJ = pool_BP.argsort(dim=1, descending=True, stable=True)[:, :k]
        length_BC = (place_B + 1)[:, None].expand_as(token_BC)
        return _Drafts(
            tokens_BJG=_picked(grown_BCG, on_BJ),
            score_BJ=score_BJ,
            ended_BJG=_picked(torch.cat([self.ended_BJG, grown_BCG], 1), best_BJ),
            ended_score_BJ=pool_BP.gather(1, best_BJ),
            ended_length_BJ=torch.cat([self.ended_length_BJ, length_BC], 1).gather(1, best_BJ),
        )

    def answers(self, row: int, length: int, stop_ids: tuple[int, ...]) -> list[list[int]]:
        """Return a row's best drafts by perplexity, those that go on being `length` long."""
        known = [(-float(self.score_BJ[row, j]) / length, self.tokens_BJG[row, j, :length]) for j in range(self.k)]
        for j, ended in enumerate(self.ended_length_BJ[row].tolist()):
            if float(self.ended_score_BJ[row, j]) > -torch.inf:
                known.append((-float(self.ended_score_BJ[row, j]) / ended, self.ended_BJG[row, j, :ended]))
        best = [tokens.tolist() for _, tokens in sorted(known, key=lambda one: one[0])[: self.k]]
        return [_up_to_stop(tokens, stop_ids) for tokens in best]

    @property
    def k(self) -> int:
        return self.score_BJ.shape[1]


def _picked(of_BCG: Tensor, index_BJ: Tensor) -> Tensor:
    return of_BCG.gather(1, index_BJ[..., None].expand(-1, -1, of_BCG.shape[2]))


def _up_to_stop(tokens: list[int], stop_ids: tuple[int, ...]) -> list[int]:
    stops = [place for place, token in enumerate(tokens) if token in stop_ids]
    return tokens[: stops[0] + 1] if stops else tokens


@policy("method/acceptor", "superposed")
class Superposed:
    """Go on with `k` drafts at once by what one call says of their blend; see the module."""

    k: int = 3
    T: float = 0.06
    n: int = 9
    A: float = 0.54
    weights: tuple[float, ...] = (0.01, 0.04, 0.15, 0.18, 0.12)
    corpus_file: str | None = None
    goes_with: ClassVar[Mapping[str, str]] = {"feed": "superposed", "revision": "superposed"}
    judges_drafts: ClassVar[bool] = False

    def __post_init__(self) -> None:
        within(1, MOST_ROWS, k=self.k)
        if self.T <= 0:
            raise FieldError("T", self.T, "be above 0: probabilities are blended")
        if self.n < 2 * self.k:
            raise FieldError("n", self.n, f"be at least {2 * self.k}: the first call gives 2 k={2 * self.k} drafts")
        if not 0 <= self.A < 1:
            raise FieldError("A", self.A, "lie in [0, 1)")
        if not self.weights or min(self.weights) < 0:
            raise FieldError("weights", list(self.weights), "be a list of numbers of at least 0, one for each context")
        _ = self._ngrams

    @cached_property
    def _ngrams(self) -> Ngrams | None:
        if self.corpus_file is None:
            return None
        return Ngrams.of(read_documents(self.corpus_file), len(self.weights))

    def __call__(self, prediction: Prediction, proposal: Proposal, sequences: Sequences) -> Verdict:
        """Return the last token of the best draft of each row, which knows all of them."""
        if self.k >= (vocabulary := prediction.spec.vocab_size):
            raise ConfigError(
                f"method.k={self.k}: must be below the {vocabulary} tokens of model={prediction.spec.name}"
            )
        drafts, stop_ids = _Drafts.of(sequences, self.k), prediction.spec.stop_ids
        place_B = sequences.length_B - sequences.prompt_length_B
        log_p_BV = (prediction.logits_NV.double() / self.T).log_softmax(-1)
        best = log_p_BV.sort(dim=-1, descending=True, stable=True)
        token_BN, log_p_BN = best.indices[:, : self.n], best.values[:, : self.n].log_softmax(-1)
        score_BJN = drafts.score_BJ[..., None] + self._scored(log_p_BN, token_BN, drafts, sequences, place_B)
        score_BJN = score_BJN.clamp(min=FLOOR)
        # Drafts of a row that begins are all the same: the first stands for them.
        score_BJN[place_B == 0, 1:] = -torch.inf
        ranked = score_BJN.flatten(1).sort(dim=1, descending=True, stable=True)
        most, width = min((1 + max(1, len(stop_ids))) * self.k, token_BN.shape[1]), token_BN.shape[1]
        score_BC, place_BC = ranked.values[:, :most], ranked.indices[:, :most]
        token_BC = token_BN.gather(1, place_BC % width)
        ends_BC = is_stop(token_BC, stop_ids)
        drafts = drafts.grown(score_BC, place_BC // width, token_BC, place_B, ends_BC)
        drafts.keep(sequences)
        token_B = drafts.tokens_BJG[torch.arange(len(place_B), device=place_B.device), 0, place_B]
        return Verdict(
            accepted_B=torch.zeros_like(token_B),
            token_B=token_B,
            token_gap_BT=self._gap(drafts.score_BJ, score_BC.masked_fill(ends_BC, -torch.inf))[:, None],
            generated_B=torch.full_like(token_B, self.k),
        )

    def _gap(self, kept_BJ: Tensor, going_BC: Tensor) -> Tensor:
        """Return how far the worst draft that goes on was from the best that does not, infinite without one."""
        gap_B = kept_BJ.amin(1) - going_BC.sort(dim=1, descending=True).values[:, self.k]
        return torch.where((gap_B >= 0) & gap_B.isfinite(), gap_B, torch.inf)

    def _scored(
        self, log_p_BN: Tensor, token_BN: Tensor, drafts: _Drafts, sequences: Sequences, place_B: Tensor
    ) -> Tensor:
        """Return what each token adds to each draft's score, [B, J, N]."""
        if self._ngrams is None:
            return log_p_BN[:, None].expand(-1, self.k, -1)
        rows = zip(sequences.tokens_BL.tolist(), sequences.prompt_length_B.tolist(), place_B.tolist(), strict=True)
        g_BJN = log_p_BN.new_tensor(
            [
                [self._ngrams.blended(line[:prompt] + draft[:place], tokens, self.weights) for draft in of_row.tolist()]
                for (line, prompt, place), of_row, tokens in zip(
                    rows, drafts.tokens_BJG, token_BN.tolist(), strict=True
                )
            ]
        )
        model_BJN = (1 - self.A) * log_p_BN[:, None].expand_as(g_BJN)
        unknown_BJ1 = (g_BJN == 0).all(2, keepdim=True)
        return model_BJN + torch.where(unknown_BJ1, -PENALTY, self.A * g_BJN.log())


@policy("method/feed", "superposed")
class Superposition:
    """Feed the last tokens of all drafts of a row as one (`acceptor=superposed`)."""

    goes_with: ClassVar[Mapping[str, str]] = {"acceptor": "superposed"}
    of_draft: ClassVar[bool] = False

    def fit_layers(self, layers: int) -> None:
        """Accept any model that runs parts of itself."""

    def blend(self, sequences: Sequences) -> Blend | None:
        """Return the last tokens, weighed by the softmax of the drafts' scores; None for prompts."""
        if TOKENS not in sequences.memory:
            return None
        tokens_BJG, score_BJ = sequences.memory[TOKENS], sequences.memory[SCORES]
        assert isinstance(tokens_BJG, Tensor) and isinstance(score_BJ, Tensor)
        last_B = sequences.length_B - sequences.prompt_length_B - 1
        last_BJ1 = last_B[:, None, None].expand(-1, tokens_BJG.shape[1], 1)
        last_B1J = tokens_BJG.gather(2, last_BJ1).transpose(1, 2)
        return Blend(tokens_BTM=last_B1J, weights_BTM=score_BJ.softmax(-1)[:, None])


@policy("method/revision", "superposed")
class BestDrafts:
    """Have rows say what their best draft does, and all of the best where they end (`acceptor=superposed`)."""

    goes_with: ClassVar[Mapping[str, str]] = {"acceptor": "superposed"}

    def __call__(self, sequences: Sequences, stop_ids: tuple[int, ...]) -> Sequences:
        """Return the rows; one that ends is followed by as many as it has further answers."""
        assert TOKENS in sequences.memory, "drafts come from acceptor=superposed"
        count_B = sequences.length_B - sequences.prompt_length_B
        drafts = _Drafts.of(sequences, 0)
        ends = (sequences.length_B == sequences.limit_B).tolist()
        said = [
            drafts.answers(row, length, stop_ids) if end else [drafts.tokens_BJG[row, 0, :length].tolist()]
            for row, (end, length) in enumerate(zip(ends, count_B.tolist(), strict=True))
        ]
        index_R = torch.tensor([row for row, one in enumerate(said) for _ in one], device=count_B.device)
        rows = fork(sequences, Spread(index_B=index_R)) if any(ends) else sequences
        tokens_RL, length_R = rows.tokens_BL.clone(), rows.length_B.clone()
        for row, tokens in enumerate(tokens for one in said for tokens in one):
            start = int(rows.prompt_length_B[row])
            tokens_RL[row, start : start + len(tokens)] = torch.tensor(tokens, device=tokens_RL.device)
            length_R[row] = start + len(tokens)
        return replace(rows, tokens_BL=tokens_RL, length_B=length_R)
