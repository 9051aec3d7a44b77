"""The hierarchy rule on the published profile: one position per run of masks, and the sure ones."""

from itertools import pairwise

import pytest
import torch

from methods.diffusion.hierarchy import Hierarchy, Runs, Variant
from tests.methods.closed_form import PROFILE, candidates, chosen, replay
from tests.methods.trained import decode_task


def chosen_of_runs(rule: Hierarchy) -> list[int]:
    """Return what a rule closes of the profile whose positions 3 and 7 are decided."""
    made, open_BL, canvas = candidates(PROFILE)
    open_BL[0, [3, 7]] = False
    return rule(made, open_BL, None, canvas)[0].nonzero().squeeze(1).tolist()


@pytest.mark.parametrize(("low", "expected"), [(0.4, [2, 5, 11]), (0.95, [2, 11])])
def test_the_profile_rows(low: float, expected: list[int]):
    """Guards runs, which decided positions separate, and the bound on their best."""
    assert chosen_of_runs(Hierarchy(tau=0.98, low=low)) == expected


def test_the_fast_variant_takes_the_best_of_all_where_nothing_is_confident():
    """Guards the published cases, and that nothing but them differs."""
    assert chosen_of_runs(Hierarchy(tau=0.98, low=0.995, variant=Variant.fast_v2)) == [2]
    assert chosen_of_runs(Hierarchy(tau=0.98, low=0.4, variant=Variant.fast_v2)) == [2, 5, 11]
    assert chosen(Hierarchy(tau=0.6, low=0.6, variant=Variant.fast_v2), [0.5, 0.5, 0.55]) == [2]


@pytest.mark.parametrize(
    ("confidences", "expected"),
    [([0.5, 0.45, 0.4], [0, 1, 2]), ([0.5, 0.3, 0.4], [0, 2]), ([0.2, 0.25, 0.1], [1]), ([0.7, 0.2, 0.5], [0, 2])],
)
def test_the_fast_variant_closes_what_is_above_a_lower_tau(confidences: list[float], expected: list[int]):
    """Guards tau < low: the sure positions close beside the best of all, whether one reaches low or none."""
    assert chosen(Hierarchy(tau=0.3, low=0.6, variant=Variant.fast_v2), confidences) == expected


def test_bounds_are_strict():
    """Guards > against >=; the best of all closes whatever its confidence."""
    assert chosen(Hierarchy(tau=0.9, low=0.95), [0.9, 0.5, 0.92]) == [2]
    assert chosen_of_runs(Hierarchy(tau=1.0, low=0.92)) == [2, 11]


def test_the_first_of_equal_maxima_closes():
    """Guards the canonical tie: two neighbours that tie would otherwise close together."""
    assert chosen(Hierarchy(), [0.5, 0.7, 0.7]) == [1]


def test_runs_are_found_in_every_row_at_once():
    """Guards run numbers, which start anew in each row, and the ends of a row."""
    open_BL = torch.tensor([[1, 1, 0, 1, 0, 1], [0, 1, 1, 0, 0, 0], [0] * 6]).bool()
    score_BL = torch.tensor([[1.0, 2, 9, 1, 9, 1], [9.0, 3, 2, 9, 9, 9], [1.0] * 6])
    best_BL = Runs.of(score_BL, open_BL).best_BL & open_BL
    assert best_BL.long().tolist() == [[0, 1, 0, 1, 0, 1], [0, 1, 0, 0, 0, 0], [0] * 6]


@pytest.mark.parametrize("tau", [0.5, 0.7, 0.9])
def test_without_runs_it_is_the_strict_threshold(tau: float):
    """Guards low = 1: no run's best is good enough."""
    one = replay("method=hierarchy", "method.low=1", f"method.tau={tau}", "method.block_length=8")
    plain = replay(
        "method=threshold", "method.selector.strict=true", f"method.threshold={tau}", "method.block_length=8"
    )
    assert (one.ids, one.calls, one.steps) == (plain.ids, plain.calls, plain.steps)


def test_without_runs_it_is_the_strict_threshold_on_the_trained_model():
    """Guards the same equivalence on ragged prompts; the hierarchy has its best position by its own rule."""
    one = decode_task("list_shuffle", "method=hierarchy", "method.low=1", "method.early_stop=true")
    knobs = ["method.selector.strict=true", "method/finish=block_eos"]
    plain = decode_task("list_shuffle", "method=threshold", *knobs)
    assert [(m.tokens, m.decided_at) for m in one.generations] == [(m.tokens, m.decided_at) for m in plain.generations]
    assert not any(made.forced for made in one.generations)


def test_neighbours_never_close_together_unless_they_are_sure():
    """Guards the purpose: what one step closes is apart, so that each is seen before its neighbour is decided."""
    knobs = ["method=hierarchy", "method.low=0", "method.tau=1.01"]
    made = decode_task("list_shuffle", *knobs).generations
    for steps in [one.decided_at for one in made] + [tuple(map(int, replay(*knobs).steps.split()))]:
        assert all(one != following for one, following in pairwise(steps))
        assert len(set(steps)) < len(steps)


def test_bounds_below_zero_are_refused():
    """Guards the ranges."""
    with pytest.raises(ValueError, match=r"low=-1[.0]*: must be at least 0"):
        Hierarchy(low=-1)


@pytest.mark.parametrize(
    ("variant", "closed", "margin"), [(Variant.fast_v2, [False, True], 0.01), (Variant.standard, [True, True], 0.1)]
)
def test_the_best_by_score_may_be_unsure(variant: Variant, closed: list[bool], margin: float):
    """Guards the margin where score and confidence differ: the best one waits for `low` in one variant only."""
    made, open_BL, canvas = candidates([0.39, 0.9], score=[3.0, 1.0])
    assert Hierarchy(tau=0.8, low=0.4, variant=variant)(made, open_BL, None, canvas).tolist() == [closed]
    assert canvas.margins.settled.choice_B.tolist() == pytest.approx([margin])
