"""MBPP (Austin et al. 2021, arXiv:2108.07732): short Python functions from a sentence and three tests.

Set `test` is the 500 problems 11 to 510, `sanitized` those 257 of them that the authors revised by hand. The styles
`lm_eval*` are the prompts of lm-evaluation-harness 0.4.13 to the letter, but for the beginning of the answer of
`lm_eval_instruct`, which is that of the copy in Dream's evaluation. The words of `opencompass` are our own around its
published form. Published evaluations ignore `test_setup_code`, without which problem 367 has no right answer.
"""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from harness.errors import DataError
from tasks import rows
from tasks.asking import Fields, Style, Words
from tasks.code.extraction import defines, extract_code, parse
from tasks.code.published import fenced, opencompass_mbpp, sanitize
from tasks.code.task import CodeTask, Exam, found
from tasks.questions import Origin, Problem, Subject
from tasks.task import Score
from tasks.wording import lm_eval, opencompass

FOLDER = Path(__file__).parent / "data"
EVERY = "mbpp.jsonl.gz"
TESTED = range(11, 511)
WORKED = (2, 3, 4)
"""The problems that lm-evaluation-harness and OpenCompass show with their solutions."""
_TESTS_SHOWN = 3
_COLUMNS = {"text": "text", "test_list": "tests"}
_HUB = "google-research-datasets/mbpp"

STYLES = {
    "own-1": Style(
        question="{text}\n\nThe code must pass these tests:\n\n```python\n{tests}\n```\n\nAnswer with Python code in "
        "one fenced code block.",
        answer="```python\n{solution}\n```",
    ),
    "own-2": Style(
        question="Programming task for Python: {text}\nUse the names that appear in these assertions, all of which "
        "have to hold:\n\n{tests}\n\nWrite the solution, without tests, inside ```python fences.",
        answer="```python\n{solution}\n```",
    ),
    "lm_eval": Style(
        question="You are an expert Python programmer, and here is your task: {text} Your code should pass these "
        "tests:\n\n{tests}\n[BEGIN]\n",
        answer="{code}\n[DONE]",
        between="",
    ),
    "lm_eval_instruct": Style(
        question="You are an expert Python programmer, and here is your task:\n{text}\nYour code should pass these "
        "tests:\n{tests}",
        answer="{code}\n```",
        prefix="Here is the completed function:\n```python\n",
        between="",
    ),
    "opencompass": Style(
        question="You are an expert in Python. The task: {text} The code must pass these tests:\n\n{tests}\n",
        answer="[BEGIN]\n '{code}' \n[DONE] \n\n ",
        closed="[BEGIN]\n",
        between="",
        reconstructed=True,
    ),
}


def read_problem(set_name: str, row: rows.Row, number: int) -> Problem:
    """Return row `number` (from 1) of the full or the sanitized form; raise DataError for a field that is missing."""
    text, tests = row.get("text", row.get("prompt")), row["test_list"]
    if not isinstance(text, str):
        raise DataError("field 'text' (or 'prompt'): must be the task in words")
    if not tests or not all(isinstance(test, str) for test in tests):
        raise DataError("field 'test_list': must hold at least one assert statement")
    entry_point = _entry_point(row["code"], tests[0])
    exam = Exam(
        entry_point=entry_point,
        tests="\n".join([*row.get("test_imports", []), *tests]),
        setup=str(row.get("test_setup_code", "")),
    )
    words = {
        "text": text,
        "tests": "\n".join(tests[:_TESTS_SHOWN]),
        "code": row["code"],
        "solution": row["code"].replace("\r\n", "\n"),
        "entry_point": entry_point,
    }
    return Problem(id=f"mbpp/{row['task_id']}", words=words, gold=exam)


def worked_problems(asked: Sequence[Problem], count: int) -> Iterator[Sequence[Words]]:
    """Show the same solved problems before every question."""
    every = {row["task_id"]: row for row in rows.shipped(FOLDER, EVERY)}
    shown = [read_problem("test", every[number], number).words for number in WORKED[:count]]
    return iter([shown] * len(asked))


def read_own(text: str, problem: Problem) -> Score:
    """Find the function wherever it stands."""
    return found(*extract_code(text, problem.gold.entry_point))


def read_raw(text: str, problem: Problem) -> Score:
    """Take the text as the program, as lm-evaluation-harness does."""
    return found(text, "raw")


def read_fence_sanitized(text: str, problem: Problem) -> Score:
    """Clean up the first Python fence as dParallel does, without an entry point."""
    return found(sanitize(fenced(text)), "fence_sanitize")


def read_opencompass(text: str, problem: Problem) -> Score:
    """Read the marks and fences as OpenCompass does."""
    return found(opencompass_mbpp(text), "opencompass")


def _tested(row: rows.Row) -> bool:
    return row["task_id"] in TESTED


def _entry_point(code: str, test: str) -> str:
    """Return the outermost name that the first test calls and the reference solution defines."""
    solution, asked = parse(code), parse(test)
    if solution is None or asked is None:
        raise DataError("field 'code' or 'test_list': not Python")
    for node in ast.walk(asked):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and defines(solution, node.func.id):
            return node.func.id
    raise DataError("field 'test_list': the first test must call a function that 'code' defines")


class Mbpp(CodeTask):
    """MBPP under a protocol; see `CodeTask` and `QuestionTask` for the settings."""

    subject: ClassVar[Subject] = Subject(
        folder=FOLDER,
        sets={
            "test": Origin(file=EVERY, keep=_tested, hub=(_HUB, "full", "test")),
            "sanitized": Origin(file="mbpp_sanitized.jsonl.gz", keep=_tested, hub=(_HUB, "sanitized", "test")),
        },
        fields={"task_id": int, "code": str, "test_list": list},
        problem=read_problem,
        words=Fields(shown=(("text",), ("tests",)), allowed=("entry_point",), solved=("code", "solution")),
        styles=STYLES,
        wordings={
            "lm_eval": lm_eval("mbpp", "mbpp", fields=_COLUMNS),
            "lm_eval_instruct": lm_eval("mbpp", "mbpp_instruct", fields=_COLUMNS),
            "opencompass": opencompass("mbpp", "mbpp_gen.py", "mbpp_gen_830460.py", fields=_COLUMNS),
        },
        readings={
            "own": read_own,
            "raw": read_raw,
            "fence_sanitize": read_fence_sanitized,
            "opencompass": read_opencompass,
        },
        shots={"lm_eval": worked_problems, "opencompass": worked_problems},
        shot_files={"lm_eval": EVERY, "opencompass": EVERY},
    )
