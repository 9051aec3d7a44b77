"""Margins of choices: nothing changes before the scores have moved that far, whatever rule they come from."""

import random
from collections.abc import Sequence
from math import isfinite

import pytest
import torch

from harness.engine.diffusion.margins import prefix
from methods.diffusion.dinfer_threshold import DinferThreshold
from methods.diffusion.eb import EntropyBudget
from methods.diffusion.entropy_threshold import EntropyThreshold
from methods.diffusion.fast_dllm import Factor, Threshold
from methods.diffusion.frechet import Frechet
from methods.diffusion.freedave_step import SureOrBest
from methods.diffusion.hierarchy import Hierarchy, HierarchyOfDoubted, Variant
from methods.diffusion.local_leap import LocalLeap
from methods.diffusion.saber import AboveMean
from methods.diffusion.wino import WideIn
from tests.methods.closed_form import candidates

LENGTH = 7
RULES = {
    "threshold": Threshold(threshold=0.5),
    "strict": Threshold(threshold=0.5, strict=True),
    "factor": Factor(factor=0.7),
    "frechet": Frechet(delta=0.5),
    "dinfer_threshold": DinferThreshold(tau=0.5),
    "sure_or_best": SureOrBest(threshold=0.7),
    "above_mean": AboveMean(n=2),
    "local_leap": LocalLeap(tau=0.8, tau_rel=0.5, r=1),
    "local_leap without": LocalLeap(tau=0.8, tau_rel=None, r=1),
    "hierarchy": Hierarchy(tau=0.8, low=0.4, variant=Variant.standard),
    "hierarchy fast_v2": Hierarchy(tau=0.8, low=0.4, variant=Variant.fast_v2),
    "hierarchy_remask": HierarchyOfDoubted(tau=0.8, low=0.4, rm=0.3),
    "wide_in": WideIn(tau1=0.6),
    "entropy_budget": EntropyBudget(gamma=0.9),
    "entropy_threshold": EntropyThreshold(theta=0.5),
}


# Where all that is chosen is the best by score, the loop tells the margin.


def closed(rule: str, values: Sequence[float]) -> tuple[list[int], float]:
    """Return what a rule closes in a row that is all open, and how far it says that it is from another choice."""
    made, open_BL, canvas = candidates([-one for one in values] if rule.startswith("entropy") else values)
    chosen_BL = RULES[rule](made, open_BL, torch.tensor([3]), canvas)
    return chosen_BL[0].nonzero().squeeze(1).tolist(), float(canvas.margins.settled.choice_B[0])


@pytest.mark.parametrize("rule", RULES)
def test_nothing_changes_within_a_margin(rule: str):
    """Guards rows against ties that no margin tells: each value moves by less than its share of the margin."""
    draw = random.Random(0)
    finite = 0
    for largest in [0.42, 1.0] * 50:
        # Small values, too: rules ask whether any is large enough.
        values = [draw.random() * largest for _ in range(LENGTH)]
        chosen, margin = closed(rule, values)
        finite += isfinite(margin)
        # Sums, means and products move by what all of their members do.
        share = min(margin, 1.0) / (2 * LENGTH)
        for _ in range(8):
            moved = [min(1.0, max(0.0, one + draw.choice((-share, share)))) for one in values]
            assert closed(rule, moved)[0] == chosen, (values, margin, moved)
    assert finite > 60


def test_the_first_of_a_prefix_was_never_in_doubt():
    """Guards the bound of the rank that closes whatever its value is: 0.01 away from it decides nothing."""
    slack_BL = torch.tensor([[0.01, 0.5, -0.25, 0.02]])
    assert prefix(slack_BL, torch.tensor([2]), 1, torch.tensor([4])).tolist() == [0.25]
    assert prefix(slack_BL, torch.tensor([2]), 0, torch.tensor([4])).tolist() == pytest.approx([0.01])
