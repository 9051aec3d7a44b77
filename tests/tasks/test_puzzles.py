"""Countdown and sudoku: every reference answer is right, everything else is wrong and harmless."""

import time
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import DataError
from tasks.puzzles import Countdown, Sudoku, grids
from tasks.puzzles.arithmetic import NotArithmetic, evaluate
from tasks.puzzles.countdown import check_equations, check_expression

MALICIOUS = [
    "9**9**9",
    "__import__('os').system('true')",
    "(" * 199,
    "-" * 199 + "1",
    "9" * 99 + "*" + "9" * 99,
    "1" * 100_000,
    "1/0",
    "exec('1')",
    "\u0661+\u0662",
    "1+",
    "()",
    "",
]


def countdown(**settings: object) -> Countdown:
    return Countdown(**{"name": "c", "template": "own-1", "reading": "own", "set": "cd3"} | settings)


def sudoku(**settings: object) -> Sudoku:
    return Sudoku(**{"name": "s", "template": "own-1", "reading": "own", "set": "4"} | settings)


def expressions() -> st.SearchStrategy[str]:
    """Draw texts of arithmetic."""
    numbers = st.integers(0, 99).map(str)
    return st.recursive(
        numbers, lambda e: st.tuples(e, st.sampled_from("+-*/"), e).map(lambda t: f"({t[0]}{t[1]}{t[2]})"), max_leaves=8
    )


# How fast texts are drawn says how busy the machine is.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(expressions())
def test_values_agree_with_exact_arithmetic(text: str) -> None:
    """Guards precedence, signs and division against Python's own reading of the same text over fractions."""
    import re

    try:
        expected = eval(re.sub(r"\d+", r"Fraction(\g<0>)", text), {"Fraction": Fraction})
    except ZeroDivisionError:
        with pytest.raises(NotArithmetic, match="division by zero"):
            evaluate(text)
        return
    assert evaluate(text).value == expected
    assert evaluate(text).numbers == tuple(map(int, re.findall(r"\d+", text)))


@pytest.mark.parametrize(
    ("text", "value"), [("2+3*4", 14), ("10-4-3", 3), ("8/4/2", 1), ("-2+5", 3), ("2 \\times 3", 6)]
)
def test_precedence(text: str, value: int) -> None:
    """Guards against evaluation from right to left, or without precedence."""
    assert evaluate(text).value == value


@pytest.mark.parametrize("text", MALICIOUS, ids=range(len(MALICIOUS)))
def test_malicious_answers_are_wrong_at_once(text: str) -> None:
    """Guards against code and against numbers that never end: both published scorers evaluate model text."""
    task = countdown(samples=1)
    (sample,) = task.instances()
    start = time.process_time()
    assert not task.score(sample, text).correct
    assert not task.score(sample, f"\\boxed{{{text}}}").correct
    assert check_equations(text, [1, 2], 3)
    assert time.process_time() - start < 0.05


@pytest.mark.parametrize("name", ["cd3", "cd4", "cd5"])
def test_reference_equations_are_right(name: str) -> None:
    """Guards both readings: the worked equations, and the same as one expression."""
    stepwise = countdown(set=name, template="equations", reading="equations")
    scores = [stepwise.score(s, s.instance.words["steps"] + "\n\n1,2,3") for s in stepwise.instances()]
    assert len(scores) == 1000 and all(score.correct for score in scores)
    whole = countdown(set=name)
    assert all(whole.score(s, f"\\boxed{{{s.instance.words['expression']}}}").correct for s in whole.instances())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("(44-15)+(79-29)", "not every number exactly once"),
        ("79-(44-15)", ""),
        ("79-(44-15) = 50", ""),
        ("79-(44-15) = 51", "the two sides differ"),
        ("79-44-15", "misses the target"),
        ("50", "not every number exactly once"),
        ("79-(44-15", "not arithmetic"),
        ("79-(44-15)+15-15", "not every number exactly once"),
        ("79-(44-15)*1", "not every number exactly once"),
        ("79-29", "not every number exactly once"),
        ("7944-15", "not every number exactly once"),
        ("79+44/44-15-15", "not every number exactly once"),
        ("-(44-15-79)", ""),
        ("79-(044-15)", ""),
    ],
)
def test_expressions(text: str, reason: str) -> None:
    """Guards the rules: every number once, the target met, the equation true."""
    found = check_expression(text, [15, 44, 79], 50)
    assert found.startswith(reason) and bool(found) == bool(reason)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("44-15=29,79-29=50", ""),
        ("44-15=28,79-28=51", "does not hold"),
        ("79-29=50", "not every number exactly once"),
        ("44-15=29,79-15=64", "not every number exactly once"),
        ("44+15=59,79-59=20", "misses the target"),
        ("44-15=29", "not every number exactly once"),
        ("50=50", "not every number exactly once"),
        ("44-15=29,79-29=50,0*50=50", "does not hold"),
    ],
)
def test_equations(text: str, reason: str) -> None:
    """Guards the rules: every number and every result in between is used up once."""
    found = check_equations(text, [15, 44, 79], 50)
    assert found.startswith(reason) and bool(found) == bool(reason)


@pytest.mark.parametrize(
    ("text", "operands", "target"),
    [
        ("5+5+7-7", [5, 7], 10),
        ("5+5", [5, 7], 10),
        ("5+5", [5], 10),
        ("5+7", [5, 5, 7], 12),
        ("(5*5+7)-20", [5, 7, 20], 12),
        ("55+7", [5, 5, 7], 62),
        ("5*1+7", [5, 7], 12),
        ("3+4+5", [5, 7], 12),
    ],
)
def test_every_number_once_and_no_other(text: str, operands: list[int], target: int) -> None:
    """Guards the multiset: right values made from a number used twice, left out, glued together or not given."""
    assert evaluate(text).value == target
    assert check_expression(text, operands, target) == "not every number exactly once"


def test_a_number_given_twice_is_used_twice() -> None:
    """Guards against a set in place of the multiset, in both readings."""
    assert check_expression("5+5+7", [5, 7, 5], 17) == ""
    assert check_equations("5+5=10,10+7=17", [5, 7, 5], 17) == ""
    for text in ("5+5=10", "5+7=12,12+5=17,5-5=0", "5+5=10,10+5=15,15+2=17", "5+7=12,5+12=17,12+5=17"):
        assert check_equations(text, [5, 7, 5], 17) in ("not every number exactly once", "misses the target")
    for text in ("5+7=12,12+5=17", "5+5=10,10+7=17"):
        assert check_equations(text, [5, 7], 17) == "not every number exactly once"


def test_an_expression_without_a_box_is_found() -> None:
    """Guards leniency: the last line that is arithmetic counts, and says how it was found."""
    task = countdown(samples=1, subset="first")
    (sample,) = task.instances()
    score = task.score(sample, "First 44-15.\n79-(44-15) = 50\nDone.")
    assert (score.correct, score.path) == (True, "last_line")
    assert task.score(sample, "I do not know.").path == "none"


def test_worked_examples_are_not_asked() -> None:
    """Guards against a test problem that the prompt solves."""
    task = countdown(template="equations", reading="equations", turns="text", shots=8, stop=["\n"])
    samples = task.instances()
    assert len(samples) == 992
    assert samples[0].prompt.startswith("15,44,79,50\n44-15=29,79-29=50\n\n65,34,56,25\n")
    assert all(sample.instance.words["compact"] + "," not in sample.prompt[:200] for sample in samples[:50])


def test_broken_countdown_rows_are_named(tmp_path) -> None:
    """Guards data by path."""
    path = tmp_path / "mine.jsonl"
    for row, message in (
        ('{"input": "1,x", "output": ""}', "not whole numbers"),
        ('{"input": "1,2", "output": ""}', "few"),
    ):
        path.write_text(row + "\n")
        with pytest.raises(DataError, match=rf"mine.jsonl, row 1: field 'input'.*{message}"):
            countdown(data=str(path)).instances()


@pytest.mark.parametrize("name", Sudoku.subject.sets)
def test_reference_grids_are_right(name: str) -> None:
    """Guards rules and reading; the published counts of solutions are those that our solver finds."""
    task = sudoku(set=name)
    scores = [task.score(s, s.instance.words["solved_lines"]) for s in task.instances()]
    assert all(score.correct and score.strict and score.measures["cell_accuracy"] == 1 for score in scores)
    several = sum(score.measures["solutions"] > 1 for score in scores)
    assert (len(scores), several) == ((500, 124) if name == "d1" else (108, 0))


def test_another_solution_is_right() -> None:
    """Guards validity as the verdict: puzzles of d1 have several solutions, of which one is stored."""
    task, several = sudoku(set="d1", template="d1", reading="d1"), 0
    for sample in task.instances():
        others = [g for g in grids.solutions(sample.instance.gold[0]) if g != sample.instance.gold[1]]
        several += bool(others)
        for grid in others:
            score = task.score(sample, f"1234</reasoning><answer>\n{grid}\n</answer>")
            assert score.correct and score.measures["cell_accuracy"] < 1
    assert several == 124


@pytest.mark.parametrize(
    ("text", "lenient", "strict"),
    [
        ("1234\n3412\n2143\n4321", True, True),
        ("Here:\n1 2 3 4\n3,4,1,2\n2143\n4321\n", True, False),
        ("1234\n3412\n2143", False, False),
        ("1234\n3412\n2143\n4321\n1234", False, False),
        ("1234 3412 2143 4321", False, False),
        ("1|2|3|4\n3|4|1|2\n2|1|4|3\n4|3|2|1", True, False),
        ("- 1234\n- 3412\n- 2143\n- 4321", True, False),
        ("[1, 2, 3, 4]\n[3, 4, 1, 2],\n[2, 1, 4, 3]\n[4, 3, 2, 1]", True, False),
        ("1. 1234\n2. 3412\n3. 2143\n4. 4321", False, False),
        ("In 1234 rows\n1234\n3412\n2143\n4321", False, False),
        ("1234\n\n 3412 \n2143\r\n4321\n", True, True),
        ("\uff11\uff12\uff13\uff14\n3412\n2143\n4321", True, True),
    ],
)
def test_grid_lines(text: str, lenient: bool, strict: bool) -> None:
    """Guards the reading: four lines of four digits, with or without blanks, commas and words around them."""
    solved = "1234341221434321"
    assert grids.read_lines(text) == (solved if lenient else None)
    assert grids.read_lines(text, strict=True) == (solved if strict else None)


def test_rules_of_sudoku() -> None:
    """Guards every rule: a row, a column, a box, a given cell."""
    puzzle, solved = "1000000000000000", "1234341221434321"
    assert grids.solves(solved, puzzle)
    for broken in ("1134341221434321", "1234123441233412", "1234234134124123", "2143341212344321"):
        assert not grids.solves(broken, puzzle)
    assert len(list(grids.solutions("0" * 16))) == 288


def test_a_wrong_stored_solution_is_named(tmp_path) -> None:
    """Guards data by path: a row whose solution breaks the rules would make every answer wrong."""
    path = tmp_path / "mine.jsonl"
    path.write_text('{"input": "1000000000000000", "output": "1234"}\n')
    with pytest.raises(DataError, match=r"mine.jsonl, row 1: field 'output': '1234' does not solve"):
        sudoku(data=str(path)).instances()
    path.write_text('{"puzzle": "1000000000000000"}\n')
    with pytest.raises(DataError, match=r"mine.jsonl, row 1: field 'input' is missing"):
        sudoku(data=str(path)).instances()
