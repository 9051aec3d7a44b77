"""4x4 sudoku grids: rules, reading and the number of solutions."""

import itertools
import re
from collections.abc import Iterator

SIZE = 4
CELLS = SIZE * SIZE
_ALL = set("1234")
Grid = str
"""Sixteen digits, row by row; 0 is an empty cell."""

_ROWS = [[SIZE * r + c for c in range(SIZE)] for r in range(SIZE)]
_COLUMNS = [[SIZE * r + c for r in range(SIZE)] for c in range(SIZE)]
_BOXES = [[SIZE * (2 * R + r) + 2 * C + c for r in (0, 1) for c in (0, 1)] for R in (0, 1) for C in (0, 1)]
UNITS = [*_ROWS, *_COLUMNS, *_BOXES]


def lines(grid: Grid) -> str:
    """Return a grid as four lines."""
    return "\n".join(grid[i : i + SIZE] for i in range(0, CELLS, SIZE))


def is_grid(text: str) -> bool:
    """Tell whether a text is sixteen digits from 0 to 4."""
    return re.fullmatch(r"[0-4]{16}", text) is not None


def solves(answer: Grid, puzzle: Grid) -> bool:
    """Tell whether `answer` is filled by the rules and keeps what is given."""
    if len(answer) != CELLS or any(given not in ("0", cell) for given, cell in zip(puzzle, answer, strict=True)):
        return False
    return all({answer[i] for i in unit} == _ALL for unit in UNITS)


def solutions(puzzle: Grid) -> Iterator[Grid]:
    """Yield every solution."""
    place = puzzle.find("0")
    if place < 0:
        if solves(puzzle, puzzle):
            yield puzzle
        return
    taken = {puzzle[i] for unit in UNITS if place in unit for i in unit}
    for digit in sorted(_ALL - taken):
        yield from solutions(puzzle[:place] + digit + puzzle[place + 1 :])


def read_lines(text: str, *, strict: bool = False) -> Grid | None:
    """Return the grid of the lines with exactly four digits, if there are exactly four; None otherwise.

    Lenient reading takes the digits of a line wherever they stand in it (`1|3|4|2`, `- 1342`) and passes over lines
    with more or fewer; strict reading allows nothing but the digits, blank lines and blanks around a line.
    """
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if strict and (len(lines) != SIZE or not all(len(line) == SIZE and line.isdecimal() for line in lines)):
        return None
    digits = [[str(int(digit)) for digit in re.findall(r"\d", line)] for line in lines]
    rows = [row for row in digits if len(row) == SIZE]
    return "".join(itertools.chain.from_iterable(rows)) if len(rows) == SIZE else None


def read_run(text: str) -> Grid | None:
    """Return the last sixteen digits that stand together, or with blanks and line ends between them."""
    found = re.findall(r"(?<!\d)\d(?:[ \n,|]*\d){15}(?!\d)", text)
    return re.sub(r"\D", "", found[-1]) if found else None
