r"""Countdown: reach a target from given numbers, each used exactly once, with + - * /.

Sets cd3, cd4 and cd5 come from Dream (arXiv:2508.15487), d1 from the d1 family (arXiv:2504.12216). An answer is one
expression (in \boxed{}, with or without `= target`), or equations that use up the numbers step by step, as Dream's
worked answers do. Deviation from both published scorers: nothing is evaluated as Python, so `9**9**9` is wrong.
"""

from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

from harness.errors import DataError
from tasks import rows
from tasks.asking import Fields, Style
from tasks.boxes import last_boxed, last_tagged
from tasks.puzzles.arithmetic import NotArithmetic, evaluate
from tasks.questions import Origin, Problem, QuestionTask, Subject
from tasks.task import Score
from tasks.wording import d1

FOLDER = Path(__file__).parent / "data"
_FORMAT_OF_D1 = "set d1 has the target in `output`, the others have it as the last number of `input`"

STYLES = {
    "own-1": Style(
        question="Use each of the numbers {operands} exactly once, with + - * / and parentheses, to get {target}. "
        "Work it out, then write the expression inside \\boxed{{}}.",
        answer="\\boxed{{{expression}}}",
    ),
    "own-2": Style(
        question="Target: {target}\nNumbers: {operands}\n\nFind an arithmetic expression that equals the target. Every "
        "number must appear in it once; allowed are addition, subtraction, multiplication, division and parentheses. "
        "End with the expression in \\boxed{{}}.",
        answer="\\boxed{{{expression}}}",
    ),
    "equations": Style(question="{compact},{target}", answer="{steps}", between="\n", joint="\n\n"),
    "d1": Style(
        question="Write an expression that uses each of the numbers {operands} exactly once and equals {target}; the "
        "signs + - * / and parentheses are allowed. Put your reasoning between <reasoning> and </reasoning>, then the "
        "expression as \\boxed{{}} between <answer> and </answer>.",
        answer="</reasoning>\n<answer>\n\\boxed{{{expression}}}\n</answer>",
        prefix="<reasoning>",
        between="\n",
        reconstructed=True,
    ),
}


def read_problem(set_name: str, row: rows.Row, number: int) -> Problem:
    """Return row `number` (from 1); raise DataError for other than comma-separated whole numbers."""
    try:
        given = [int(part) for part in str(row["input"]).split(",")]
        target = int(row["output"]) if set_name == "d1" else given.pop()
    except ValueError as error:
        raise DataError(f"field 'input' or 'output': not whole numbers ({error}); {_FORMAT_OF_D1}") from error
    if len(given) < 2:
        raise DataError(f"field 'input': {row['input']!r} has fewer than two numbers to use; {_FORMAT_OF_D1}")
    steps = "" if set_name == "d1" else str(row["output"])
    words = {
        "operands": ", ".join(map(str, given)),
        "compact": ",".join(map(str, given)),
        "listed": str(given),
        "target": str(target),
        "steps": steps,
        "expression": _nested(steps) if steps else _widest(given, target),
    }
    return Problem(id=str(row.get("id", f"countdown-{set_name}-{number - 1}")), words=words, gold=(given, target))


def check_expression(text: str, operands: list[int], target: int) -> str:
    """Return why an expression is wrong, or nothing; a last `= target` is allowed."""
    left, equals, right = text.strip().strip("$").partition("=")
    try:
        made = evaluate(left)
        if equals and evaluate(right).value != made.value:
            return "the two sides differ"
    except NotArithmetic as error:
        return f"not arithmetic: {error}"
    if Counter(made.numbers) != Counter(operands):
        return "not every number exactly once"
    return "" if made.value == target else "misses the target"


def check_equations(text: str, operands: list[int], target: int) -> str:
    """Return why comma-separated equations are wrong, or nothing: each uses up numbers at hand and adds its result."""
    at_hand, value = Counter(Fraction(operand) for operand in operands), None
    for equation in text.strip().split(","):
        left, equals, right = equation.partition("=")
        try:
            made, value = evaluate(left), evaluate(right).value
        except NotArithmetic as error:
            return f"not arithmetic: {error}"
        used = Counter(Fraction(number) for number in made.numbers)
        if not equals or made.value != value:
            return f"does not hold: {equation.strip()[:40]}"
        if len(made.numbers) < 2 or used - at_hand:
            return "not every number exactly once"
        at_hand = at_hand - used + Counter([value])
    if sum(at_hand.values()) != 1:
        return "not every number exactly once"
    return "" if value == target else "misses the target"


def grade_expression(text: str, problem: Problem) -> Score:
    """Grade the last boxed expression, or the last line that is arithmetic."""
    boxed, path = last_boxed(text), "boxed"
    if boxed is None:
        boxed, path = _last_arithmetic_line(text), "last_line"
    if boxed is None:
        return Score(correct=False, detail="no expression found", path="none")
    reason = check_expression(boxed, *problem.gold)
    return Score(correct=not reason, detail=reason, extracted=boxed, path=path)


def grade_tagged(text: str, problem: Problem) -> Score:
    """Grade as `grade_expression` does, inside the last <answer> if there is one."""
    inside = last_tagged(text, "answer")
    return grade_expression(text if inside is None else inside, problem)


def grade_equations(text: str, problem: Problem) -> Score:
    """Grade the first line as equations."""
    line = text.strip().partition("\n")[0]
    reason = check_equations(line, *problem.gold)
    return Score(correct=not reason, detail=reason, extracted=line, path="first_line")


def _last_arithmetic_line(text: str) -> str | None:
    for line in reversed(text.splitlines()):
        try:
            if len(evaluate(line.partition("=")[0]).numbers) > 1:
                return line
        except NotArithmetic:
            continue
    return None


def _nested(steps: str) -> str:
    """Return the worked equations as one expression: every intermediate result replaced by what made it."""
    made: list[tuple[str, str]] = []
    for equation in steps.split(","):
        left, _, right = equation.partition("=")
        sign = next(s for s in "+-*/" if s in left)
        operands = []
        for number in left.split(sign):
            place = next((i for i, (value, _) in enumerate(made) if value == number), None)
            operands.append(number if place is None else f"({made.pop(place)[1]})")
        made.append((right, sign.join(operands)))
    return made[-1][1]


def _widest(operands: list[int], target: int) -> str:
    """Return a text as long as the expressions of this many numbers get; set d1 ships no worked answers."""
    return f"({'*'.join(map(str, operands))}) = {target}"


class Countdown(QuestionTask):
    """Countdown under a protocol; `set` is cd3, cd4, cd5 (numbers to use) or d1; see `QuestionTask`."""

    subject: ClassVar[Subject] = Subject(
        folder=FOLDER,
        sets={name: Origin(file=f"countdown_{name}.jsonl.gz") for name in ("cd3", "cd4", "cd5", "d1")},
        fields={"input": str, "output": str},
        problem=read_problem,
        words=Fields(shown=(("operands", "compact", "listed"), ("target",)), solved=("steps", "expression")),
        styles=STYLES,
        wordings={"d1": d1("countdown.py", fields={"numbers": "listed", "target": "target"})},
        readings={"own": grade_expression, "equations": grade_equations, "d1": grade_tagged},
    )
