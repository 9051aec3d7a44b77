r"""The own reading of GSM8K: what number an answer gives, in every way of writing that models have."""

import re
from collections.abc import Iterator

import pytest

from tasks import boxes
from tasks.math import Gsm8k, expressions, numerals
from tasks.math.continuation import before_next_question
from tasks.math.spelling import plain
from tasks.math.verifier import installed_version

needs_math_verify = pytest.mark.skipif(installed_version() is None, reason="the extra math is not installed")

BOXES = {
    "units": [
        (r"60\text{ ft}^2", "60"),
        (r"18\ \mathrm{cm}^2", "18"),
        (r"18 \text{ ft}^{2}", "18"),
        (r"18\text{ km/h}", "18"),
        (r"18\,\frac{\text{m}}{\text{s}}", "18"),
        (r"18\text{ m}\cdot\text{s}^{-1}", "18"),
        (r"18^{\circ}\text{C}", "18"),
        (r"18 square feet", "18"),
        (r"18 m2", "18"),
        (r"18 \text{ (eggs)}", "18"),
        (r"\text{18 hours}", "18"),
        (r"\text{Total: \$18}", "18"),
        (r"\frac{36\text{ ft}}{2}", "18"),
        (r"18\%", "18"),
    ],
    "currency": [
        (r"\$18", "18"),
        (r"\text{US\$}18", "18"),
        (r"-\$18", "-18"),
        (r"\text{Rs. }18", "18"),
        ("Rs.18", "18"),
        ("\u20ac18", "18"),
        (r"\$18/\text{hour}", "18"),
    ],
    "spaces and thousands": [
        ("1 234", "1234"),
        (r"1\,234", "1234"),
        (r"1\ 234", "1234"),
        ("1{,}234", "1234"),
        (r"1,\!234", "1234"),
        ("1,234,567", "1234567"),
        ("12 345 678", "12345678"),
        ("1\u2009234", "1234"),
        ("1\u202f234.50", "1234.5"),
        ("1'234", "1234"),
        ("1_000", "1000"),
    ],
    "fractions and decimals": [
        (r"\frac{36}{2}", "18"),
        (r"\dfrac{1}{2}", "0.5"),
        (r"-\frac{1}{2}", "-0.5"),
        (r"\frac12", "0.5"),
        (r"1\frac{1}{2}", "1.5"),
        ("1 1/2", "1.5"),
        ("2\u00bd", "2.5"),
        (r"\frac{\frac{72}{2}}{2}", "18"),
        (r"\frac{1}{3}", "1/3"),
        ("18.00", "18"),
        ("18.", "18"),
        (".5", "0.5"),
        ("1e3", "1000"),
        (r"1.8 \times 10^{3}", "1800"),
    ],
    "equations": [
        (r"9 \times 2 = 18", "18"),
        ("x = 18", "18"),
        (r"2\text{ eggs} \times 9\text{ dollars} = 18\text{ dollars}", "18"),
        (r"17.6 \approx 18", "18"),
        (r"4.5 \times 4", "18"),
        (r"36 \div 2", "18"),
        ("20-2", "18"),
        ("(-18)", "-18"),
        ("\u201318", "-18"),
        ("\u221218", "-18"),
        ("- 18", "-18"),
    ],
    "decoration": [
        ("**18**", "18"),
        ("_18_", "18"),
        (r"\mathbf{18}", "18"),
        (r"\textbf{18}", "18"),
        (r"\color{red}{18}", "18"),
        (r"\boxed{18}", "18"),
        ("\uff11\uff18", "18"),
        ("\u0661\u0668", "18"),
    ],
    "no single number": [
        (r"5\text{ or }6", None),
        (r"18\text{ hours }30\text{ min}", None),
        ("1h30", None),
        (r"5 \text{ and } 6", None),
        (r"5\quad 6", None),
        ("5, 6", None),
        (r"\{5, 6\}", None),
        ("(5, 6)", None),
        ("5-6", None),
        ("5\u20136", None),
        ("5 -- 6", None),
        (r"5\text{ to }6", None),
        ("2:3", None),
        ("x = 18, y = 5", None),
        (r"x = 18 \text{ and } y = 5", None),
        ("18,50", None),
        ("0,5", None),
        (r"18\text{ per }2\text{ hours}", None),
        (r"18\pi", None),
        (r"18 \pm 2", None),
        ("9" * 500, None),
    ],
}
TEXTS = {
    "after a mark": [
        ("The answer is US$18", "18", "answer_is"),
        ("The answer is Rs.18", "18", "answer_is"),
        ("The answer is _18_", "18", "answer_is"),
        ("The answer is **$18**.", "18", "answer_is"),
        ("The answer is \u201318", "-18", "answer_is"),
        ("The answer is \u2212$18", "-18", "answer_is"),
        ("The answer is - 18", "-18", "answer_is"),
        ("The answer is \uff11\uff0c\uff12\uff13\uff14", "1234", "answer_is"),
        ("The answer is 1 234 dollars", "1234", "answer_is"),
        ("The answer is 9 * 2 = 18 dollars", "18", "answer_is"),
        ("The answer is 36/2.", "18", "answer_is"),
        (r"The answer is $\frac{36}{2}$", "18", "answer_is"),
        ("The answer is 18 (9 + 9)", "18", "answer_is"),
        ("The answer is 18\n- 5 eggs", "18", "answer_is"),
        ("The answer is 5-6", None, "answer_is"),
        ("The answer is 5\u20136 eggs", None, "answer_is"),
        ("The answer is 5 or 6", None, "answer_is"),
        (r"The answer is \boxed{5\text{ or }6}", None, "boxed"),
        (r"6 eggs, so \boxed{5\text{ or }6}", None, "boxed"),
        (r"\boxed{\text{eighteen}} #### 18", "18", "hashes"),
        ("#### $-18", "-18", "hashes"),
        ("#### **18** dollars", "18", "hashes"),
        (r"#### $1\frac{1}{2}$", "1.5", "hashes"),
        ("#### 18\n#### Check of step 2", "18", "hashes"),
        ("#### Step 3\nSo 18 dollars", "18", "last"),
    ],
    "anywhere": [
        ("so Rs.18", "18", "last"),
        ("it is \u201318 degrees", "-18", "last"),
        ("from 5 to \u20136", "-6", "last"),
        ("5\u20136", "6", "last"),
        ("(9)-4", "4", "last"),
        ("60 ft^2", "60", "last"),
        ("60 ft\u00b2", "60", "last"),
        ("18 for x_1", "18", "last"),
        (r"1\,234 eggs", "1234", "last"),
        ("\u20b918", "18", "last"),
        ("USD18", "18", "last"),
        ("1/2", "0.5", "last"),
        ("18/0", None, "none"),
        ("no number", None, "none"),
    ],
    "boxes": [
        (r"\boxed{5}, then \boxed{18}", "18", "boxed"),
        (r"\boxed{18} and \boxed{5", "18", "boxed"),
        (r"so 18 = \boxed{", "18", "last"),
        (r"\boxed{} 18", "18", "last"),
    ],
}
QUESTIONS = [
    ("9*2=18\n#### 18\n\nQuestion: Tom has 3.\nAnswer: 5\n#### 5", "18"),
    ("#### 18 Question: Tom has 3. #### 5", "18"),
    ("The answer is 18.\n\nQ: Tom has 3.\nA: The answer is 5.", "18"),
    ("\\boxed{18}\n\n**Question 2:** Tom has 3.\n\\boxed{5}", "18"),
    ("\\boxed{18}\n\nProblem: Tom has 3.\n\\boxed{5}", "18"),
    ("\\boxed{18}\n\nExample 2: Tom has 3.\n\\boxed{5}", "18"),
    ("So she makes 18 dollars.\n\nQuestion: Tom has 3.\nAnswer: 5", "18"),
    ("Question: Ann has 16 eggs.\nAnswer: 9*2=18\n#### 18\nQuestion: Tom has 3.\n#### 5", "18"),
    ("Question 1: how many? 9\nQuestion 2: how much? 9*2 = 18\n#### 18", "18"),
    ("Given: 16 eggs.\nQuestion: how much?\nSolution: 9*2 = 18", "18"),
    ("We solve the question: 9*2\n#### 18", "18"),
]


ENDLESS = [r"\boxed{", "1", "1,234,", "1 234 ", "#### 1 ", "answer is 5 ", "Question: 1 ", "_1", "{", "\\", "5\u2013"]
ENDLESS += ["1+", r"\frac{1}{2}", "\u00bd", r"\text{", r"\boxed{1", "the answer is 1+1+", "1\u2009", "- ", "\\boxed "]


@pytest.fixture(params=["with", "without"])
def readers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Read with math-verify, if it is installed, and as if it were not."""
    if request.param == "without":
        monkeypatch.setattr(expressions, "installed_version", lambda: None)
    return request.param


def written(text: str) -> str | None:
    value = numerals.own_answer(text).value
    return None if value is None else numerals.written(value)


@pytest.mark.parametrize("kind", BOXES)
def test_what_a_box_holds(kind: str, readers: str) -> None:
    """Guards against units, currency or spaces read as numbers, and against numbers glued to one."""
    for inside, number in BOXES[kind]:
        assert (inside, written(f"so \\boxed{{{inside}}}.")) == (inside, number)


@pytest.mark.parametrize("kind", TEXTS)
def test_what_a_text_says(kind: str, readers: str) -> None:
    """Guards the rules outside of boxes, and that a box with several numbers is not read as one of them."""
    for text, number, path in TEXTS[kind]:
        assert (text, written(text), numerals.own_answer(text).path) == (text, number, path)


@pytest.mark.parametrize(("text", "number"), QUESTIONS)
def test_the_next_question_is_not_answered(text: str, number: str) -> None:
    """Guards against the answer to a question that the model asked itself, and against losing one's own to it."""
    assert written(text) == number


@needs_math_verify
@pytest.mark.parametrize(("inside", "number"), [(r"\sqrt{324}", "18"), (r"3^2 \times 2", "18"), (r"\sqrt[3]{27}", "3")])
def test_math_verify_reads_more_than_arithmetic(inside: str, number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the row: it says which reader decided, and without math-verify there is no answer, not another one."""
    (sample,) = (task := Gsm8k(name="g", template="own-1", reading="own", samples=1)).instances()
    score = task.score(sample, f"\\boxed{{{inside}}}")
    assert (score.extracted, score.reader) == (number, "math_verify")
    assert task.score(sample, r"\boxed{\frac{36}{2}}").reader == "text"
    monkeypatch.setattr(expressions, "installed_version", lambda: None)
    score = task.score(sample, f"\\boxed{{{inside}}}")
    assert (score.extracted, score.path, score.reader) == (None, "boxed", "text")


def test_the_run_says_whether_math_verify_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards comparisons between machines: what was absent is on record, for our own readings only."""
    task = Gsm8k(name="g", template="own-1", reading="own", samples=1)
    assert task.grading().facts["math_verify"] == (installed_version() or "absent")
    published = Gsm8k(name="g", template="lm_eval", reading="lm_eval", samples=1)
    assert "math_verify" not in published.grading().facts


@pytest.mark.parametrize("unit", ENDLESS)
def test_endless_answers_are_read(unit: str) -> None:
    """Guards against a repeated beginning that ends in an error, or in work that outlasts the test's time limit."""
    text = unit * (20_000 // len(unit))
    (sample,) = (task := Gsm8k(name="g", template="own-1", reading="own", samples=1)).instances()
    scores = [task.score(sample, text), task.score(sample, f"\\boxed{{{text}}}")]
    assert [score.correct for score in scores] == [False, False]


def test_boxes_are_found_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against looking for the end of every box anew, which takes minutes for an answer of open boxes."""
    looked_at: list[re.Match[str]] = []
    braces = boxes._BRACES

    class Counted:
        def finditer(self, text: str) -> Iterator[re.Match[str]]:
            for match in braces.finditer(text):
                looked_at.append(match)
                yield match

    monkeypatch.setattr(boxes, "_BRACES", Counted())
    text = "\\boxed{" * 14_000
    assert boxes.last_boxed(text) is None and len(looked_at) == 14_000
    assert boxes.last_boxed(text + "18}") == "18" and len(looked_at) == 28_001


@pytest.mark.parametrize(
    "inside", ["9^{9^{9^{9}}}", "((9^{99})^{99})^{99}", "(9^{99})^{99}", "(" * 150 + "1" + ")" * 150, "9" * 150, "1/0"]
)
def test_towers_hold_no_answer(inside: str) -> None:
    """Guards against numbers that never end: most are not even asked about."""
    value = numerals.own_answer(f"\\boxed{{{inside}}}").value
    assert value is None or value == int("9" * 150)


def test_spelling_leaves_words_alone() -> None:
    """Guards the normal form: superscripts are no digits, ranges stay ranges, a minus is a minus."""
    assert plain("5\u20136 m\u00b2, \u20137, \u22128 \u20ac9 1\u00a0234") == "5\u20136 m\u00b2, -7, -8 $9 1,234"


def test_a_text_without_another_question_is_whole() -> None:
    """Guards against cutting an answer at a word."""
    text = "The question: what is 9*2? Problem solved: 18.\n#### 18"
    assert before_next_question(text) == text
