"""What makes an answer to a row of a user's own file correct: one of these, or a function of the user's."""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from harness.errors import ConfigError, DataError
from harness.references import blame, find_function
from tasks.boxes import last_boxed
from tasks.code import sandbox
from tasks.code.extraction import blocks
from tasks.code.sandbox import MINIMUM, Tier
from tasks.math import latex, numerals
from tasks.math.verifier import INSTALL, VERIFIER, installed_version
from tasks.rows import Row
from tasks.task import Grading, Score


@dataclass(frozen=True, kw_only=True)
class Grader:
    """`read` returns what an answer is compared with, or raises ValueError saying what the field must hold.

    `grade` judges the text of an answer against that; the row is there too. `grading` says what this rests on here.
    """

    read: Callable[[Any], Any]
    grade: Callable[[str, Any, Row], Score]
    grading: Callable[[], Grading] = Grading


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How generated programs run; see `tasks.code.task.CodeTask`."""

    sandbox: str
    wall_s: float
    cpu_s: int

    @property
    def lowest(self) -> Tier:
        """The lowest tier of the sandbox that will do."""
        return MINIMUM if self.sandbox == "safe" else Tier.LIMITS


OURS = ("exact", "contains", "number", "math", "code")


def grader_of(name: str, limits: Limits) -> Grader:
    """Return one of ours, or the user's named `package.module:function`; raise ConfigError where that is none."""
    ours = {
        "exact": Grader(read=_texts, grade=_exact),
        "contains": Grader(read=_texts, grade=_contains),
        "number": Grader(read=_number, grade=_same_number),
        "math": Grader(read=_texts, grade=_same_expression, grading=_math_verify),
        "code": Grader(read=_tests, grade=_passes(limits), grading=lambda: _sandboxed(limits)),
    }
    return ours[name] if name in ours else Grader(read=lambda answer: answer, grade=_users(name))


def _texts(answer: Any) -> tuple[str, ...]:
    """Return the answers that count: one, or those of a list."""
    texts = tuple(str(one).strip() for one in (answer if isinstance(answer, list) else [answer]) if _is_plain(one))
    if not texts or not all(texts) or (isinstance(answer, list) and len(texts) < len(answer)):
        raise ValueError("must be a text or a number, or a list of those, and not empty")
    return texts


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _number(answer: Any) -> Fraction:
    value = numerals.own_answer(str(answer)).value if _is_plain(answer) else None
    if value is None:
        raise ValueError("must be a number, or a text with one")
    return value


def _tests(answer: Any) -> str:
    if not isinstance(answer, str) or not answer.strip():
        raise ValueError("must be Python that fails unless the program before it is right, such as assert f(1) == 2")
    return answer


def _verdict(correct: bool, detail: str, extracted: str | None, path: str) -> Score:
    return Score(correct=correct, detail="" if correct else detail, extracted=extracted, path=path)


def _exact(text: str, texts: Iterable[str], row: Row) -> Score:
    return _verdict(text.strip() in texts, "another text", text.strip(), "whole")


def _contains(text: str, texts: Iterable[str], row: Row) -> Score:
    found = next((one for one in texts if one in text), None)
    return _verdict(found is not None, "does not stand in the text", found, "anywhere")


def _same_number(text: str, value: Fraction, row: Row) -> Score:
    answer = numerals.own_answer(text)
    shown = None if answer.value is None else numerals.written(answer.value)
    return _verdict(answer.value == value, "no number found" if shown is None else "wrong number", shown, answer.path)


def _same_expression(text: str, texts: Iterable[str], row: Row) -> Score:
    boxed = last_boxed(text)
    answer = text.strip() if boxed is None else boxed
    correct = any(latex.equal(answer, one) or VERIFIER.equal(one, answer) for one in texts)
    return _verdict(correct, "another expression", answer, "whole" if boxed is None else "boxed")


def _math_verify() -> Grading:
    found = installed_version()
    if found is None:
        raise ConfigError(
            f"task.grader=math: needs the package math-verify: {INSTALL}; task.grader=number does without"
        )
    return Grading(facts={"math_verify": found})


def _sandboxed(limits: Limits) -> Grading:
    here = sandbox.require(limits.lowest)
    weak = here.tier.value > MINIMUM.value
    warning = f"generated programs ran with nothing but resource limits (sandbox=unsafe): {here}"
    return Grading(facts=here.facts(), warnings=(warning,) if weak else ())


def _passes(limits: Limits) -> Callable[[str, Any, Row], Score]:
    """Return the grader that runs the first fenced block, or the whole text, before the tests of the row."""

    def grade(text: str, tests: str, row: Row) -> Score:
        fenced = blocks(text)[1]
        code = fenced[0] if fenced else text
        bounds = sandbox.Limits(cpu_s=limits.cpu_s, wall_s=limits.wall_s)
        tier = sandbox.require(limits.lowest).tier
        (made,) = sandbox.run_many([f"{code}\n{tests}\n"], limits=bounds, tier=tier)
        if made.status == "sandbox_error":
            raise RuntimeError(f"sandbox: a program could not be run ({made.detail} {made.output_tail})")
        reason = f"{made.status}: {made.detail}" if made.detail else made.status
        return _verdict(made.passed, reason, code, "fence" if fenced else "whole")

    return grade


def _users(name: str) -> Callable[[str, Any, Row], Score]:
    """Return a user's `function(text, answer)`, which may take `row` too, as a grader."""
    function = find_function("task.grader", name)
    try:
        takes_row = "row" in inspect.signature(function).parameters
    except ValueError:
        takes_row = False

    def grade(text: str, answer: Any, row: Row) -> Score:
        try:
            said = function(text, answer, row=row) if takes_row else function(text, answer)
        # Whatever the code of somebody else raises.
        except (Exception, SystemExit) as error:
            raise DataError(f"task.grader={name}: {blame(error)}") from error
        if isinstance(said, Score):
            return said
        if isinstance(said, bool):
            return Score(correct=said)
        if isinstance(said, int | float) and 0 <= said <= 1:
            return Score(correct=said == 1, measures={"score": float(said)})
        raise DataError(f"task.grader={name}: returned {said!r}; return True or False, a share from 0 to 1, or a Score")

    return grade
