"""4x4 sudoku grids: rules, reading and the number of solutions."""

import re
from collections.abc import Iterator, Sequence

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

    Lenient reading drops blanks and commas and passes over other lines; strict reading allows nothing but the lines.
    """
    found = text.strip().split("\n") if strict else [re.sub(r"[ ,\t\r]", "", line) for line in text.split("\n")]
    kept: Sequence[str] = found if strict else [line for line in found if re.fullmatch(r"[0-9]{4}", line)]
    fits = len(kept) == SIZE and all(re.fullmatch(r"[0-9]{4}", line) for line in kept)
    return "".join(kept) if fits else None


def read_run(text: str) -> Grid | None:
    """Return the last sixteen digits that stand together, or with blanks and line ends between them."""
    found = re.findall(r"(?<!\d)\d(?:[ \n,|]*\d){15}(?!\d)", text)
    return re.sub(r"\D", "", found[-1]) if found else None
