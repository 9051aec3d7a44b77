"""Policies that ask models themselves before they decide: the target, how, and how copies of rows go on meanwhile.

Shapes: B rows, T tokens of a row, L positions, R rows that a call computes, V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from harness.engine.autoregressive.drafting import Acceptor, Proposal, Verdict
from harness.engine.autoregressive.layers import TapsTarget
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.autoregressive.windows import Window, ask
from harness.engine.shared.model import LanguageModel, ModelKind
from harness.engine.shared.prediction import Prediction
from harness.engine.shared.records import Ledger, Role


@runtime_checkable
class Asks(Acceptor, Protocol):
    """An acceptor that may call the target itself, or others (`AsksOthers`), which the ledger charges to the rows.

    Called like others, it says what it would without asking. `judges_drafts` says whether it takes any; one that asks
    for every token, and writes no more for it, says how often by `calls_beside`.
    """

    judges_drafts: ClassVar[bool]

    def judge(
        self, model: LanguageModel, prediction: Prediction, proposal: Proposal, sequences: Sequences, ledger: Ledger
    ) -> Verdict:
        """Judge as `__call__` does; the sequences' store must be left as it is."""
        ...


@runtime_checkable
class WritesOn(Acceptor, TapsTarget, Protocol):
    """An acceptor that goes on writing from hidden states of a call, tokens that no other call verifies.

    It takes no drafts, and looks at the states behind the last token of each row, at the depths `taps`.
    """

    judges_drafts: ClassVar[bool]

    def write(
        self,
        model: LanguageModel,
        prediction: Prediction,
        states: Mapping[int, Tensor],
        sequences: Sequences,
        ledger: Ledger,
    ) -> Verdict:
        """Return one token of the target and others `further`, no more than there is room for; states are [B, C]."""
        ...


@runtime_checkable
class AsksOthers(Protocol):
    """A policy that asks models beside target and draft: by the name of each role, the kinds of which one will do.

    It is given `Models`, with them among its `others`; what they are asked goes through the ledger under the name.
    """

    asks_others: ClassVar[Mapping[str, frozenset[ModelKind]]]


def of_rows(sequences: Sequences, kept: Sequences, generated_B: Tensor, token_gap_BT: Tensor | None = None) -> Verdict:
    """Return that every row goes on as its copy in `kept` did, by one token or more, with its keys and values."""
    count_B = kept.length_B - sequences.length_B
    place_BT = sequences.length_B[:, None] + torch.arange(int(count_B.max()), device=count_B.device)
    tokens_BT = kept.tokens_BL.gather(1, place_BT.clamp(max=kept.tokens_BL.shape[1] - 1))
    return Verdict(
        accepted_B=torch.zeros_like(count_B),
        token_B=tokens_BT[:, 0],
        token_gap_BT=token_gap_BT,
        further=Proposal(tokens_BK=tokens_BT[:, 1:], count_B=count_B - 1),
        store=kept.store,
        generated_B=generated_B,
    )


def go_on(model: LanguageModel, rows: Sequences, busy_R: Tensor, ledger: Ledger) -> Tensor:
    """Return the logits [R, V] behind the last token of the rows `busy_R`, in one call that feeds what is missing."""
    end_B = rows.computed_B.index_copy(0, busy_R, rows.length_B[busy_R])
    window = Window(
        tokens_BL=rows.tokens_BL,
        start_B=rows.computed_B,
        end_B=end_B,
        read_B=end_B - 1,
        store=rows.store,
        busy_R=busy_R,
    )
    return ask(model, window, rows, ledger, Role.TARGET).logits_NV


def append(rows: Sequences, busy_R: Tensor, token_R: Tensor) -> Sequences:
    """Return the rows with a token more behind those of `busy_R`, all before it known to the store."""
    tokens_BL, length_B = rows.tokens_BL.clone(), rows.length_B
    tokens_BL[busy_R, length_B[busy_R]] = token_R
    return replace(
        rows,
        tokens_BL=tokens_BL,
        length_B=length_B.index_add(0, busy_R, torch.ones_like(busy_R)),
        computed_B=rows.computed_B.index_copy(0, busy_R, length_B[busy_R]),
    )
