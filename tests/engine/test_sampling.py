"""Drawing tokens at given uniforms: what is drawn at the edges of a distribution."""

import pytest
import torch

from harness.engine.shared.sampling import invert


@pytest.mark.parametrize(
    ("p", "uniform", "token"),
    [
        ([0.0, 0.5, 0.0, 0.5], 0.0, 1),
        ([0.0, 0.5, 0.0, 0.5], 0.25, 1),
        ([0.0, 0.5, 0.0, 0.5], 0.5, 3),
        ([0.5, 0.0, 0.5, 0.0], 0.5, 2),
        ([0.5, 0.0, 0.5, 0.0], 1 - 2**-24, 2),
        ([0.0, 0.0, 0.0, 1.0], 0.0, 3),
        ([0.25, 0.25, 0.0, 0.0], 0.5, 1),
    ],
)
def test_a_token_of_probability_0_is_never_drawn(p: list[float], uniform: float, token: int) -> None:
    """Guards the edges: a uniform that meets a sum exactly, zeros before and behind it, and sums below 1."""
    assert invert(torch.tensor([p]), torch.tensor([uniform])).tolist() == [token]


def test_every_uniform_of_a_grid_draws_a_possible_token() -> None:
    """Guards all edges of a distribution with zeros at once; the counts are its masses in sixteenths."""
    p_V = torch.tensor([0.0, 0.125, 0.0, 0.125, 0.25, 0.0, 0.5, 0.0])
    uniform_N = torch.arange(0, 16) / 16
    drawn_N = invert(p_V.expand(len(uniform_N), -1), uniform_N)
    assert (p_V[drawn_N] > 0).all()
    assert drawn_N.bincount(minlength=8).tolist() == [0, 2, 0, 2, 4, 0, 8, 0]
