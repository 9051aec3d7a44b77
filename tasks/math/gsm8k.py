"""GSM8K (Cobbe et al. 2021, arXiv:2110.14168): 1,319 word problems of grade-school arithmetic with whole answers.

The styles `lm_eval*` are the prompts of lm-evaluation-harness 0.4.13 to the letter, worked examples included. The four
worked examples of OpenCompass are training problems with the solutions of the data set. The words of `d1` are our own
around its published format.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from random import Random
from typing import ClassVar

from harness.errors import DataError
from tasks import rows
from tasks.asking import Fields, Style, Words
from tasks.boxes import last_tagged
from tasks.math import numerals
from tasks.math.verifier import installed_version
from tasks.questions import Origin, Problem, QuestionTask, Subject
from tasks.task import Grading, Score
from tasks.wording import d1, dparallel, lm_eval, opencompass

FOLDER = Path(__file__).parent / "data"
TRAIN = "gsm8k_train.jsonl.gz"
FEW_SHOT_SEED = 1234
# The places of its four worked problems in the training set: chapters, basketball, marbles, fruit.
OPENCOMPASS_PLACES = (7364, 1708, 669, 6724)
_ANNOTATION = re.compile(r"<<[^<>]*>>")
_TOLERANCE = 1e-6
_COLUMNS = {"question": "question"}

STYLES = {
    "own-1": Style(
        question="{question}\n\nSolve this step by step and give the final answer as a number in \\boxed{{}}.",
        answer="{solution}\n\\boxed{{{value}}}",
    ),
    "own-2": Style(
        question="Work out the following problem. Write down every step of the calculation, "
        "then the result alone inside \\boxed{{}}.\n\nProblem: {question}",
        answer="{solution}\nThe result is \\boxed{{{value}}}.",
    ),
    "lm_eval": Style(question="Question: {question}\nAnswer:"),
    "lm_eval_cot": Style(question="Q: {question}\nA:", answer="{solution} The answer is {value}."),
    "lm_eval_cot_zeroshot": Style(
        question="Q: {question}\nA: Let's think step by step.", answer="{solution} The answer is {value}."
    ),
    "opencompass": Style(
        question="Question: {question}\nLet's think step by step\nAnswer:",
        answer="{solution}\nThe answer is {value}\n",
        between="\n",
        reconstructed=True,
    ),
    "dparallel": Style(
        question="Question: {question}\nAnswer: Please reason step by step, and put your final answer within "
        "\\boxed{{}}.",
        answer="{solution}\n\\boxed{{{value}}}",
        reconstructed=True,
    ),
    "d1": Style(
        question="Solve the math problem below step by step. Put your reasoning between <reasoning> and </reasoning>, "
        "then the final answer as \\boxed{{}} between <answer> and </answer>.\n\n{question}",
        answer="{solution}\n</reasoning>\n<answer>\n\\boxed{{{value}}}\n</answer>",
        prefix="<reasoning>",
        between="\n",
        reconstructed=True,
    ),
}


def read_problem(set_name: str, row: rows.Row, number: int) -> Problem:
    """Return row `number` (from 1); raise DataError where its solution does not end in `#### ` and a number."""
    steps, marks, end = str(row["answer"]).rpartition("#### ")
    value = end.strip().replace(",", "")
    if not marks or not re.fullmatch(r"-?\d+(\.\d+)?", value):
        raise DataError("field 'answer': must end in '#### ' and a number")
    words = {
        "question": row["question"],
        "answer": row["answer"],
        "solution": _ANNOTATION.sub("", steps).strip(),
        "value": value,
    }
    return Problem(id=str(row.get("id", f"gsm8k-{set_name}-{number - 1}")), words=words, gold=row["answer"])


def training_problems() -> list[Problem]:
    """Return the 7,473 training problems."""
    found = rows.shipped(FOLDER, TRAIN)
    return [read_problem("train", row, number) for number, row in enumerate(found, start=1)]


def lm_eval_shots(asked: Sequence[Problem], count: int) -> Iterator[Sequence[Words]]:
    """Draw fresh training examples for every problem from one running generator, as lm-evaluation-harness does.

    So the examples of a problem depend on its place in the whole set.
    """
    training, rng = training_problems(), Random(FEW_SHOT_SEED)
    for _ in asked:
        yield [problem.words for problem in rng.sample(training, count)]


def opencompass_shots(asked: Sequence[Problem], count: int) -> Iterator[Sequence[Words]]:
    """Show the same problems before every question."""
    training = training_problems()
    shown = [training[place].words for place in OPENCOMPASS_PLACES[:count]]
    return iter([shown] * len(asked))


def grade_own(text: str, problem: Problem) -> Score:
    """Compare the answer as an exact number; the verdicts of lm-evaluation-harness stand beside it."""
    return _score(text, problem, numerals.own_answer(text))


def grade_tagged(text: str, problem: Problem) -> Score:
    """Read as `grade_own` does, inside the last <answer> if there is one and it holds a number."""
    inside = last_tagged(text, "answer")
    if inside is None:
        return grade_own(text, problem)
    answer = numerals.own_answer(inside)
    if answer.value is None and answer.path == "none":
        answer = numerals.own_answer(text)
    return _score(text, problem, replace(answer, path=f"answer_tag:{answer.path}"))


def grade_lm_eval(text: str, problem: Problem, *, chain_of_thought: bool = False) -> Score:
    """Grade as lm-evaluation-harness 0.4.13 does: `correct` is its flexible verdict, `strict` its strict one."""
    answer = numerals.lm_eval_flexible(text)
    strictly = numerals.lm_eval_strict(text, chain_of_thought=chain_of_thought)
    correct = numerals.lm_eval_equal(answer, problem.gold)
    return Score(
        correct=correct,
        strict=numerals.lm_eval_equal(strictly, problem.gold),
        detail=_reason(correct, answer),
        extracted=answer,
        path="flexible" if answer is not None else "none",
    )


def grade_opencompass(text: str, problem: Problem) -> Score:
    """Grade as OpenCompass does: the last number, equal within a millionth."""
    answer = numerals.opencompass_number(text)
    correct = answer is not None and abs(float(answer) - float(problem.words["value"])) < _TOLERANCE
    return Score(
        correct=correct,
        detail=_reason(correct, answer),
        extracted=answer,
        path="last" if answer is not None else "none",
    )


def _score(text: str, problem: Problem, answer: numerals.Answer) -> Score:
    correct = answer.value is not None and answer.value == Fraction(problem.words["value"])
    theirs = grade_lm_eval(text, problem)
    return Score(
        correct=correct,
        strict=theirs.strict,
        detail=_reason(correct, answer.value),
        extracted=None if answer.value is None else numerals.written(answer.value),
        path=answer.path,
        reader=answer.reader,
        measures={"lm_eval_strict": float(bool(theirs.strict)), "lm_eval_flexible": float(bool(theirs.correct))},
    )


def _reason(correct: bool, answer: object) -> str:
    return "" if correct else "no number found" if answer is None else "wrong number"


class Gsm8k(QuestionTask):
    """GSM8K under a protocol; see `QuestionTask` for the settings."""

    subject: ClassVar[Subject] = Subject(
        folder=FOLDER,
        sets={"test": Origin(file="gsm8k_test.jsonl.gz", hub=("openai/gsm8k", "main", "test"))},
        fields={"question": str, "answer": str},
        problem=read_problem,
        words=Fields(shown=(("question",),), solved=("answer", "solution", "value")),
        styles=STYLES,
        wordings={
            "lm_eval": lm_eval("gsm8k", "gsm8k", fields=_COLUMNS),
            "lm_eval_cot": lm_eval("gsm8k", "gsm8k_cot", fields=_COLUMNS),
            "lm_eval_cot_zeroshot": lm_eval("gsm8k", "gsm8k_cot_zeroshot", fields=_COLUMNS),
            "opencompass": opencompass("gsm8k", "gsm8k_gen.py", "gsm8k_gen_1d7fe4.py", fields=_COLUMNS),
            "dparallel": dparallel("tail", before=STYLES["lm_eval"].question, fields={}),
            "d1": d1("gsm8k.py", fields=_COLUMNS, plain="question"),
        },
        readings={
            "own": grade_own,
            "lm_eval": grade_lm_eval,
            "lm_eval_cot": partial(grade_lm_eval, chain_of_thought=True),
            "opencompass": grade_opencompass,
            "d1": grade_tagged,
        },
        shots={"lm_eval": lm_eval_shots, "opencompass": opencompass_shots},
        shot_files={"lm_eval": TRAIN, "opencompass": TRAIN},
    )

    def grading(self) -> Grading:
        """Return the version of math-verify too, which reads what is more than arithmetic, or that it is absent."""
        ours = self.reading in ("own", "d1")
        return super().grading() | Grading(facts={"math_verify": installed_version() or "absent"} if ours else {})
