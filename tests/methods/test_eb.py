"""EB-Sampler's budget on the published profile."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from harness.config.build import build_method
from harness.config.composition import compose
from harness.engine.diffusion.canvas import Canvas
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.shared.model import ModelKind, ModelSpec
from harness.engine.shared.places import Places
from harness.engine.shared.prediction import Candidates, Prediction, ScoreDtype
from methods.diffusion.eb import EntropyBudget, EntropyBudgetScore, Proxy
from tests.caches.decoding import decode_with, models
from tests.methods.closed_form import PROFILE, candidates, chosen, replay

ENTROPIES = [-c * math.log(c) - (1 - c) * math.log((1 - c) / 4) for c in PROFILE]
EXPECTED = {0.0: [2], 0.1: [2, 11], 0.5: [0, 2, 11], 1.0: [0, 2, 5, 8, 11], 2.0: [0, 1, 2, 5, 8, 11]}


@pytest.mark.parametrize("gamma", EXPECTED)
def test_the_profile_row(gamma: float):
    """Guards the prefix: sum of entropies without the largest, within gamma."""
    assert chosen(EntropyBudget(gamma=gamma), [-h for h in ENTROPIES]) == EXPECTED[gamma]


def test_the_largest_entropy_is_left_out_in_any_order():
    """Guards the running maximum: ordered by confidence it need not be the last entropy of the prefix."""
    entropies, score = [-2.0, -0.3, -0.3], [3.0, 2.0, 1.0]
    assert chosen(EntropyBudget(gamma=0.3), entropies, score=score) == [0, 1]


@pytest.mark.parametrize(
    ("proxy", "score"),
    [(Proxy.entropy, [-0.8018, -1.0297]), (Proxy.confidence, [-0.3567, -0.6931]), (Proxy.margin, [0.5, 0.2])],
)
def test_an_order_is_that_of_its_proxy(proxy: Proxy, score: list[float]):
    """Guards the three error proxies on two rows of three tokens, (.7, .2, .1) and (.5, .3, .2)."""
    spec = ModelSpec(
        name="none", kind=ModelKind.MASKED_DIFFUSION, vocab_size=3, max_length=8, layers=1, stop_ids=(), pad_id=0,
        mask_id=None,
    )  # fmt: skip
    prediction = Prediction(
        logits_NV=torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]], dtype=torch.float64).log(),
        places=Places.of(torch.zeros(2, dtype=torch.int64), torch.arange(2), (1, 2)),
        spec=spec,
    )
    _, _, canvas = candidates([0.0, 0.0])
    made = EntropyBudgetScore(proxy=proxy, score_dtype=ScoreDtype.float64)(prediction, canvas)
    assert made.score_BL[0].tolist() == pytest.approx(score, abs=1e-4)
    assert made.confidence_BL[0].tolist() == pytest.approx([-0.8018, -1.0297], abs=1e-4)


@dataclass(frozen=True)
class SumsBefore:
    """Close positions by rising entropy while those before sum to at most `gamma`."""

    gamma: float

    def __call__(self, candidates: Candidates, open_BL: Tensor, quota_B: Tensor | None, canvas: Canvas) -> Tensor:
        chosen_BL = torch.zeros_like(open_BL)
        for row, entropies in enumerate((-candidates.confidence_BL).tolist()):
            before = 0.0
            for place in sorted(open_BL[row].nonzero().squeeze(1).tolist(), key=lambda place: entropies[place]):
                if before > self.gamma:
                    break
                chosen_BL[row, place] = True
                before += entropies[place]
        return chosen_BL


@pytest.mark.parametrize("gamma", [0.0, 0.1, 3.0, 12.0])
def test_by_entropy_it_is_the_rule_of_previous_sums(gamma: float):
    """Guards the equivalence on random and trained weights: the entropy left out is the last of the prefix."""
    mine = build_method(compose(["method=eb", "gen_length=16", f"method.gamma={gamma}", "method.score_dtype=float64"]))
    assert isinstance(mine, DiffusionMethod)
    for model, prompts in models():
        made, expected = (
            decode_with(method, model, prompts[:2]) for method in (mine, replace(mine, selector=SumsBefore(gamma)))
        )
        assert made.decided == expected.decided


def test_no_budget_is_one_position_per_step():
    """Guards gamma = 0 on a model that is never certain."""
    assert replay("method=eb", "method.gamma=0").calls == 16


def test_a_boundless_budget_is_one_call():
    """Guards the other end."""
    assert replay("method=eb", "method.gamma=1000").calls == 1


def test_the_position_that_always_closes_is_in_no_doubt():
    """Guards the margin against the budget itself: the first position depends on nothing, however small that is."""
    made, open_BL, canvas = candidates([-2.0, -3.0, -4.0])
    assert EntropyBudget(gamma=0.01)(made, open_BL, None, canvas).tolist() == [[True, False, False]]
    assert canvas.margins.settled.choice_B.tolist() == [1.0]
