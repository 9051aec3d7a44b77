"""Votes: the answer that most rows give, how ties are decided, and that nobody who says nothing has a say."""

import pytest

from harness.engine.shared.generation import Generation
from harness.models.tokenizer import SymbolTokenizer
from harness.runs.votes import answer_in, elected, of_drafts, plurality
from tasks.lists.task import ListTask

TASK = ListTask(name="list_copy", operation="copy", lengths=[3], samples=1)


@pytest.mark.parametrize(
    ("answers", "lengths", "chosen"),
    [
        (["a"], [5], 0),
        (["a", "b", "b"], [1, 5, 4], 2),
        (["a", "b"], [5, 4], 1),
        (["a", "b", "a", "b"], [4, 3, 2, 3], 2),
        (["a", "b"], [4, 4], 0),
        ([None, "b", None], [1, 9, 1], 1),
        ([None, None], [3, 2], 0),
    ],
)
def test_the_plurality_wins(answers: list[str | None], lengths: list[int], chosen: int):
    """Guards counts, the shortest supporter of the winner and of a tie, the first of equals, and the silent."""
    assert plurality(answers, lengths) == chosen


def generation(text: str, **told: object) -> Generation:
    """Return a row that says a text."""
    tokens = tuple(SymbolTokenizer().encode(text))
    kept: dict = {"sample": 0, "tokens": tokens, "decided_at": tuple(range(len(tokens))), "idle": 0, "forced": 0}
    return Generation(**kept | {"remasked": 0, "tokens_generated": len(tokens), "first_call": 0} | told)


def test_rows_vote_for_the_sample():
    """Guards what is counted of the sample against what is the winner's."""
    (sample,) = TASK.instances()
    rows = [generation(text) for text in ("C A B <eos>", "A : B <eos>", "A B C <eos>")]
    first = generation("A B C <eos> <eos>", others=tuple(rows), tokens_generated=99, calls=7)
    made = elected(first, TASK, sample, SymbolTokenizer())
    assert (made.tokens, made.tokens_generated, made.calls) == (rows[2].tokens, 99, 7)
    assert elected(rows[0], TASK, sample, SymbolTokenizer()) is rows[0]


def test_answers_that_were_asked_for_are_graded_beside_the_first():
    """Guards what is counted of them: all, distinct texts, right ones; nothing where there is one answer."""
    (sample,) = TASK.instances()
    right, wrong = f"{' '.join(sample.instance.items)} <eos>", "C A B <eos>"
    first = generation(wrong, beside=(generation(right), generation(wrong)))
    told = of_drafts(first, False, TASK, sample, SymbolTokenizer())
    assert told == {"drafts": 3, "drafts_distinct": 2, "drafts_correct": 1}
    assert "drafts_correct" not in of_drafts(first, None, TASK, sample, SymbolTokenizer())
    assert of_drafts(generation(wrong), False, TASK, sample, SymbolTokenizer()) == {}


def test_the_task_reads_the_answer():
    """Guards the form in which equal answers are equal, and texts that hold none."""
    (sample,) = TASK.instances()
    assert answer_in(TASK, sample, "A B <eos> C") == "A B"
    assert answer_in(TASK, sample, "A : B") is None
