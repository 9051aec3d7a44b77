"""What is taken for the answer of a text, rule by rule; the tables are those of the published extractors."""

from fractions import Fraction

import pytest

from tasks.boxes import last_boxed, last_tagged
from tasks.math import numerals

OWN = [
    (r"so \boxed{18}", "18", "boxed"),
    (r"\boxed{1} then \boxed{\$1,234.50\text{ dollars}}", "1234.50", "boxed"),
    (r"\boxed{1{,}234}", "1234", "boxed"),
    (r"\boxed{x = -4}", "-4", "boxed"),
    (r"\boxed{18\%} of 50", "18", "boxed"),
    (r"\boxed{\frac{1}{2}} or 7", "1/2", "boxed"),
    (r"\boxed{3 and 4} #### 5", "5", "hashes"),
    (r"\boxed{18", "18", "last"),
    ("first 3.\n#### 2,125", "2125", "hashes"),
    ("The answer is 42. Not 43.", "42", "answer_is"),
    ("the answer is 1. So THE ANSWER IS $7!", "7", "answer_is"),
    ("the answer is unknown, but 5 eggs...", "5", "answer_is"),
    ("she has 9-4 eggs", "4", "last"),
    ("it is \u22123 degrees", "-3", "last"),
    ("costs $18.00.", "18.00", "last"),
    ("1,2,3", "3", "last"),
    ("12,34", "34", "last"),
    ("no number...", None, "none"),
    ("", None, "none"),
]


@pytest.mark.parametrize(("text", "number", "path"), OWN)
def test_own_rules(text: str, number: str | None, path: str) -> None:
    """Guards the order of the rules and the grammar of numbers: signs, commas, currency, units."""
    answer = numerals.own_answer(text)
    assert (answer.value, answer.path) == (None if number is None else Fraction(number), path)


FLEXIBLE = [
    ("= 5 eggs...", "..."),
    ("18 (see step 2)", "2"),
    ("18.00", "18.00"),
    ("$1,234", "$1,234"),
    ("none", None),
]


@pytest.mark.parametrize(("text", "taken"), FLEXIBLE)
def test_flexible_filter_keeps_its_pitfalls(text: str, taken: str | None) -> None:
    """Guards parity: a repaired extractor would not reproduce published numbers."""
    assert numerals.lm_eval_flexible(text) == taken


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [
        ("1,234", "... #### 1234", True),
        ("$18", "#### 18", True),
        ("18.", "#### 18", True),
        ("18.00", "#### 18", False),
        (None, "#### 18", False),
    ],
)
def test_exact_match_compares_texts(answer: str | None, gold: str, same: bool) -> None:
    """Guards parity: 18.00 is not 18 there, while commas, dollars and a last period are forgiven."""
    assert numerals.lm_eval_equal(answer, gold) is same


def test_strict_filters() -> None:
    """Guards the formats: the first `#### N`, or "The answer is N" with some character after it."""
    assert numerals.lm_eval_strict("#### 3 and #### 4") == "3"
    assert numerals.lm_eval_strict("The answer is 3.") is None
    assert numerals.lm_eval_strict("The answer is 33. #### 4", chain_of_thought=True) == "33."
    assert numerals.lm_eval_strict("The answer is 3", chain_of_thought=True) is None


@pytest.mark.parametrize(
    ("text", "taken"), [("1,234", "234"), ("7. Question: 9", "7"), ("-2.50 x", "-2.50"), ("?", None)]
)
def test_opencompass_takes_the_last_plain_number(text: str, taken: str | None) -> None:
    """Guards parity: its pattern knows no commas, and a next question ends the answer."""
    assert numerals.opencompass_number(text) == taken


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        (r"\boxed{a} \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed {3}", "3"),
        (r"\boxed{good} \boxed{cut", "good"),
        (r"\boxed{\left\{ x \right\}", None),
        ("none", None),
    ],
)
def test_braces_of_a_box_are_balanced(text: str, inside: str | None) -> None:
    """Guards against an answer that ends at its first closing brace, and against a box that the canvas cut off."""
    assert last_boxed(text) == inside


def test_the_last_tag_counts() -> None:
    """Guards against reading the format instructions that a model repeats."""
    assert last_tagged("<answer>a</answer> <answer>b</answer> c", "answer") == "b"
    assert last_tagged("<answer>cut off", "answer") == "cut off"
    assert last_tagged("nothing", "answer") is None
