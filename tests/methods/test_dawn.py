"""DAWN: sure, induced and independent positions by hand."""

import pytest
import torch

from harness.errors import ConfigError
from methods.diffusion.dawn import Dependency
from tests.methods.closed_form import candidates, replay
from tests.methods.trained import decode_task


def chosen(confidences: list[float], attends: dict[tuple[int, int], float], decided: int = 0, **knobs) -> list[int]:
    """Return what closes where query `j` attends to `i` by `attends[j, i]`; the first places may be decided."""
    made, open_BL, canvas = candidates(confidences)
    canvas.open_window(torch.tensor([True]), canvas.response_BL)
    if decided:
        canvas.commit(canvas.place_BL < decided, torch.zeros_like(canvas.tokens_BL))
    attention_BLL = torch.zeros(1, len(confidences), len(confidences), dtype=torch.float64)
    for (query, key), weight in attends.items():
        attention_BLL[0, query, key] = weight
    canvas.memory["dawn.attention_BLL"] = attention_BLL
    selector = Dependency(sink=0.5, edge=0.1, **knobs)
    return selector(made, open_BL & canvas.undecided_BL, None, canvas)[0].nonzero().squeeze(1).tolist()


def test_sure_positions_close_whatever_they_depend_on():
    """Guards S1."""
    assert chosen([0.9, 0.95, 0.5], {(0, 1): 0.4, (1, 0): 0.4}) == [0, 1]


def test_a_decided_position_that_is_sure_induces_what_depends_on_it():
    """Guards S2: its bound, the direction of the edge, and that the anchor must still be sure."""
    assert chosen([0.95, 0.6, 0.5, 0.5], {(1, 0): 0.2}, decided=1, induce=0.6) == [1]
    assert chosen([0.95, 0.59, 0.5, 0.5], {(1, 0): 0.2}, decided=1, induce=0.6) == []
    assert chosen([0.95, 0.6, 0.5, 0.5], {(0, 1): 0.2}, decided=1, induce=0.6) == []
    assert chosen([0.85, 0.6, 0.5, 0.5], {(1, 0): 0.2}, decided=1, induce=0.6) == []


def test_of_dependent_positions_the_surest_closes():
    """Guards S3: conflicts in both directions, greedily, and the lower bound."""
    assert chosen([0.8, 0.75, 0.72, 0.6], {}) == [0, 1, 2]
    assert chosen([0.8, 0.75, 0.72, 0.6], {(0, 1): 0.2}) == [0, 2]
    assert chosen([0.8, 0.75, 0.72, 0.6], {(1, 0): 0.2, (2, 1): 0.2}) == [0, 2]


def test_what_depends_on_a_sure_position_waits():
    """Guards the filter of S3, and the flag for the published one, which filters next to nothing."""
    attends = {(1, 0): 0.2}
    assert chosen([0.95, 0.75, 0.5], attends, induce=1.0) == [0]
    assert chosen([0.95, 0.75, 0.5], attends, induce=1.0, conflict_compat=True) == [0, 1]


def test_what_everybody_attends_to_is_no_dependency():
    """Guards sinks, by the mean over queries, and small weights."""
    sink = {(query, 0): 0.9 for query in range(4)}
    assert chosen([0.8, 0.75, 0.72, 0.71], sink) == [0, 1, 2, 3]
    assert chosen([0.8, 0.75, 0.5, 0.5], {(1, 0): 0.09}) == [0, 1]


def test_without_induced_and_independent_positions_it_is_the_threshold_decoder():
    """Guards the limit on the trained model, whose attention is its own."""
    ours = decode_task("list_shuffle", "method=dawn", "method.induce=2", "method.low=2")
    theirs = decode_task("list_shuffle", "method=threshold")
    assert [one.tokens for one in ours.generations] == [one.tokens for one in theirs.generations]
    assert [counts.nfe for counts in ours.counts] == [counts.nfe for counts in theirs.counts]


def test_it_needs_no_more_calls_than_the_threshold_decoder():
    """Guards the gain on the trained model: what is sure closes anyway."""
    ours, theirs = (decode_task("list_insert_random", f"method={name}").counts for name in ("dawn", "threshold"))
    assert sum(counts.nfe for counts in ours) <= sum(counts.nfe for counts in theirs)


def test_guidance_leaves_the_limit_alone():
    """Guards the attention of the row itself: the unconditional half of a call has one of its own."""
    guided = ["method/guidance=classifier_free", "method.guidance.scale=0.5"]
    ours = decode_task("list_shuffle", "method=dawn", "method.induce=2", "method.low=2", *guided)
    theirs = decode_task("list_shuffle", "method=threshold", *guided)
    assert [one.tokens for one in ours.generations] == [one.tokens for one in theirs.generations]
    assert [counts.nfe_total for counts in ours.counts] == [2 * counts.nfe for counts in theirs.counts]


@pytest.mark.parametrize("knob", ["tau=-1", "sink=-1", "edge=-1", "induce=-1", "low=-1"])
def test_values_out_of_range_are_refused(knob: str):
    """Guards against a silent clamp."""
    with pytest.raises(ConfigError, match=f"method.{knob.split('=')[0]}"):
        replay("method=dawn", f"method.{knob}")
