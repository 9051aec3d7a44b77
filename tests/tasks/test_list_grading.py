"""The grader accepts every valid answer and nothing else, and texts are read as the scorers of the benchmark do."""

import math
from collections import Counter
from itertools import product
from random import Random

import pytest

from harness.errors import DataError
from tasks.lists.chat import ChatRenderer
from tasks.lists.operations import OPERATIONS
from tasks.lists.tiny import TinyRenderer
from tests.tasks.exact import Items, problem

GIVEN = {"replace_index": {"index": 1}, "insert_index": {"index": 3}, "remove_index": {"index": 0}}
GIVEN |= {"repeat_each": {"count": 2}, "repeat_list": {"count": 2}}


def metric(op: str, x: Items, pred: Items) -> bool:
    """Restate the scoring table of the random operations, step by step as it is published."""
    if op == "shuffle":
        return sorted(pred) == sorted(x) and pred != x
    if op == "insert_random":
        rest = list(pred)
        if "W" not in rest:
            return False
        rest.remove("W")
        return tuple(rest) == x
    if op == "remove_random":
        missing = set(x) - set(pred)
        return len(pred) == len(x) - 1 and len(missing) == 1 and tuple(i for i in x if i not in missing) == pred
    if len(pred) != len(x) or "W" not in pred:
        return False
    place = pred.index("W")
    return (*x[:place], "W", *x[place + 1 :]) == pred


@pytest.mark.parametrize("n", [3, 4])
@pytest.mark.parametrize("op", OPERATIONS)
def test_accepts_exactly_the_answers(op: str, n: int) -> None:
    """A wrong list that passes, or a right one that fails, among all short lists over items, word and a stranger."""
    asked = problem(op, n, **GIVEN.get(op, {}))
    answers = list(asked.answers())
    assert len(set(answers)) == len(answers) == asked.num_answers == round(math.exp(asked.log_n_answers))
    assert all(asked.accepts(answer) for answer in answers)
    for length in range(n + 2):
        for pred in product([*asked.items, "W", "?"], repeat=length):
            assert asked.accepts(pred) == (pred in answers)
            assert not op.endswith(("random", "shuffle")) or asked.accepts(pred) == metric(op, asked.items, pred)


@pytest.mark.parametrize(
    ("op", "answer"),
    [
        ("copy", "abcd"),
        ("reverse", "dcba"),
        ("replace_index", "aWcd"),
        ("insert_index", "abcWd"),
        ("remove_index", "bcd"),
        ("repeat_each", "aabbccdd"),
        ("repeat_list", "abcdabcd"),
    ],
)
def test_answers_written_by_hand(op: str, answer: str) -> None:
    """Places counted from 1, or the two repetitions mixed up."""
    assert list(problem(op, 4, **GIVEN.get(op, {})).answers()) == [tuple(answer)]


def test_sort_is_by_code_point() -> None:
    """Sorting without regard to case, which the embedded models are not trained on."""
    assert next(problem("sort", 3, items=("b", "C", "a")).answers()) == ("C", "a", "b")


@pytest.mark.parametrize("op", ["shuffle", "insert_random", "replace_random", "remove_random"])
def test_sampled_answers_are_uniform(op: str) -> None:
    """A training target that favours some answers, against which closed forms would be wrong."""
    asked, rng = problem(op, 3), Random(0)
    counts = Counter(asked.sample_answer(rng) for _ in range(600 * asked.num_answers))
    assert set(counts) == set(asked.answers())
    # Five standard deviations of a count with mean 600.
    assert all(abs(count - 600) < 5 * math.sqrt(600) for count in counts.values())


@pytest.mark.parametrize(
    ("field", "op", "broken"),
    [
        ("op", "rotate", {}),
        ("items", "copy", {"items": ("a", "b", "a")}),
        ("word", "insert_random", {"word": None}),
        ("word", "insert_random", {"word": "a"}),
        ("word", "copy", {"word": "W"}),
        ("index", "remove_index", {"index": 3}),
        ("index", "remove_random", {"index": 0}),
        ("index", "insert_index", {}),
        ("count", "repeat_list", {"count": 6}),
    ],
)
def test_impossible_instances_are_refused(field: str, op: str, broken: dict[str, object]) -> None:
    """An instance whose answers are not distinct or not defined."""
    with pytest.raises(DataError, match=f"field '{field}'"):
        problem(op, 3, **broken)


@pytest.mark.parametrize(
    ("text", "lenient", "strict"),
    [
        ('["Ann Lee", "Bo Day"]', ("Ann Lee", "Bo Day"), ("Ann Lee", "Bo Day")),
        ('Sure: ["x"] no, ["Ann Lee", "Bo Day"] done', ("Ann Lee", "Bo Day"), ("Ann Lee", "Bo Day")),
        ("Ann Lee, Bo Day", ("Ann Lee", "Bo Day"), None),
        ("[Ann Lee,Bo Day,]", ("Ann Lee", "Bo Day"), None),
        ('["Ann Lee","Bo Day"]', ("Ann Lee", "Bo Day"), None),
        ('["Ann Lee", "Bo Day"', ("Ann Lee", "Bo Day"), None),
        ('"Ann Lee", "Bo Day"] ["x', ("x",), None),
        ("['A', 'B']", ("'A'", "'B'"), None),
        ("[A\nB]", ("A\nB",), None),
        ('["a"b"]', ('a"b',), None),
        ('["]', ("",), ("",)),
        ('["A B", "C D", ""]', ("A B", "C D", ""), ("A B", "C D", "")),
        ('["A B", "C D",\n]', ("A B", "C D"), None),
        ('["A B", "C D", \t, \u00a0]', ("A B", "C D"), None),
        ('["A B", "", "C D"]', ("A B", "", "C D"), ("A B", "", "C D")),
        ('["A B",\n"C D"]', ("A B", '\n"C D'), None),
        ("[]", (), None),
        ("", (), None),
    ],
)
def test_reading_of_chat_answers(text: str, lenient: Items, strict: Items | None) -> None:
    """Forgiving more or less than the published scorer does."""
    renderer = ChatRenderer(template="own-1")
    assert renderer.parse(text) == lenient
    assert renderer.parse(text, strict=True) == strict


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("a b <eos> <eos>", ("a", "b")),
        ("a b <eos> c junk", ("a", "b")),
        ("a b", ("a", "b")),
        ("<eos> a b", ()),
        ("a <pad> b <eos>", None),
        ("a ab <eos>", None),
    ],
)
def test_reading_of_symbols(text: str, items: Items | None) -> None:
    """Symbols behind the end that spoil an answer, or strangers before it that are skipped."""
    assert TinyRenderer(max_items=10).parse(text) == items
