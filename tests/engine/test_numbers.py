"""Logits that are not numbers, in rows that a round computes and goes on without: somebody has to tell."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from harness.engine.autoregressive.branching import Branch, Spread
from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.shared.generation import DecodeError
from harness.engine.shared.model import ForwardRequest, Store
from harness.engine.shared.prediction import Prediction
from harness.models.embedded import EmbeddedModel
from methods.autoregressive.greedy import Greedy
from methods.autoregressive.scmoe import SelfContrast
from tests.engine.causal import MIXTURE, PROMPTS, random_causal, run


@dataclass
class Broken:
    """A model that says of one row of one call what is no number; `calls` are those made so far."""

    inner: EmbeddedModel
    row: int
    call: int = 1
    parts: bool = True
    experts: int = MIXTURE.count
    calls: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.spec, self.device = self.inner.spec, self.inner.device

    def new_store(self, rows: int, slots: int) -> Store:
        return self.inner.new_store(rows, slots)

    def forward(self, request: ForwardRequest) -> Tensor:
        logits_NV = self.inner.forward(request)
        if self.calls == self.call:
            logits_NV[self.row] = torch.nan
        self.calls += 1
        return logits_NV


@dataclass(frozen=True)
class ForkAndPrune:
    """Fork every row behind the first call, and go on with the first of both behind the second."""

    drafts: ClassVar[bool] = False
    votes: ClassVar[bool] = False
    synchronous: ClassVar[bool] = True

    def spread(self, prediction: Prediction, sequences: Sequences) -> Spread | None:
        rows_B, of_B = torch.arange(sequences.num_rows), sequences.sample_B
        alone = not bool((of_B[1:] == of_B[:-1]).any())
        if not alone:
            return Spread(index_B=rows_B[::2])
        return Spread(index_B=rows_B.repeat_interleave(2)) if int(sequences.rounds_B.max()) == 0 else None

    def over(self, ended: Sequence[Branch], sequences: Sequences, rows_R: Tensor) -> bool:
        return True

    def settled(self, ended: Sequence[Branch]) -> Sequence[Branch]:
        return ended[:1]


FORKS = AutoregressiveMethod(acceptor=Greedy(), branching=ForkAndPrune())
TWINS = AutoregressiveMethod(acceptor=SelfContrast(batched=True))
MODEL, EXPERTS = random_causal(), random_causal(experts=MIXTURE)


@pytest.mark.parametrize(
    ("method", "model", "row", "call"),
    [
        (FORKS, MODEL, 3, 1),  # the second copy of the second sample, which is pruned
        (FORKS, MODEL, 2, 1),  # the first copy, which goes on
        (TWINS, EXPERTS, 3, 0),  # the twin of the second sample, while prompts are read
        (TWINS, EXPERTS, 3, 2),
        (TWINS, EXPERTS, 2, 2),
    ],
)
def test_a_row_that_is_dropped_is_looked_at_before(
    method: AutoregressiveMethod, model: EmbeddedModel, row: int, call: int
) -> None:
    """Guards answers that rest on a row or twin without numbers, and an error that finds no row to name."""
    with pytest.raises(DecodeError, match=r"logits that are not numbers \(NaN\)") as caught:
        run(Broken(model, row, call), method, PROMPTS[1:3], 6)
    assert caught.value.sample == 1


@pytest.mark.parametrize(("method", "model"), [(FORKS, MODEL), (TWINS, EXPERTS)])
def test_numbers_are_let_through(method: AutoregressiveMethod, model: EmbeddedModel) -> None:
    """Guards the test above against errors of its own making."""
    whole = Broken(model, 3, call=99)
    assert [len(one.tokens) for one in run(whole, method, PROMPTS[1:3], 6)] == [6, 6]
    assert whole.calls == 6
