"""The certainty prior: density golden values, and the order that follows."""

import pytest
import torch

from harness.engine.diffusion.canvas import Canvas
from methods.diffusion.certainty_prior import certainty_density
from tests.methods.closed_form import replay

GOLDEN = {
    (0, 1, 5): [0.7845, 0.6267, 0.4650, 0.3452, 0.2793, 0.2380, 0.1875, 0.1237],
    (0, 1, 5, 7): [0.7850, 0.6295, 0.4765, 0.3837, 0.3825, 0.4622, 0.5878, 0.7234],
}
PRIOR = ("method=threshold", "method/scorer=certainty_prior", "method.threshold=1.1")


@pytest.mark.parametrize("known", GOLDEN)
def test_golden_densities(known: tuple[int, ...]):
    """Guards the kernel, its padding on both sides, and prompts of different lengths in one batch."""
    constraints = [{place: 3 for place in known}] * 2
    canvas = Canvas.from_prompts(
        [[5, 6, 7], [1]], gen_length=8, mask_id=11, pad_id=0, seeds=[0, 0], constraints=constraints
    )
    density_BL = certainty_density(canvas, 2.0)
    for row, start in ((0, 3), (1, 1)):
        expected = torch.tensor(GOLDEN[known], dtype=torch.float64)
        torch.testing.assert_close(density_BL[row, start : start + 8], expected, atol=5e-5, rtol=0)


def test_a_wide_kernel_leaves_confidence_and_a_narrow_one_the_order_of_reading():
    """Guards the product: where densities are equal confidence orders, where they differ hugely reading order does."""
    wide, confident = replay(*PRIOR, "method.scorer.sigma=1e6"), replay("method=threshold", "method.threshold=1.1")
    assert wide.steps == confident.steps
    narrow = replay(*PRIOR, "method.scorer.sigma=0.2")
    assert narrow.steps != confident.steps
    assert narrow.steps.split()[0] == "0"


def test_a_kernel_has_a_width():
    """Guards against a division by zero."""
    with pytest.raises(ValueError, match=r"sigma=0[.0]*: must be above 0"):
        replay(*PRIOR, "method.scorer.sigma=0")
