"""EB-Sampler's budget on the published profile."""

import math

import pytest

from methods.diffusion.eb import EntropyBudget
from tests.methods.closed_form import PROFILE, chosen, replay

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


def test_no_budget_is_one_position_per_step():
    """Guards gamma = 0 on a model that is never certain."""
    assert replay("method=eb", "method.gamma=0").calls == 16


def test_a_boundless_budget_is_one_call():
    """Guards the other end."""
    assert replay("method=eb", "method.gamma=1000").calls == 1
