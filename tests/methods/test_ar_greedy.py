"""Greedy acceptance on hand-written logits."""

import torch

from harness.engine.autoregressive.drafting import Proposal
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.shared.places import Places
from harness.engine.shared.prediction import Prediction
from methods.autoregressive.greedy import Greedy
from tests.engine.causal import random_causal


def test_the_longest_agreeing_prefix_stands() -> None:
    """A later agreement must not count after a mismatch, nor padding as a draft; ties go to the lowest id."""
    model = random_causal()
    sequences = Sequences.from_prompts(model, [[1], [1, 1]], gen_length=4, seeds=[0, 0])
    proposal = Proposal(tokens_BK=torch.tensor([[2, 0, 2], [1, 1, 1]]), count_B=torch.tensor([3, 1]))
    row_N = torch.tensor([0, 0, 0, 0, 1, 1])
    prediction = Prediction(
        logits_NV=torch.tensor([[0.0, 0, 1], [0, 5, 5], [0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 1, 0]]),
        places=Places.of(row_N, torch.tensor([1, 2, 3, 4, 2, 3]), (2, 6)),
        spec=model.spec,
    )
    verdict = Greedy()(prediction, proposal, sequences)
    assert verdict.accepted_B.tolist() == [1, 1]
    assert verdict.token_B.tolist() == [1, 1]
