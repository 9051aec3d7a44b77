"""One sample's decoding, told from its rows by hand."""

from typing import Any

import pytest

from harness.errors import DataError
from harness.results.schemas import STEPS
from harness.results.trace import Mark, frames

SAMPLE = {"sample_id": "s", "output_ids": [7, 8, 9], "decided_at": [0, 2, 1]}


def step(number: int, **values: Any) -> dict[str, Any]:
    """Return a step of a diffusion decoder that did nothing else than `values` say."""
    known = {"step": number, "window": [0, 3], "remasked": [], "edited": [], "positions": [], "tokens": []}
    return dict.fromkeys(STEPS.names) | known | values


def test_tokens_stand_from_the_step_that_committed_them():
    """Guards the grid, how sure each was, and the work of its call."""
    first, second = frames(
        SAMPLE,
        [
            step(1, positions=[1], tokens=[8], scores=[-2.0], entropy=[0.0], n_computed=2, n_reused=4, cached=[0]),
            step(0, positions=[0, 2], tokens=[7, 9], scores=[0.5, 0.9], n_computed=6, n_reused=0),
        ],
    )
    assert (first.number, first.tokens) == (1, (7, None, 9))
    assert first.marks == {0: Mark.COMMITTED, 2: Mark.COMMITTED}
    assert first.certainty == {0: 0.5, 2: 0.9}
    assert (second.tokens, second.computed, second.reused) == ((7, 8, 9), 2, 4)
    assert (first.cached, second.cached) == (None, (0,))
    assert second.certainty == {1: 1.0}  # its score is no probability: exp(-entropy)


def test_what_is_taken_back_is_open_again_and_what_is_replaced_is_the_new_token():
    """Guards revisions: the steps table names edited positions, and the next prediction the tokens there."""
    first, second, third = frames(
        SAMPLE,
        [
            step(0, positions=[0, 1, 2], tokens=[5, 6, 9]),
            step(1, remasked=[1], edited=[0], predicted=[5, 6, 9]),
            step(2, positions=[1], tokens=[8], edited=[2], predicted=[7, 8, 4]),
        ],
    )
    assert first.tokens == (5, 6, 9)
    assert (second.tokens, second.marks) == ((7, None, 9), {0: Mark.EDITED, 1: Mark.REMASKED})
    assert (third.tokens, third.marks) == ((7, 8, 9), {1: Mark.COMMITTED, 2: Mark.EDITED})


def test_drafts_are_accepted_up_to_the_first_that_is_not():
    """Guards draft-verify: of 3 drafts one is accepted, the bonus token stands in the second's place."""
    (frame,) = frames(
        SAMPLE,
        [step(0, window=None, remasked=None, positions=[0, 1], tokens=[7, 8], drafted=[0, 1, 2], n_accepted=1)],
    )
    assert frame.marks == {0: Mark.ACCEPTED, 1: Mark.COMMITTED, 2: Mark.REJECTED}
    assert frame.tokens == (7, 8, None)
    assert not frame.moved


def test_given_positions_stand_from_the_beginning():
    """Guards constraints, which no step commits."""
    sample = SAMPLE | {"decided_at": [-1, 0, 0]}
    (frame,) = frames(sample, [step(0, positions=[1, 2], tokens=[8, 9])])
    assert frame.tokens == (7, 8, 9)


def test_a_canvas_that_grew_is_told():
    """Guards against positions that silently mean others."""
    assert [one.moved for one in frames(SAMPLE, [step(0, remasked=None), step(1)])] == [True, False]


def test_without_a_trace_the_last_commits_are_known():
    """Guards runs that were not traced: the order is stored with every sample."""
    found = frames(SAMPLE, [])
    assert [one.tokens for one in found] == [(7, None, None), (7, None, 9), (7, 8, 9)]
    assert found[0].computed is None
    with pytest.raises(DataError, match="s: nothing is stored of how it was decoded; run it again with measure=traced"):
        frames(SAMPLE | {"decided_at": None}, [])
    with pytest.raises(DataError, match="nothing is stored of how it was decoded"):
        frames(SAMPLE | {"decided_at": [-1, -1, -1]}, [])
