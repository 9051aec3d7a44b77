r"""MATH-500: 500 competition problems (Hendrycks et al. 2021, arXiv:2103.03874; selection of Lightman et al. 2023).

The answer is what the last \boxed{} holds. It is correct if its text equals the reference after undoing differences
of writing, or if math-verify takes the two for equal expressions; both verdicts are kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from harness.errors import DataError
from tasks import rows, settings
from tasks.asking import Fields, Style
from tasks.boxes import last_boxed, last_tagged
from tasks.math import latex
from tasks.math.verifier import VERIFIER, require
from tasks.questions import Origin, Problem, QuestionTask, Subject
from tasks.task import Grading, Sample, Score
from tasks.wording import d1

FOLDER = Path(__file__).parent / "data"
GRADERS = ("math_verify", "text")

STYLES = {
    "own-1": Style(
        question="{problem}\n\nSolve this step by step and give the final answer in \\boxed{{}}.", answer="{solution}"
    ),
    "own-2": Style(
        question="Here is a mathematical problem. Derive its answer, explain every step, and end with the answer "
        "inside \\boxed{{}}.\n\nProblem: {problem}",
        answer="{solution}",
    ),
    "minerva": Style(question="Problem:\n{problem}\n\nSolution:", answer="{solution}"),
    "d1": Style(
        question="Solve the math problem below step by step. Put your reasoning between <reasoning> and </reasoning>, "
        "then the final answer as \\boxed{{}} between <answer> and </answer>.\n\n{problem}",
        answer="{solution}\n</reasoning>\n<answer>\n\\boxed{{{answer}}}\n</answer>",
        prefix="<reasoning>",
        between="\n",
        reconstructed=True,
    ),
}


def read_problem(set_name: str, row: rows.Row, number: int) -> Problem:
    """Return row `number` (from 1); raise DataError for an empty answer."""
    if not row["answer"].strip():
        raise DataError("field 'answer': is empty; give the reference answer in LaTeX")
    words = {name: row[name] for name in ("problem", "solution", "answer")}
    return Problem(id=str(row.get("unique_id", f"math-{set_name}-{number - 1}")), words=words, gold=row["answer"])


def read_boxed(text: str, problem: Problem) -> Score:
    """Return the verdict by text on the last boxed answer."""
    return _by_text(last_boxed(text), "boxed", problem)


def read_tagged(text: str, problem: Problem) -> Score:
    """Return the verdict by text on the boxed answer, or all there is, inside the last <answer>."""
    inside = last_tagged(text, "answer")
    if inside is None:
        return read_boxed(text, problem)
    boxed = last_boxed(inside)
    return _by_text(inside.strip() if boxed is None else boxed, "answer_tag" if boxed is None else "boxed", problem)


def _by_text(answer: str | None, path: str, problem: Problem) -> Score:
    correct = answer is not None and latex.equal(answer, problem.gold)
    return Score(
        correct=correct,
        detail="" if correct else "no answer found" if answer is None else "wrong answer",
        extracted=answer,
        path=path if answer is not None else "none",
        measures={"text": float(correct)},
    )


@dataclass(frozen=True, kw_only=True)
class Math500(QuestionTask):
    """MATH-500 under a protocol; `grader` math_verify (an extra) asks for symbolic equality too, text does not."""

    grader: str = "math_verify"

    subject: ClassVar[Subject] = Subject(
        folder=FOLDER,
        sets={"test": Origin(file="math500.jsonl.gz", hub=("HuggingFaceH4/MATH-500", None, "test"))},
        fields={"problem": str, "solution": str, "answer": str},
        problem=read_problem,
        words=Fields(shown=(("problem",),), solved=("solution", "answer")),
        styles=STYLES,
        wordings={"d1": d1("math500.py", fields={"question": "problem"}, plain="problem")},
        readings={"own": read_boxed, "d1": read_tagged},
    )

    def grading(self) -> Grading:
        """Return the version of the grader; raise ConfigError before anything is decoded if it is not installed."""
        return super().grading() | Grading(facts={"math_verify": require()} if self.grader == "math_verify" else {})

    def score(self, sample: Sample, text: str) -> Score:
        """Grade by text, and symbolically where that is asked for; `strict` is the verdict by text."""
        found = super().score(sample, text)
        if self.grader == "text":
            return found
        equal = found.correct if found.extracted is None else VERIFIER.equal(sample.instance.gold, found.extracted)
        correct = found.correct or bool(equal)
        detail = "math-verify ran out of time" if equal is None else found.detail
        return Score(
            correct=correct,
            strict=found.correct,
            detail="" if correct else detail,
            extracted=found.extracted,
            path=found.path,
            measures={**found.measures, "math_verify": float(bool(equal))},
        )

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from super()._problems()
        yield from settings.unknown(self, {"grader": GRADERS})
