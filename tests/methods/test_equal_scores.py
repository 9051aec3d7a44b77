"""Selectors that close a prefix: positions of equal score follow one another by place, however long the canvas."""

import pytest

from methods.diffusion.eb import EntropyBudget
from methods.diffusion.fast_dllm import Factor
from methods.diffusion.frechet import Frechet
from tests.methods.closed_form import chosen

SURE_FIRST = [0.9] * 3 + [0.0] * 3997
RISING_ENTROPY = [-0.01 * place for place in range(4000)]


@pytest.mark.parametrize(
    ("selector", "confidences", "length"),
    [(Factor(), SURE_FIRST, 3), (Frechet(), SURE_FIRST, 3), (EntropyBudget(gamma=0.0601), RISING_ENTROPY, 5)],
)
def test_equal_scores_go_by_place(selector, confidences: list[float], length: int):
    """Guards the order of a tie, which a sort that is not stable changes on a long canvas."""
    assert chosen(selector, confidences, score=[0.0] * 4000) == list(range(length))
