"""What is red, what is a tie, and what is not to blame, worked out by hand."""

from dataclasses import replace

import pytest

from harness.results.gate.observed import Answer, Setting, Step
from harness.results.gate.verdicts import Colour, Finding, Verdict, blameless, verdicts
from tests.results.gate.factory import STEPS, answer, setting


def _found(base: Setting | None, run: Setting | None) -> list[Finding]:
    baseline = {base.setting_id: base} if base else {}
    made = verdicts(baseline, [run] if run else [])
    return [finding for verdict in made for finding in verdict.findings]


def _one(base: Answer, run: Answer, **values: object) -> Finding:
    (found,) = _found(setting("a", base, **values), setting("a", run, **values))
    return found


def test_what_is_equal_has_no_finding():
    """Guards against a gate that is never green."""
    assert _found(setting(), setting()) == []


@pytest.mark.parametrize(("base", "run", "check"), [(setting(), None, "missing"), (None, setting(), "extra")])
def test_both_lists_of_settings_have_to_be_the_same(base: Setting | None, run: Setting | None, check: str):
    """Guards against a setting that is dropped, or added, and never looked at again."""
    (found,) = _found(base, run)
    assert (found.check, found.colour) == (check, Colour.RED)


def test_a_run_that_fails_is_red_whatever_the_baseline():
    """Guards against a failed run passing for one that has no answers to differ."""
    (found,) = _found(setting(), setting("a", failure="failed: logits are NaN", answers=()))
    assert (found.check, found.colour, found.detail) == ("failed", Colour.RED, "failed: logits are NaN")


@pytest.mark.parametrize(("names", "first"), [(["s0"], "s1"), (["s0", "s1", "s2"], "s2")])
def test_samples_have_to_be_the_same(names: list[str], first: str):
    """Guards against a run that leaves out what it gets wrong, and against one that decodes more."""
    base, run = setting("a", answer("s0"), answer("s1")), setting("a", *map(answer, names))
    (found,) = _found(base, run)
    assert (found.check, found.colour, found.sample) == ("samples", Colour.RED, first)


@pytest.mark.parametrize(("before", "after"), [(5, 3), (3, 5), (3, None)])
def test_a_counter_is_told_whichever_way_it_moves(before: int, after: int | None):
    """Guards savings: fewer calls for the same answer are a change, too."""
    base, run = (answer(counters=answer().counters | {"nfe": count}) for count in (before, after))
    assert f"nfe {before} -> {after}" in _one(base, run).detail


OTHER = replace(STEPS[1], tokens=(6,))
LATER = replace(answer(), tokens=(6, 7), steps=(STEPS[0], OTHER))


def test_the_first_differing_step_is_named_with_what_it_did():
    """Guards the line that somebody starts from."""
    found = _one(answer(), LATER)
    assert (found.check, found.colour, found.sample, found.step) == ("outputs", Colour.RED, "s0", 1)
    assert found.detail == "committed 0:5 -> committed 0:6"


def test_the_same_answer_in_another_order_differs_in_its_steps():
    """Guards the order of decisions, which a tie rule may change without changing an answer."""
    found = _one(answer(), answer(decided_at=(0, 1), steps=(Step(at=(0,), tokens=(5,)), Step(at=(1,), tokens=(7,)))))
    assert (found.check, found.colour, found.step) == ("steps", Colour.RED, 0)


def test_an_untraced_run_names_the_step_by_when_positions_were_decided():
    """Guards baselines of large experiments, which hold no steps."""
    found = _one(answer(steps=()), replace(LATER, steps=()))
    assert (found.check, found.step, found.detail) == ("outputs", 1, "position 0: token 5 -> 6")


def test_a_traced_baseline_serves_an_untraced_run():
    """Guards against steps that nobody asked for being missed."""
    assert _found(setting(), setting("a", answer(steps=()))) == []


@pytest.mark.parametrize(
    ("base", "run", "dtype", "colour"),
    [
        (1e-5, 2e-5, "float32", Colour.TIE),
        (1e-3, 1e-3, "float32", Colour.RED),
        (1e-5, 1e-5, "float64", Colour.RED),
        (0.2, 0.1, "bfloat16", Colour.TIE),
        (0.0, 1e-7, "float32", Colour.TIE),
        (0.0, 0.0, "float32", Colour.RED),
        (0.5, 1e-9, "float32", Colour.RED),
        (None, 1e-9, "float32", Colour.RED),
    ],
)
def test_a_tie_is_what_the_dtype_cannot_decide(base: float | None, run: float | None, dtype: str, colour: Colour):
    """Guards the bound, that the baseline's margin is asked, and that numbers equal on both sides are no tie.

    Those are told apart by rule: another outcome is another rule.
    """
    first, second = (
        answer(steps=(STEPS[0], replace(STEPS[1], margin=base))),
        replace(LATER, steps=(STEPS[0], replace(OTHER, margin=run))),
    )
    assert _one(first, second, dtype=dtype).colour is colour


def test_a_margin_elsewhere_excuses_nothing():
    """Guards against a near choice in the first step hiding another answer in the second."""
    near = replace(STEPS[0], margin=1e-9)
    assert _one(answer(margin=1e-9, steps=(near, STEPS[1])), replace(LATER, steps=(near, OTHER))).colour is Colour.RED


def test_work_that_differs_before_a_decision_is_no_tie():
    """Guards against a call too many being excused by the near choice that it disturbs later."""
    near = replace(STEPS[1], margin=1e-9)
    run = replace(LATER, steps=(replace(STEPS[0], computed=12), replace(OTHER, margin=1e-9)))
    found = _one(answer(steps=(STEPS[0], near)), run)
    assert (found.colour, found.step) == (Colour.RED, 0)


@pytest.mark.parametrize(
    ("change", "told"),
    [({"computed": 12}, "positions computed 6 -> 12"), ({"accepted": 1}, "drafts accepted None -> 1")],
)
def test_what_differs_of_the_work_is_told_before_another_answer(change: dict[str, int], told: str):
    """Guards the line of the table: it names what differs, and nothing that is the same."""
    run = replace(LATER, steps=(replace(STEPS[0], **change), OTHER))
    assert _one(answer(), run).detail == f"{told}, and another answer later"


def test_counters_are_told_by_name_at_the_step_that_spent_them():
    """Guards one call too many."""
    run = answer(counters={"nfe": 3, "query_tokens": 18}, steps=(STEPS[0], replace(STEPS[1], computed=12)))
    found = _one(answer(), run)
    assert (found.check, found.colour, found.step) == ("counters", Colour.RED, 1)
    assert found.detail == "nfe 2 -> 3, query_tokens 12 -> 18"


def test_a_call_after_the_last_step_is_named_there():
    """Guards counters that no step explains."""
    found = _one(answer(), answer(counters={"nfe": 3, "query_tokens": 12}))
    assert (found.check, found.step, found.detail) == ("counters", 1, "nfe 2 -> 3")


def test_accepted_lengths_are_compared():
    """Guards drafts: the same answer and calls from other accepted lengths is another method."""
    base = answer(steps=(replace(STEPS[0], accepted=1), replace(STEPS[1], accepted=0)))
    run = answer(steps=(replace(STEPS[0], accepted=0), replace(STEPS[1], accepted=1)))
    assert (_one(base, run).check, _one(base, run).step) == ("counters", 0)


def test_another_verdict_on_the_same_answer_blames_the_grader():
    """Guards against a grader that forgives, which no test of accuracies sees in one answer."""
    found = _one(answer(correct=False), answer())
    assert (found.check, found.colour, found.detail) == ("verdicts", Colour.RED, "the same answer, wrong -> right")


def test_another_question_is_not_compared_with_an_old_answer():
    """Guards against a changed task being blamed on a decoder."""
    assert _one(answer(), replace(LATER, prompt="q")).check == "prompt"


def _drawn(nfe: int, token: int) -> tuple[Answer, ...]:
    counts = {"nfe": nfe, "query_tokens": 12}
    return tuple(
        answer(f"s{i}", tokens=(token, 7), margin=None, drawn=True, steps=(), counters=counts) for i in range(8)
    )


def test_other_draws_are_no_fault_as_long_as_their_counts_are_within_their_interval():
    """Guards sampling: neither side has the right tokens, and a call more in every answer is still one."""
    (same,) = _found(setting("a", *_drawn(2, 5)), setting("a", *_drawn(2, 6)))
    assert same.colour is Colour.DRAWN
    more = _found(setting("a", *_drawn(2, 5)), setting("a", *_drawn(3, 6)))
    assert [(one.check, one.colour) for one in more] == [("outputs", Colour.DRAWN), ("counters", Colour.RED)]


@pytest.mark.parametrize(("lost", "red"), [(5, False), (6, True)])
def test_accuracy_is_tested_on_paired_answers(lost: int, red: bool):
    """Guards against a floor set by hand: of 6 lost and 0 gained p = 2/64 < 0.05, of 5 it is 2/32."""
    base = tuple(answer(f"s{i}", margin=1e-9, steps=()) for i in range(8))
    run = tuple(replace(one, tokens=(6, 7), correct=i >= lost) for i, one in enumerate(base))
    found = _found(setting("a", *base), setting("a", *run))
    assert [one.check for one in found] == (["outputs", "accuracy"] if red else ["outputs"])
    assert found[0].colour is Colour.TIE


def test_many_settings_have_to_show_more():
    """Guards against one of many settings being significant by chance: 6 of 6 lost is not, of two settings."""
    base = tuple(answer(f"s{i}", margin=1e-9, steps=()) for i in range(6))
    run = tuple(replace(one, tokens=(6, 7), correct=False) for one in base)
    made = verdicts({"a": setting("a", *base), "b": setting("b")}, [setting("a", *run), setting("b")])
    assert not any(one.red for one in made)


def test_what_is_as_red_without_the_change_does_not_blame_it():
    """Guards against blame for an old fault, and against hiding a new one behind it."""
    base = {"a": setting()}
    without, same, worse = (
        verdicts(base, [setting("a", one)]) for one in (LATER, LATER, replace(LATER, tokens=(8, 7)))
    )
    assert _colours(blameless(same, without)) == [Colour.KNOWN]
    assert _colours(blameless(worse, without)) == [Colour.RED]
    assert _colours(blameless(verdicts(base, []), without)) == [Colour.RED]


def _colours(made: list[Verdict]) -> list[Colour]:
    return [finding.colour for verdict in made for finding in verdict.findings]
