"""The puzzles of ParallelBench (arXiv:2510.04767), regenerated bit for bit: Latin squares and nearly full sudoku.

Latin squares of the set are cyclic squares with rows and columns permuted; any of the 576 squares over the symbols is
a right answer. Deviation from the published grader: a row of a Latin square must have four cells exactly, where the
published one passes `A,B,C,D,A` (`compat` brings that back).
"""

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from tasks import rows, settings
from tasks.asking import Fields, Style, Turns, check, pose
from tasks.lists.alphabets import DATA
from tasks.lists.parity import facts
from tasks.puzzles import grids
from tasks.puzzles.sudoku import FOLDER
from tasks.task import Encoder, Grading, Sample, Score

ORDER = 4
LATIN, SUDOKU = PUZZLES = ("latin_square_n4", "sudoku_n4_12")
_NUM_SQUARES = 100
_POOL = string.ascii_uppercase + string.digits

STYLES = {
    LATIN: {
        "own-1": Style(
            question="Write a Latin square of size {size} over the symbols {symbols}: four lines, cells separated by "
            "commas, nothing else."
        ),
        "own-2": Style(
            question="Arrange the symbols {symbols} in {size} rows of {size}, so that none of them stands twice in a "
            "row or in a column. Reply with the rows alone, one per line, with a comma between neighbours."
        ),
    },
    SUDOKU: {
        "own-1": Style(
            question="Complete the 4x4 grid: replace every 0 so that each row, each column and each 2x2 box holds "
            "1, 2, 3 and 4.\nInput:\n{sudoku}\nOutput:\n"
        ),
        "own-2": Style(
            question="{sudoku}\n\nThis is a sudoku of four rows, with 0 for an empty cell. Fill it with the digits 1 "
            "to 4, none of them twice in a row, column or quarter. Write the result in the same form and nothing else."
        ),
    },
}
check(STYLES[LATIN], Fields(shown=(("symbols",), ("size",)), solved=("answer",)))
check(STYLES[SUDOKU], Fields(shown=(("sudoku",),), solved=("answer",)))


@dataclass(frozen=True, kw_only=True)
class Puzzle:
    """One puzzle: the fields of its prompt, and an answer; of a Latin square also its symbols."""

    words: dict[str, str]
    answer: str
    symbols: tuple[str, ...] = ()


@cache
def puzzles(name: str) -> tuple[tuple[Puzzle, Puzzle], ...]:
    """Return the puzzles of a set in order, each with its worked example."""
    if name == LATIN:
        drawn = _draw_squares(facts()[f"puzzle/{name}"]["seed"])
        return tuple(zip(drawn[:_NUM_SQUARES], drawn[_NUM_SQUARES:], strict=True))
    known = [
        Puzzle(words={"sudoku": row["input"]}, answer=row["output"])
        for row in rows.shipped(FOLDER, "sudoku_12.jsonl.gz")
    ]
    shown = facts()[f"puzzle/{name}"]["icl_row_index"]
    return tuple((puzzle, known[place]) for puzzle, place in zip(known, shown, strict=True))


def row_of(name: str, puzzle: Puzzle, example: Puzzle | None = None) -> dict[str, Any]:
    """Return a puzzle in the row schema of the published files."""
    latin = name == LATIN
    asked: dict[str, Any] = {"size": ORDER, "symbols": puzzle.words["symbols"]} if latin else dict(puzzle.words)
    answer = {"symbols": list(puzzle.symbols), "example": puzzle.answer} if latin else puzzle.answer
    row: dict[str, Any] = {"input": asked, "answer": answer}
    if latin or example is not None:
        row["metadata"] = {"length": ORDER if latin else 12}
    if example is not None:
        asked["icl_examples"] = [row_of(name, example)]
    return row


def is_latin(text: str, symbols: Sequence[str], *, compat: bool = False) -> bool:
    """Tell whether the first four lines that hold every symbol and no other form a Latin square.

    Other lines are passed over. With `compat` such a line may repeat symbols behind its first four cells, which counts
    as a column where all four lines do.
    """
    wanted = set(symbols)
    lines = [[cell.strip() for cell in line.split(",")] for line in text.split("\n")]
    square = [cells for cells in lines if set(cells) == wanted and (compat or len(cells) == ORDER)][:ORDER]
    return len(square) == ORDER and all(set(column) == wanted for column in zip(*square, strict=not compat))


@dataclass(frozen=True, kw_only=True)
class ParallelPuzzle:
    """A puzzle set of ParallelBench as its chat models read it, with `examples` worked examples (0 or 1).

    `template` is one of two wordings of our own; `compat` grades as published. Raises ConfigError.
    """

    name: str
    puzzle: str
    summary: str = ""
    template: str = "own-1"
    examples: int = 1
    samples: int | None = None
    compat: bool = False
    gen_length: int = 64

    def __post_init__(self) -> None:
        settings.refuse(self, self._problems())

    @property
    def templates(self) -> tuple[str, ...]:
        """The wordings that exist."""
        return tuple(STYLES[self.puzzle])

    def sources(self) -> list[Path]:
        """Return the published grids, where there are some, and the facts from which the others are drawn."""
        grids_of = [FOLDER / "sudoku_12.jsonl.gz"] if self.puzzle != LATIN else []
        return [*grids_of, DATA / "parity.json"]

    def instances(self) -> list[Sample]:
        """Return the samples in the published order."""
        style = STYLES[self.puzzle][self.template]
        found = []
        for number, (puzzle, example) in enumerate(puzzles(self.puzzle)[: self.samples]):
            shown = [example.words | {"answer": example.answer}] * self.examples
            prompt = pose(style, Turns.MANY, [style.worked(words) for words in shown], puzzle.words)
            found.append(Sample(id=f"{self.puzzle}/{number}", prompt=prompt, instance=puzzle))
        return found

    def score(self, sample: Sample, text: str) -> Score:
        """Grade an answer: any Latin square over the symbols, or the one solution of the sudoku."""
        if self.puzzle == LATIN:
            correct = is_latin(text, sample.instance.symbols, compat=self.compat)
            return Score(correct=correct, detail="" if correct else "no Latin square")
        wanted, read = sample.instance.answer.replace("\n", ""), grids.read_lines(text)
        return Score(
            correct=read == wanted,
            strict=grids.read_lines(text, strict=True) == wanted,
            detail="" if read == wanted else "no grid found" if read is None else "wrong grid",
            extracted=read,
        )

    def grading(self) -> Grading:
        """Return nothing: verdicts rest on the texts alone."""
        return Grading()

    def max_target_tokens(self, tokenizer: Encoder) -> int:
        """Return the tokens of the longest answer, end token included."""
        return 1 + max(len(tokenizer.encode(sample.instance.answer)) for sample in self.instances())

    def _problems(self) -> Iterator[tuple[str, str]]:
        yield from settings.unknown(self, {"puzzle": PUZZLES})
        yield from settings.unknown(self, {"template": STYLES[self.puzzle]})
        if self.examples not in (0, 1):
            yield "examples", "must be 0 or 1: every puzzle has one worked example"
        yield from settings.below_one(self, "gen_length")
        if self.samples is not None and not 1 <= self.samples <= len(puzzles(self.puzzle)):
            yield "samples", f"must be from 1 to {len(puzzles(self.puzzle))}"


def _draw_squares(seed: int) -> list[Puzzle]:
    """Draw the squares of the set, then as many worked examples, from one generator."""
    rng, drawn = Random(seed), []
    for _ in range(2 * _NUM_SQUARES):
        symbols = rng.sample(_POOL, ORDER)
        square = [symbols[shift:] + symbols[:shift] for shift in range(ORDER)]
        rng.shuffle(square)
        columns = list(zip(*square, strict=True))
        rng.shuffle(columns)
        answer = "\n".join(",".join(cells) for cells in zip(*columns, strict=True))
        words = {"size": str(ORDER), "symbols": f"[{', '.join(symbols)}]"}
        drawn.append(Puzzle(words=words, answer=answer, symbols=tuple(symbols)))
    return drawn
