"""Cautious next token prediction: where the model is unsure, try several continuations and keep the likeliest.

Paper: Wang et al., Findings of ACL 2025, arXiv:2507.03038, Algorithm 1; `wyzjack/CNTP`, `_sample_reflect_perplexity`.

The entropy H of what tokens are drawn from (after temperature, top-k and top-p, in nats) says how many trials N are
made. One: the token is drawn. Several: each trial draws tokens until a punctuation mark or the end, and the one with
the lowest perplexity is kept, ties to the first.

| symbol | argument | default |
|---|---|---|
| tau, top_k, top_p | temperature, top_k, top_p | 1.2, 0, 0.9 (the study of Llama-3.1-8B on GSM8K) |
| H_min, H_max | H_lo, H_hi | 0.01, 1.5 |
| N_max | N_max | 10 |
| STOP | stop, stop_match | `. , \\n ? ! : ; ) ] }` ends a token, or a line end is in it (`text`) |

`variant` is how N follows from u = (H - H_lo) / (H_hi - H_lo) in [0, 1]: `code` (the released runs) 1 + floor((N_max -
1) u), `paper` max(1, floor(N_max u)), `inverted` N_max + 1 less `code`, `same_num` 6 always.

Deviations: trials run as rows of one call and their first token comes from the call that found the entropy, which the
release computes anew for each, one after the other; a trial has at most `max_trial_len` tokens (0: no bound but the
answer's length, as released). `stop_match=id` is the release: the first token of each mark alone.

Invariants: N_max=1 gives the tokens of `ar_sample`; trials of lengths a_1 .. a_N take max a_i calls, 1 + sum (a_i - 1)
rows and make sum a_i tokens.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import ClassVar, Self

import torch
from torch import Tensor

from harness.engine.autoregressive.asking import append, go_on, of_rows
from harness.engine.autoregressive.branching import MOST_ROWS
from harness.engine.autoregressive.drafting import Proposal, Verdict
from harness.engine.autoregressive.sequences import Sequences, is_stop
from harness.engine.shared.largest import at_largest
from harness.engine.shared.model import LanguageModel
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Prediction
from harness.engine.shared.randomness import uniforms
from harness.engine.shared.records import Ledger
from harness.engine.shared.sampling import invert
from harness.errors import FieldError, within
from methods.autoregressive.sample import Law

_SAME_NUM = 6


class Trials(Enum):
    """How many trials an entropy asks for."""

    code = "code"
    paper = "paper"
    inverted = "inverted"
    same_num = "same_num"


class StopMatch(Enum):
    """What ends a trial: the text of a token, or the ids that the marks begin with."""

    text = "text"
    id = "id"


@policy("method/acceptor", "cautious")
class Cautious:
    """Draw a token where the model is sure, else keep the likeliest of several trials; see the module."""

    temperature: float = 1.2
    top_k: int = 0
    top_p: float = 0.9
    H_lo: float = 0.01
    H_hi: float = 1.5
    N_max: int = 10
    variant: Trials = Trials.code
    do_sample: bool = True
    max_trial_len: int = 64
    stop: str = ".,\n?!:;)]}"
    stop_match: StopMatch = StopMatch.text
    stop_ids: tuple[int, ...] = ()
    """Tokens that end a trial, which whoever knows the tokenizer fills in (`in_tokens`)."""

    judges_drafts: ClassVar[bool] = False
    # Trials run the whole model.
    goes_with: ClassVar[Mapping[str, str]] = {"layers": "all"}

    def __post_init__(self) -> None:
        Law(self.temperature, self.top_k, self.top_p)
        if self.temperature == 0:
            raise FieldError("temperature", self.temperature, "be above 0: the trials are drawn")
        if self.H_hi <= self.H_lo:
            raise FieldError("H_hi", self.H_hi, f"be above H_lo={self.H_lo}")
        within(1, MOST_ROWS, N_max=self.N_max)
        if self.max_trial_len < 0:
            raise FieldError("max_trial_len", self.max_trial_len, "be at least 0 (0: no bound)")

    def in_tokens(self, encode: Callable[[str], Sequence[int]], pieces: Sequence[str]) -> Self:
        """Return the policy with the tokens of its marks."""
        if self.stop_match is StopMatch.id:
            found = [encode(mark)[0] for mark in self.stop if encode(mark)]
        else:
            found = [at for at, piece in enumerate(pieces) if _ends_with(piece, self.stop)]
        return replace(self, stop_ids=tuple(found))

    def trials(self, entropy_N: Tensor) -> Tensor:
        """Return the number of trials for entropies in nats."""
        u_N = ((entropy_N - self.H_lo) / (self.H_hi - self.H_lo)).clamp(0, 1)
        code_N = 1 + ((self.N_max - 1) * u_N).floor().long()
        if self.variant is Trials.paper:
            return (self.N_max * u_N).floor().long().clamp(1, self.N_max)
        if self.variant is Trials.inverted:
            return self.N_max + 1 - code_N
        return torch.full_like(code_N, _SAME_NUM) if self.variant is Trials.same_num else code_N

    def __call__(self, prediction: Prediction, proposal: Proposal, sequences: Sequences) -> Verdict:
        """Draw one token per row, as if all were sure."""
        return replace(self, N_max=1, variant=Trials.code)._sure(prediction.logits_NV, sequences)

    def judge(
        self, model: LanguageModel, prediction: Prediction, proposal: Proposal, sequences: Sequences, ledger: Ledger
    ) -> Verdict:
        """Return the token that was drawn, or the trial that is kept."""
        p_BV = self._law.probabilities(prediction.logits_NV)
        count_B = self.trials(torch.special.entr(p_BV).sum(-1))
        if int(count_B.max()) == 1:
            return self._sure(prediction.logits_NV, sequences)
        rows = torch.arange(sequences.num_rows, device=count_B.device)
        origin_R = rows.repeat_interleave(count_B)
        number_R = torch.arange(len(origin_R), device=count_B.device) - (count_B.cumsum(0) - count_B)[origin_R]
        trials, log_p_R = self._run(model, sequences.rows(origin_R), p_BV[origin_R], (origin_R, number_R), ledger)
        length_R = trials.length_B - sequences.length_B[origin_R]
        best_B = _first_best(log_p_R / length_R, origin_R, sequences.num_rows)
        kept = trials.rows(best_B)
        made_B = torch.zeros_like(count_B).index_add(0, origin_R, length_R)
        return of_rows(sequences, kept, made_B)

    @property
    def _law(self) -> Law:
        return Law(self.temperature, self.top_k, self.top_p)

    def _sure(self, logits_BV: Tensor, sequences: Sequences) -> Verdict:
        token_B = at_largest(logits_BV)
        if self.do_sample:
            uniform_B = uniforms(sequences.seed_B, sequences.length_B, "token", 1).squeeze(1)
            token_B = invert(self._law.probabilities(logits_BV), uniform_B)
        return Verdict(accepted_B=torch.zeros_like(token_B), token_B=token_B)

    def _run(
        self, model: LanguageModel, trials: Sequences, p_RV: Tensor, named: tuple[Tensor, Tensor], ledger: Ledger
    ) -> tuple[Sequences, Tensor]:
        """Return the trials at their ends, and the log probability of each.

        `named` are the row that each goes on from and its number there; that of a row by itself is no trial and takes
        one token.
        """
        origin_R, number_R = named
        alone_R = torch.bincount(origin_R)[origin_R] == 1
        log_p_R, begun_R = p_RV.new_zeros(len(origin_R)), trials.length_B
        most_R = torch.where(alone_R, 1, self.max_trial_len or trials.limit_B.max())
        most_R = torch.minimum(most_R, trials.limit_B - begun_R)
        busy_R = torch.arange(len(origin_R), device=origin_R.device)
        while True:
            drawn_T = self._draw(p_RV, trials, busy_R, number_R, alone_R)
            log_p_R = log_p_R.index_add(0, busy_R, p_RV.gather(1, drawn_T[:, None])[:, 0].log())
            trials = append(trials, busy_R, drawn_T)
            goes_on_T = ~is_stop(drawn_T, (*model.spec.stop_ids, *self.stop_ids))
            busy_R = busy_R[goes_on_T & (trials.length_B - begun_R < most_R)[busy_R]]
            if not len(busy_R):
                return trials, log_p_R
            p_RV = self._law.probabilities(go_on(model, trials, busy_R, ledger))

    def _draw(self, p_TV: Tensor, trials: Sequences, busy_R: Tensor, number_R: Tensor, alone_R: Tensor) -> Tensor:
        """Return a token of each busy row: every trial has its own number at every position."""
        seed_T, position_T, number_T = trials.seed_B[busy_R], trials.length_B[busy_R], number_R[busy_R]
        uniform_T = uniforms(seed_T, position_T, "token", int(number_T.max()) + 1).gather(1, number_T[:, None])[:, 0]
        drawn_T = invert(p_TV, uniform_T)
        return drawn_T if self.do_sample else torch.where(alone_R[busy_R], at_largest(p_TV), drawn_T)


def _ends_with(piece: str, marks: str) -> bool:
    last = piece.rstrip(" ")[-1:]
    return ("\n" in piece and "\n" in marks) or (last != "" and last in marks)


def _first_best(score_R: Tensor, origin_R: Tensor, rows: int) -> Tensor:
    """Return the entry with the largest score of each row's, the first of equals."""
    order_R = score_R.argsort(descending=True, stable=True)
    order_R = order_R[origin_R[order_R].argsort(stable=True)]
    count_B = torch.bincount(origin_R, minlength=rows)
    return order_R[count_B.cumsum(0) - count_B]
