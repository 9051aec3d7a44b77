"""Prophet against its golden trajectories, and its two limits."""

import pytest
import torch

from harness.engine.shared.generation import DecodeError
from methods.diffusion.prophet import AnswerGap, Constraints
from tests.caches.decoding import models, run
from tests.methods.closed_form import replay
from tests.methods.trained import decode_task

GIVEN = "method.constraints={10: 2, 11: 7}"
SETTING = ["method=prophet", "method.steps=16", "method.block_length=4", "method.answer_start=13", GIVEN]
GOLDEN = {
    "7.5,5,2.5": ("3 10 2 6 0 10 3 9 9 8 2 7 10 1 6 2", 16, "1 2 3 0 5 6 4 7 9 8 -1 -1 12 13 14 15"),
    "1,1,0.7": ("3 10 2 6 0 10 3 9 9 8 2 7 10 1 6 2", 11, "1 2 3 0 5 6 4 7 9 8 -1 -1 10 10 10 10"),
    "1,0.7,0.7": ("3 10 2 6 0 2 3 9 9 10 2 7 2 1 6 2", 6, "1 2 3 0 5 5 4 5 5 5 -1 -1 5 5 5 5"),
    "0.7,0.7,0.7": ("3 6 2 6 0 6 3 9 10 9 2 7 2 1 6 2", 1, "0 0 0 0 0 0 0 0 0 0 -1 -1 0 0 0 0"),
}


@pytest.mark.parametrize("thresholds", GOLDEN)
def test_golden_trajectories(thresholds: str):
    """Guards ids, steps and the exit, which in the second case falls on a step that had nothing to close.

    The published calls count steps without effect: two of the third block's, which constraints left two masks.
    """
    made = replay(*SETTING, f"method.gap_thresholds=[{thresholds}]")
    assert (made.ids, made.calls, made.steps) == GOLDEN[thresholds]
    assert made.counts.nfe == {16: 14, 11: 11}.get(made.calls, made.calls)


def test_unreachable_thresholds_are_llada_with_the_same_constraints():
    """Guards the baseline, on the formula and on a trained model, that a stopper which never stops changes nothing."""
    never, written = "method.gap_thresholds=[inf,inf,inf]", "method/preparation=constraints"
    given = "+method.preparation={constraints: {10: 2, 11: 7}}"
    baseline = replay("method=llada", "method.block_length=4", written, given)
    made = replay(*SETTING, never)
    assert (made.ids, made.calls) == (baseline.ids, baseline.calls)
    alike = decode_task("list_shuffle", "method=llada")
    assert decode_task("list_shuffle", "method=prophet", never).generations == alike.generations


def test_thresholds_without_a_limit_are_one_call():
    """Guards the other end, and that what the stop skips is not charged as idle."""
    for made in decode_task("list_sort", "method=prophet", "method.gap_thresholds=[-inf,-inf,-inf]").generations:
        assert (made.idle, made.stopped_at, set(made.decided_at)) == (0, 0, {0})


def test_without_a_stop_constraints_are_those_of_llada_on_models():
    """Guards the constrained baseline on random and trained weights: the same answer and steps, idle ones included."""
    given = "{10: 40, 11: 41}"
    mine = ["method=prophet", "method.gap_thresholds=[inf,inf,inf]", f"method.constraints={given}"]
    theirs = ["method=llada", "method/preparation=constraints", f"+method.preparation={{constraints: {given}}}"]
    for model, prompts in models():
        made, expected = (
            run(*method, "method.block_length=4", model=model, prompts=prompts[:2]) for method in (mine, theirs)
        )
        assert (made.tokens, made.queries) == (expected.tokens, expected.queries)
        assert all(one.tokens[10:12] == (40, 41) for one in made.generations)
        assert all(counts.nfe + one.idle == 16 for one, counts in zip(made.generations, made.counts, strict=True))


def test_a_block_that_is_given_whole_has_its_steps():
    """Guards the one difference from LLaDA: the same tokens and calls, with the steps of that block counted as idle."""
    given = "{2: 40, 3: 41}"
    made, expected = (
        run(*method, "method.block_length=2")
        for method in (
            ["method=prophet", "method.gap_thresholds=[inf,inf,inf]", f"method.constraints={given}"],
            ["method=llada", "method/preparation=constraints", f"+method.preparation={{constraints: {given}}}"],
        )
    )
    assert (made.tokens, made.queries) == (expected.tokens, expected.queries)
    for one, other in zip(made.generations, expected.generations, strict=True):
        later = [at + 2 * (place > 3) for place, at in enumerate(other.decided_at)]
        assert ([*one.decided_at], one.idle, other.idle) == (later, 2, 0)


def test_lower_thresholds_stop_no_later_on_models():
    """Guards the order of stops under a common scaling on random and trained weights."""
    for model, prompts in models():
        ends = []
        for scale in (1000, 2, 1, 0.5, 0.1):
            gaps = f"method.gap_thresholds=[{2 * scale},{1.6 * scale},{1.2 * scale}]"
            made = run("method=prophet", gaps, model=model, prompts=prompts).generations
            ends.append([one.stopped_at if one.stopped_at >= 0 else 16 for one in made])
        assert all(list(row) == sorted(row, reverse=True) for row in zip(*ends, strict=True))
        assert ends[0] == [16] * len(prompts) and ends[-1] < ends[0]


def stops(*thresholds: float) -> list[int]:
    """Return the step at which every row stopped, 16 where it did not, and check that nobody stopped for another."""
    made = decode_task("list_sort", "method=prophet", f"method.gap_thresholds={list(thresholds)}")
    ends = [one.stopped_at if one.stopped_at >= 0 else 16 for one in made.generations]
    assert [counts.nfe for counts in made.counts] == [min(end + 1, 16) for end in ends]
    return ends


def test_rows_stop_on_their_own_and_lower_thresholds_no_later():
    """Guards against one decision for a batch, and the order of stops under a common scaling."""
    late, early = stops(20, 16, 12), stops(10, 8, 6)
    assert len(set(late)) > 1
    assert all(first <= last for first, last in zip(early, late, strict=True))


def test_phases_follow_the_share_of_configured_steps():
    """Guards the published scalars at the edges of the three phases."""
    edges = torch.tensor([1, 84, 85, 171, 172, 256])
    assert AnswerGap(steps=256, gen_length=256).threshold(edges).tolist() == [7.5, 7.5, 5, 5, 2.5, 2.5]


GIVEN_12 = "method.constraints={" + ", ".join(f"{place}: 2" for place in range(12)) + "}"
RUN_OUT = ["method=prophet", "method.steps=16", "method.block_length=16", GIVEN_12]


def test_it_may_stop_in_a_step_behind_the_last_commit():
    """Guards the published exit there: four positions close in four steps, g/S reaches 0.33 in the sixth of 16.

    Without `idle_calls` the twelve steps are counted and not made; with it one call serves the fifth and the sixth.
    """
    clear_later = "method.gap_thresholds=[inf,-inf,-inf]"
    skipped = replay(*RUN_OUT, clear_later)
    assert (skipped.calls, skipped.counts.nfe) == (16, 4)
    made = replay(*RUN_OUT, clear_later, "method.idle_calls=true")
    assert (made.calls, made.counts.nfe, made.ids, made.steps) == (6, 5, skipped.ids, skipped.steps)


def test_steps_behind_the_last_commit_run_out():
    """Guards the count of published calls where nothing stops, and that the response is let go after the last step."""
    made = replay(*RUN_OUT, "method.gap_thresholds=[inf,inf,inf]", "method.idle_calls=true")
    assert (made.calls, made.counts.nfe) == (16, 5)
    whole = replay("method=prophet", "method.steps=16", "method.idle_calls=true", "method.gap_thresholds=[inf,inf,inf]")
    assert (whole.calls, whole.counts.nfe) == (16, 16)


def test_no_answer_never_stops():
    """Guards a region behind the end of the response."""
    made = replay("method=prophet", "method.answer_start=16", "method.gap_thresholds=[-inf,-inf,-inf]")
    assert made.calls == 16


def test_the_answer_stands_two_behind_the_constraints():
    """Guards the default region: one place is left for a colon."""
    assert replay(*SETTING, "method.gap_thresholds=[1,1,0.7]") == replay(
        *[knob for knob in SETTING if "answer_start" not in knob], "method.gap_thresholds=[1,1,0.7]"
    )


def test_bad_settings_are_refused():
    """Guards messages that name the key, the limit and the value."""
    with pytest.raises(ValueError, match=r"gap_thresholds=2[.0]*: must be three \(early, mid, late\)"):
        AnswerGap(steps=None, gen_length=4, gap_thresholds=(1.0, 2.0))
    with pytest.raises(ValueError, match=r"constraints=-1[.0]*: must name places from 0 on"):
        Constraints(constraints={-1: 3})
    with pytest.raises(DecodeError, match="constraints: the response has no place 16"):
        replay("method=prophet", "method.constraints={16: 2}")
    with pytest.raises(DecodeError, match="constraints: 11 at place 3 is no token of model closed_form"):
        replay("method=prophet", "method.constraints={3: 11}")
