"""A judge that nobody trained, in the place of Arbitrage's reward model: it reads drafts and says if they stand."""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from torch import Tensor, where

from harness.engine.autoregressive.drafting import Proposal, Verdict
from harness.engine.autoregressive.sequences import Sequences, write_behind
from harness.engine.autoregressive.windows import Window, ask
from harness.engine.shared.model import LanguageModel, ModelKind, Models
from harness.engine.shared.policy import policy
from harness.engine.shared.prediction import Prediction, token_gap
from harness.engine.shared.records import Ledger

ROLE = "judge"


@policy("method/acceptor", "judged")
class Judged:
    """Take all drafts where the judge, behind the last of them, likes one token more than another; else none.

    With `heard` false it is asked in vain, and drafts stand as in greedy decoding.
    """

    heard: bool = True
    judges_drafts: ClassVar[bool] = True
    asks_others: ClassVar[Mapping[str, frozenset[ModelKind]]] = {ROLE: frozenset({ModelKind.CAUSAL})}

    def __call__(self, prediction: Prediction, proposal: Proposal, sequences: Sequences) -> Verdict:
        """Return what greedy decoding says."""
        tokens_N = prediction.logits_NV.argmax(-1)
        return Verdict.exact_match(prediction, tokens_N, proposal, sequences, token_gap(prediction.logits_NV, tokens_N))

    def judge(
        self, model: LanguageModel, prediction: Prediction, proposal: Proposal, sequences: Sequences, ledger: Ledger
    ) -> Verdict:
        """Ask the judge of rows that have drafts."""
        greedy, count_B = self(prediction, proposal, sequences), proposal.count_B
        if not bool(count_B.any()):
            return greedy
        assert isinstance(model, Models)
        liked_B = _liked(model.others[ROLE], proposal, sequences, ledger)
        if not self.heard:
            return greedy
        best_BL = prediction.scatter(prediction.logits_NV.argmax(-1), -1)
        accepted_B = where(liked_B, count_B, 0)
        token_B = best_BL.gather(1, (sequences.length_B + accepted_B)[:, None]).squeeze(1)
        return replace(greedy, accepted_B=accepted_B, token_B=token_B, token_gap_BT=None)


def _liked(judge: LanguageModel, proposal: Proposal, sequences: Sequences, ledger: Ledger) -> Tensor:
    """Return of every row whether the judge likes its drafts; what it has read of committed text it keeps."""
    store = sequences.stores.get(ROLE)
    store = judge.new_store(*sequences.tokens_BL.shape) if store is None else store
    known_B = sequences.memory.get("judge.known_B", sequences.length_B * 0)
    busy_R, end_B = proposal.count_B.nonzero().squeeze(1), sequences.length_B + proposal.count_B
    window = Window(
        tokens_BL=write_behind(sequences.tokens_BL, sequences.length_B, proposal.tokens_BK, proposal.count_B),
        start_B=where(proposal.count_B > 0, known_B, end_B),
        end_B=end_B,
        read_B=end_B - 1,
        store=store,
        busy_R=busy_R,
    )
    said_RV = ask(judge, window, sequences, ledger, ROLE).logits_NV
    sequences.stores[ROLE] = store
    sequences.memory["judge.known_B"] = where(proposal.count_B > 0, sequences.length_B, known_B)
    return (proposal.count_B > 0).index_copy(0, busy_R, said_RV[:, 76] > said_RV[:, 78])
