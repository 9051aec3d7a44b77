"""Beam search: the B most probable beginnings, each continued by every token, of which the best B go on.

No paper of its own; the rules are those of transformers' `GenerationMixin._beam_search` with `early_stopping=False`.

A hypothesis among the best B that ends with a stop token, or where there is no more room, is finished, with the score
log p / length^alpha, its stop token counted in the length; the best B of these are kept. A sample is done when B are
finished and the best hypothesis that goes on, at its present length, scores no better than the worst of them. The
answer is the best finished one.

| symbol | argument | default |
|---|---|---|
| B | num_beams | 5 (the study of CNTP) |
| alpha | length_penalty | 1.0 |

Sums of log probabilities are kept in float64; ties go to the better hypothesis, then to the lower token. Log
probabilities are those of raw logits. The prompt is computed once, in one row.
Invariants: one beam equals greedy decoding; T tokens take T calls and 1 + B (T - 1) rows, where the vocabulary has B.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from harness.engine.autoregressive.branching import MOST_ROWS, Branch, Spread
from harness.engine.autoregressive.drafting import Proposal, Verdict
from harness.engine.autoregressive.sequences import Sequences, is_stop
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Prediction
from harness.errors import within

TOKEN, SUM, GAP = "beam.token_B", "beam.log_p_B", "beam.gap_B"
"""What a hypothesis is told: its next token, its log probability with it, and the distance to being another one."""


@policy("method/branching", "beam")
class Beams:
    """Keep the `num_beams` best hypotheses of each sample, which end with scores log p / length^`length_penalty`."""

    num_beams: int = 5
    length_penalty: float = 1.0
    goes_with: ClassVar[Mapping[str, str]] = {"acceptor": "of_beam"}
    drafts: ClassVar[bool] = False
    votes: ClassVar[bool] = False

    def __post_init__(self) -> None:
        within(1, MOST_ROWS, num_beams=self.num_beams)
        # Beyond, powers of lengths are no numbers any more.
        within(-10, 10, length_penalty=self.length_penalty)

    @property
    def synchronous(self) -> bool:
        """Yes: hypotheses of all samples share a call."""
        return True

    def spread(self, prediction: Prediction, sequences: Sequences) -> Spread:
        """Return the hypotheses that go on, and those of the best that end here, each with its next token."""
        logits_BV = prediction.logits_NV
        log_p_BV = logits_BV.double().log_softmax(-1)
        if SUM in sequences.memory:
            log_p_BV = log_p_BV + sequences.memory[SUM][:, None]
        room_B = sequences.length_B + 1 < sequences.limit_B
        parts = [
            self._of_sample(log_p_BV, (sequences.sample_B == sample).nonzero().squeeze(1), prediction, room_B)
            for sample in sequences.sample_B.unique().tolist()
        ]
        row_R, token_R, sum_R, gap_R = (torch.cat(part) for part in zip(*parts, strict=True))
        return Spread(index_B=row_R, memory={TOKEN: token_R, SUM: sum_R, GAP: gap_R})

    def _of_sample(
        self, log_p_BV: Tensor, rows_H: Tensor, prediction: Prediction, room_B: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return rows, tokens, sums and gaps of a sample's hypotheses, the best first."""
        vocabulary, stop_ids = log_p_BV.shape[1], prediction.spec.stop_ids
        best = log_p_BV[rows_H].flatten().sort(descending=True, stable=True)
        most = min(max(2, 1 + len(stop_ids)) * self.num_beams, int((best.values > -torch.inf).sum()))
        sum_C, place_C = best.values[:most], best.indices[:most]
        token_C, row_C = place_C % vocabulary, rows_H[place_C // vocabulary]
        ends_C = is_stop(token_C, stop_ids) | ~room_B[row_C]
        rank_C = torch.arange(most, device=ends_C.device)
        goes_on_C = ~ends_C & ((~ends_C).cumsum(0) <= self.num_beams)
        kept_C = goes_on_C | (ends_C & (rank_C < self.num_beams))
        # What the order of two sums has decided is which of them is kept.
        gap = sum_C[kept_C].amin() - sum_C[~kept_C].amax() if bool((~kept_C).any()) else sum_C.new_tensor(torch.inf)
        gap_C = torch.full_like(sum_C, float(gap) if float(gap) >= 0 else torch.inf)
        return row_C[kept_C], token_C[kept_C], sum_C[kept_C], gap_C[kept_C]

    def over(self, ended: Sequence[Branch], sequences: Sequences, rows_R: Tensor) -> bool:
        """Say whether enough have finished, and none that goes on is better than the worst of them."""
        if len(ended) < self.num_beams:
            return False
        sums_B = sequences.memory[SUM]
        length = int((sequences.length_B - sequences.prompt_length_B)[rows_R[0]])
        return float(sums_B[rows_R].max()) / length**self.length_penalty <= self._best(ended)[-1]

    def settled(self, ended: Sequence[Branch]) -> Sequence[Branch]:
        """Return the best of the finished hypotheses."""
        return [max(ended, key=self._score)]

    def _best(self, ended: Sequence[Branch]) -> list[float]:
        return sorted(map(self._score, ended), reverse=True)[: self.num_beams]

    def _score(self, branch: Branch) -> float:
        return branch.memory[SUM] / len(branch.generation.tokens) ** self.length_penalty


@policy("method/acceptor", "of_beam")
class OfBeam:
    """Take the token that a hypothesis was kept with (`branching=beam`)."""

    goes_with: ClassVar[Mapping[str, str]] = {"branching": "beam"}

    def __call__(self, prediction: Prediction, proposal: Proposal, sequences: Sequences) -> Verdict:
        """Return the hypotheses' tokens."""
        assert TOKEN in sequences.memory, "tokens of beams come from branching=beam"
        token_B, gap_B = sequences.memory[TOKEN], sequences.memory[GAP]
        return Verdict(accepted_B=torch.zeros_like(token_B), token_B=token_B, token_gap_BT=gap_B[:, None])
