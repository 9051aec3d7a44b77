"""The greedy upper bound: the reference answer in the fewest calls."""

import pytest

from tests.methods.closed_form import replay


@pytest.mark.parametrize("block", [4, 8, 16])
def test_it_gives_the_reference_answer_in_fewer_calls(block: int):
    """Guards the invariant that makes it a bound, and that the reference's own calls are not charged."""
    bound = replay("method=oracle", f"method.block_length={block}")
    reference = replay("method=llada", f"method.block_length={block}")
    assert bound.ids == reference.ids
    assert bound.calls < reference.calls


def test_it_bounds_selectors_that_reach_the_same_answer():
    """Guards `oracle bounds every method from below`: compared where the answer is the same."""
    bound, sure = replay("method=oracle", "method.block_length=8"), replay("method=threshold", "method.block_length=8")
    reference = replay("method=llada", "method.block_length=8")
    assert sure.ids == reference.ids
    assert bound.calls <= sure.calls
