"""HumanEval (Chen et al. 2021, arXiv:2107.03374): 164 Python functions to be written from signature and docstring.

The styles `lm_eval*` are the prompts of lm-evaluation-harness 0.4.13 to the letter. The words of `opencompass` and
`dparallel` are our own around their published form.
"""

from pathlib import Path
from typing import ClassVar

from harness.errors import DataError
from tasks import rows
from tasks.asking import Fields, Style
from tasks.code.extraction import FENCE, defines, extract_code, parse
from tasks.code.published import fenced, opencompass_humaneval, sanitize
from tasks.code.task import CodeTask, Exam, found
from tasks.questions import Origin, Problem, Subject
from tasks.task import Score
from tasks.wording import dparallel, lm_eval, opencompass

FOLDER = Path(__file__).parent / "data"
_COLUMNS = {"prompt": "header"}
_ANSWER = "```python\n{header}{solution}```"

STYLES = {
    "own-1": Style(
        question="Complete this Python function. Return the complete function, with everything it needs, in one "
        "fenced code block.\n\n```python\n{header}```",
        answer=_ANSWER,
    ),
    "own-2": Style(
        question="Here is the beginning of a Python program:\n\n```python\n{header}```\n\nImplement `{entry_point}` so "
        "that it does what its docstring says. Answer with the full code inside ```python fences.",
        answer=_ANSWER,
    ),
    "lm_eval": Style(question="{header}", answer="{solution}", between=""),
    "lm_eval_instruct": Style(
        question="Write a solution to the following problem and make sure that it passes the tests:\n"
        "```python\n{header}\n```\n",
        prefix="Here is the completed function:\n```python\n{header}\n",
        answer="{solution}```",
        between="",
    ),
    "opencompass": Style(
        question="Complete the code of this Python function:\n{header}", answer=_ANSWER, reconstructed=True
    ),
    "dparallel": Style(
        question="Write the body of this Python function and answer with the whole function in a code block:\n"
        "```python\n{header}\n```\n",
        answer=_ANSWER,
        reconstructed=True,
    ),
}


def read_problem(set_name: str, row: rows.Row, number: int) -> Problem:
    """Return row `number` (from 1); raise DataError for a header that does not define the entry point."""
    header, entry_point = row["prompt"], row["entry_point"]
    tree = parse(header)
    if tree is None or not defines(tree, entry_point):
        raise DataError(f"field 'prompt': must be a Python program that defines {entry_point!r} (field 'entry_point')")
    exam = Exam(entry_point=entry_point, header=header, tests=f"{row['test']}\ncheck({entry_point})")
    words = {"header": header, "entry_point": entry_point, "solution": row["canonical_solution"]}
    return Problem(id=str(row["task_id"]), words=words, gold=exam)


def read_own(text: str, problem: Problem) -> Score:
    """Find the function wherever it stands; it follows the header, whose helpers and imports stay."""
    exam: Exam = problem.gold
    code, path = extract_code(text, exam.entry_point, exam.header)
    return found(code if code is None or path == "body" else f"{exam.header}\n{code}", path)


def read_raw(text: str, problem: Problem) -> Score:
    """Take the text as what follows the header, as lm-evaluation-harness does."""
    return found(problem.gold.header + text, "raw")


def read_before_fence(text: str, problem: Problem) -> Score:
    """Take what stands before the first fence as what follows the header, which the prompt's fence began with."""
    return found(problem.gold.header + text.partition(FENCE)[0], "before_fence")


def read_sanitized(text: str, problem: Problem) -> Score:
    """Clean up header and answer as Dream's evaluation does."""
    return found(sanitize(f"{problem.gold.header}\n{fenced(text)}", problem.gold.entry_point), "sanitize")


def read_opencompass(text: str, problem: Problem) -> Score:
    """Put the first fence, or the text, behind the header, as OpenCompass does."""
    return found(problem.gold.header + opencompass_humaneval(text), "opencompass")


class HumanEval(CodeTask):
    """HumanEval under a protocol; see `CodeTask` and `QuestionTask` for the settings."""

    subject: ClassVar[Subject] = Subject(
        folder=FOLDER,
        sets={"test": Origin(file="humaneval.jsonl.gz", hub=("openai/openai_humaneval", None, "test"))},
        fields={"task_id": str, "prompt": str, "entry_point": str, "canonical_solution": str, "test": str},
        problem=read_problem,
        words=Fields(shown=(("header",),), allowed=("entry_point",), solved=("solution",)),
        styles=STYLES,
        wordings={
            "lm_eval": lm_eval("humaneval", "humaneval", fields=_COLUMNS),
            "lm_eval_instruct": lm_eval("humaneval", "humaneval_instruct", fields=_COLUMNS),
            "opencompass": opencompass("humaneval", "humaneval_gen_8e312c.py", "humaneval_gen.py", fields=_COLUMNS),
            "dparallel": dparallel("start", fields=_COLUMNS),
        },
        readings={
            "own": read_own,
            "raw": read_raw,
            "before_fence": read_before_fence,
            "sanitize": read_sanitized,
            "opencompass": read_opencompass,
        },
    )
