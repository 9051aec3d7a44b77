"""Endless training batches of the list operations, sampled with numpy: uniform operation, length and valid answer.

Symbols are integers: 0 to 51 are the items A-Z, a-z in code-point order (so sorting numbers sorts items).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from harness.errors import FieldError
from tasks.lists.splits import split_of

LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_ABSENT = -1


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One training pair; `index` and `word` are -1 where the operation takes none."""

    operation: str
    items: np.ndarray
    index: int
    word: int
    answer: np.ndarray


def _shuffle(rng: np.random.Generator, x: np.ndarray, index: int, word: int) -> np.ndarray:
    while True:
        y = rng.permutation(x)
        if not np.array_equal(x, y):
            return y


def _replace(rng: np.random.Generator, x: np.ndarray, index: int, word: int) -> np.ndarray:
    place = rng.integers(len(x)) if index == _ABSENT else index
    return np.concatenate([x[:place], [word], x[place + 1 :]])


def _insert(rng: np.random.Generator, x: np.ndarray, index: int, word: int) -> np.ndarray:
    place = rng.integers(len(x) + 1) if index == _ABSENT else index
    return np.concatenate([x[:place], [word], x[place:]])


def _remove(rng: np.random.Generator, x: np.ndarray, index: int, word: int) -> np.ndarray:
    place = rng.integers(len(x)) if index == _ABSENT else index
    return np.delete(x, place)


_Answer = Callable[[np.random.Generator, np.ndarray, int, int], np.ndarray]
_ANSWERS: dict[str, _Answer] = {
    "copy": lambda rng, x, index, word: x,
    "reverse": lambda rng, x, index, word: x[::-1],
    "sort": lambda rng, x, index, word: np.sort(x),
    "shuffle": _shuffle,
    "replace_index": _replace,
    "replace_random": _replace,
    "insert_index": _insert,
    "insert_random": _insert,
    "remove_index": _remove,
    "remove_random": _remove,
    "repeat_each": lambda rng, x, index, word: np.repeat(x, index),
    "repeat_list": lambda rng, x, index, word: np.tile(x, index),
}
OPERATIONS = tuple(_ANSWERS)


def _argument(rng: np.random.Generator, operation: str, length: int, max_items: int) -> int:
    if operation.startswith("repeat"):
        return int(rng.integers(2, min(5, max_items // length) + 1))
    if operation == "insert_index":
        return int(rng.integers(length + 1))
    return int(rng.integers(length)) if operation.endswith("index") else _ABSENT


def draw(
    rng: np.random.Generator, operation: str, min_items: int, max_items: int, longest_list: int | None = None
) -> Draw:
    """Sample one training pair of `operation`; lists of the validation and test splits are drawn again."""
    longest = max_items // 2 if operation.startswith("repeat") else max_items
    longest = min(longest, longest_list or longest)
    length = int(rng.integers(min_items, longest + 1))
    while True:
        symbols = rng.choice(len(LETTERS), size=length + 1, replace=False)
        items, word = symbols[:-1], int(symbols[-1])
        if split_of([LETTERS[i] for i in items]) == "train":
            break
    takes_word = operation.startswith(("insert", "replace"))
    index = _argument(rng, operation, length, max_items)
    answer = _ANSWERS[operation](rng, items, index, word)
    return Draw(operation=operation, items=items, index=index, word=word if takes_word else _ABSENT, answer=answer)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the symbols of a pair stand (fixed header width), and which ids they have.

    `<bos> OP IDX WORD <arg> x_0 .. x_{n-1} <pad>*(max_items-n) <sep>`, then `y_0 .. y_{m-1} <eos> <eos> ..`
    Lists have at most `longest_list` items, `max_items` if that is None.
    """

    ids: dict[str, int]
    max_items: int
    answer_length: int
    longest_list: int | None = None

    @property
    def prompt_length(self) -> int:
        return self.max_items + 6

    def write(self, pair: Draw, row_T: np.ndarray) -> None:
        """Fill one row of `prompt_length + answer_length` ids."""
        ids, first_item = self.ids, self.ids["A"]
        row_T[: self.prompt_length] = ids["<pad>"]
        row_T[self.prompt_length :] = ids["<eos>"]
        row_T[0] = ids["<bos>"]
        row_T[1] = ids[pair.operation]
        row_T[2] = ids["<none>"] if pair.index == _ABSENT else ids["#0"] + pair.index
        row_T[3] = ids["<none>"] if pair.word == _ABSENT else first_item + pair.word
        row_T[4] = ids["<arg>"]
        row_T[5 : 5 + len(pair.items)] = first_item + pair.items
        row_T[self.prompt_length - 1] = ids["<sep>"]
        row_T[self.prompt_length : self.prompt_length + len(pair.answer)] = first_item + pair.answer


@dataclass(frozen=True, kw_only=True)
class Focus:
    """A share of the rows given to one operation on lists of at most `max_items`, beyond its equal part.

    What few of the equally likely pairs show is learned last: that a shuffled list of three must not end as it began.
    """

    operation: str
    max_items: int
    share: float

    def __post_init__(self) -> None:
        if self.operation not in OPERATIONS:
            raise FieldError("operation", self.operation, f"be one of {', '.join(OPERATIONS)}")
        if not 0 <= self.share <= 1:
            raise FieldError("share", self.share, "lie in [0, 1]")


def batches(
    *,
    layout: Layout,
    rows: int,
    seed: int,
    min_items: int = 3,
    operations: tuple[str, ...] = OPERATIONS,
    focus: Focus | None = None,
) -> Iterator[np.ndarray]:
    """Yield arrays [rows, prompt + answer] of ids for ever, reproducibly from `seed`."""
    rng = np.random.default_rng(seed)
    focused = 0 if focus is None else round(focus.share * rows)
    while True:
        rows_BT = np.empty((rows, layout.prompt_length + layout.answer_length), dtype=np.int64)
        for row, choice in enumerate(rng.integers(len(operations), size=rows)):
            operation, longest = operations[choice], layout.max_items
            if focus is not None and row < focused:
                operation, longest = focus.operation, focus.max_items
            layout.write(draw(rng, operation, min_items, longest, layout.longest_list), rows_BT[row])
        yield rows_BT
