"""4x4 sudoku: sets of 108 puzzles with 4 to 12 given cells (Dream, arXiv:2508.15487), and the 500 of the d1 family.

An answer is correct if it keeps the given cells and satisfies every rule. Deviation from the d1 family's score, the
share of empty cells equal to the stored solution: that is kept as `cell_accuracy`, but 124 of its puzzles have more
than one solution, which `solutions` counts.
"""

from pathlib import Path
from typing import ClassVar

from harness.errors import DataError
from tasks import rows
from tasks.asking import Fields, Style
from tasks.boxes import last_tagged
from tasks.puzzles import grids
from tasks.questions import Origin, Problem, QuestionTask, Subject
from tasks.task import Score
from tasks.wording import d1

FOLDER = Path(__file__).parent / "data"

STYLES = {
    "own-1": Style(
        question="Complete the 4x4 grid: replace every 0 so that each row, each column and each 2x2 box holds "
        "1, 2, 3 and 4.\n{lines}\nReply with the four lines of the finished grid alone.",
        answer="{solved_lines}",
    ),
    "own-2": Style(
        question="{lines}\n\nThis is a sudoku of four rows, with 0 for an empty cell. Fill it with the digits 1 to 4, "
        "none of them twice in a row, column or quarter. Write the result in the same form and nothing else.",
        answer="{solved_lines}",
    ),
    "pairs": Style(question="{lines}", answer="{solved_lines}", between="\n\n", joint="\n\n\n"),
    "d1": Style(
        question="Solve the 4x4 sudoku {puzzle}, written row by row with 0 for an empty cell: every row, column and "
        "2x2 box must hold the digits 1 to 4. Put your reasoning between <reasoning> and </reasoning>, then the 16 "
        "digits of the solution between <answer> and </answer>.",
        answer="</reasoning>\n<answer>\n{solution}\n</answer>",
        prefix="<reasoning>",
        between="\n",
        reconstructed=True,
    ),
}


def read_problem(set_name: str, row: rows.Row, number: int) -> Problem:
    """Return row `number` (from 1); raise DataError where the stored solution does not solve the puzzle."""
    names = ("Puzzle", "Solution") if set_name == "d1" else ("input", "output")
    missing = [name for name in names if not isinstance(row.get(name), str)]
    if missing:
        raise DataError(f"field {missing[0]!r} is missing; a row of set {set_name} has {' and '.join(names)}")
    puzzle, solution = (row[name].replace("\n", "") for name in names)
    if not (grids.is_grid(puzzle) and grids.solves(solution, puzzle)):
        raise DataError(f"field {names[1]!r}: {solution!r} does not solve {puzzle!r}; give 16 digits, 0 for empty")
    words = {
        "puzzle": puzzle,
        "solution": solution,
        "lines": grids.lines(puzzle),
        "solved_lines": grids.lines(solution),
    }
    return Problem(id=str(row.get("id", f"sudoku-{set_name}-{number - 1}")), words=words, gold=(puzzle, solution))


def grade_lines(text: str, problem: Problem) -> Score:
    """Grade the four lines of digits; `strict` allows nothing around them."""
    strictly = grids.read_lines(text, strict=True)
    strict = strictly is not None and grids.solves(strictly, problem.gold[0])
    return _score(grids.read_lines(text), "lines", problem, strict=strict)


def grade_tagged(text: str, problem: Problem) -> Score:
    """Grade the sixteen digits inside the last <answer>, or the last ones of the text without one."""
    inside = last_tagged(text, "answer")
    path = "run" if inside is None else "answer_tag"
    return _score(grids.read_run(text if inside is None else inside), path, problem, strict=None)


def _score(answer: grids.Grid | None, path: str, problem: Problem, *, strict: bool | None) -> Score:
    puzzle, solution = problem.gold
    correct = answer is not None and grids.solves(answer, puzzle)
    empty = [i for i in range(grids.CELLS) if puzzle[i] == "0"]
    right = sum(answer is not None and answer[i] == solution[i] for i in empty)
    return Score(
        correct=correct,
        strict=strict,
        detail="" if correct else "no grid found" if answer is None else "breaks a rule or a given cell",
        extracted=answer,
        path=path if answer is not None else "none",
        measures={
            "cell_accuracy": right / len(empty) if empty else float(correct),
            "solutions": float(sum(1 for _ in grids.solutions(puzzle))),
        },
    )


class Sudoku(QuestionTask):
    """4x4 sudoku under a protocol; `set` is the number of given cells, 4 to 12, or d1; see `QuestionTask`."""

    subject: ClassVar[Subject] = Subject(
        folder=FOLDER,
        sets={str(givens): Origin(file=f"sudoku_{givens}.jsonl.gz") for givens in range(4, 13)}
        | {"d1": Origin(file="sudoku_d1.csv.gz")},
        fields={},
        problem=read_problem,
        words=Fields(shown=(("lines", "puzzle"),), solved=("solved_lines", "solution")),
        styles=STYLES,
        wordings={"d1": d1("sudoku.py", fields={"puzzle": "puzzle"})},
        readings={"own": grade_lines, "d1": grade_tagged},
    )
