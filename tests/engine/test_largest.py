"""The largest of many numbers in parts is the largest of all: ties, ends, NaN, and every width."""

import pytest
import torch

from harness.engine.shared.largest import at_largest, largest, two_largest

WIDTHS = [1, 5, 127, 128, 4095, 4096, 4097, 4223, 5000, 8191, 8192, 32_768, 50_257]


def drawn(width: int, dtype: torch.dtype, kinds: int) -> torch.Tensor:
    """Return rows of few different numbers, of many, and of none but one."""
    generator = torch.Generator().manual_seed(width)
    few = torch.randint(kinds, (2, 3, width), generator=generator).to(dtype)
    many = torch.randn(2, 3, width, generator=generator, dtype=torch.float64).to(dtype)
    return torch.cat([few, many, torch.full((2, 1, width), -torch.inf, dtype=dtype)], 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_is_that_of_all_and_the_first(width: int, dtype: torch.dtype):
    """Guards the lowest token of equals, which every greedy decoder takes."""
    x = drawn(width, dtype, 3)
    most, at = largest(x)
    assert torch.equal(most[..., 0], x.amax(-1))
    first = (x == x.amax(-1, keepdim=True)).byte().cumsum(-1).eq(1).byte().argmax(-1)
    assert torch.equal(at[..., 0], first) and torch.equal(at_largest(x), first)


@pytest.mark.parametrize("width", [width for width in WIDTHS if width > 1])
def test_the_second_may_be_anywhere(width: int):
    """Guards margins: the second best stands beside the best, in another part, or is its equal."""
    x = drawn(width, torch.float64, 50)
    assert torch.equal(two_largest(x), x.sort(-1, descending=True).values[..., :2])


@pytest.mark.parametrize("at", [0, 4095, 4096, 4999])
@pytest.mark.parametrize("other", [0, 127, 4864, 4990, 4998])
def test_the_best_two_are_found_wherever_they_stand(at: int, other: int):
    """Guards the last part, which is looked at with numbers of the one before."""
    x = torch.zeros(1, 5000)
    x[0, other], x[0, at] = 1.0, 2.0
    assert at_largest(x).tolist() == [at]
    assert two_largest(x).tolist() == [[2.0, 1.0 if at != other else 0.0]]


@pytest.mark.parametrize("at", [0, 4999])
def test_a_nan_is_above_all(at: int):
    """Guards the refusal of logits that are not numbers, which looks at maxima."""
    x = torch.zeros(2, 5000)
    x[1, at] = torch.nan
    most, place = largest(x)
    assert most[1].isnan().all() and place[:, 0].tolist() == [0, at]
