"""Endless training rows of word problems, written as `FsmWord` with renderer tiny writes them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from harness.errors import FieldError
from tasks.lists.splits import split_of
from tasks.serial.fsm_word import LONGEST_TINY, SYMBOLS
from tasks.serial.groups import GROUPS, numbering


@dataclass(frozen=True, kw_only=True)
class Words:
    """A share of every batch given to words of `length` moves of `group`, the state written after every move."""

    group: str
    length: int
    share: float

    def __post_init__(self) -> None:
        one_symbol = [name for name in GROUPS if len(numbering(name)) <= len(SYMBOLS)]
        if self.group not in one_symbol:
            raise FieldError("group", self.group, f"be one of {', '.join(one_symbol)}, whose states are one symbol")
        if not 8 <= self.length <= LONGEST_TINY:
            raise FieldError("length", self.length, f"lie in [8, {LONGEST_TINY}]")
        if not 0 <= self.share <= 1:
            raise FieldError("share", self.share, "lie in [0, 1]")

    def write(self, rng: np.random.Generator, ids: Mapping[str, int], row_T: np.ndarray) -> None:
        """Fill one row of at least `2 * length + 7` ids; words of the validation and test splits are drawn again."""
        while True:
            letters = ["AB"[move] for move in rng.integers(2, size=self.length)]
            if split_of(letters) == "train":
                break
        states = [SYMBOLS[numbering(self.group)[state]] for state in GROUPS[self.group].run("".join(letters))]
        header = ["<bos>", "fsm_word", f"#{self.length - 1}", "<none>", "<arg>"]
        symbols = [*header, *letters, "<sep>", *states]
        row_T[:] = ids["<eos>"]
        row_T[: len(symbols)] = [ids[symbol] for symbol in symbols]


def mixed(lists: Iterator[np.ndarray], words: Words, ids: Mapping[str, int], seed: int) -> Iterator[np.ndarray]:
    """Yield the batches of `lists`, the first rows of each replaced by words, reproducibly from `seed`."""
    rng = np.random.default_rng(seed)
    for rows_BT in lists:
        for row_T in rows_BT[: round(words.share * len(rows_BT))]:
            words.write(rng, ids, row_T)
        yield rows_BT
