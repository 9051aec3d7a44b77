"""The list operations, one row each: what an answer is, and which argument chooses among the answers.

An index operation and its random twin share one function. What differs is who picks the place: the prompt
names it, or every place is a valid answer. A shuffle is picked by the lexicographic rank of its permutation.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

Items = tuple[str, ...]
LARGEST_COUNT = 5


class Argument(Enum):
    """Who picks the argument of an operation, and how the prompt states it."""

    NONE = "none"
    INDEX = "index"
    COUNT = "count"
    FREE = "free"


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One list operation.

    `apply(items, word, argument)` is the answer for one argument; `choices(length, max_items)` are the legal
    arguments of a list of `length` items when no list may exceed `max_items`. `recognise(items, answer)`
    decides about an answer where trying every argument would take too long.
    """

    name: str
    apply: Callable[[Items, str, int], Items]
    argument: Argument = Argument.NONE
    choices: Callable[[int, int], range] = lambda length, max_items: range(1)
    takes_word: bool = False
    recognise: Callable[[Items, Items], bool] | None = None

    def longest_list(self, max_items: int) -> int:
        """Return the largest number of input items that has a legal argument under `max_items`."""
        return max_items // 2 if self.argument is Argument.COUNT else max_items


def permute(items: Items, rank: int) -> Items:
    """Return the permutation of `items` with lexicographic `rank`; rank 0 is the given order."""
    left, answer = list(items), []
    for size in range(len(items), 0, -1):
        place, rank = divmod(rank, math.factorial(size - 1))
        answer.append(left.pop(place))
    return tuple(answer)


def _is_shuffle(items: Items, answer: Items) -> bool:
    return answer != items and sorted(answer) == sorted(items)


def _insert(items: Items, word: str, place: int) -> Items:
    return (*items[:place], word, *items[place:])


def _remove(items: Items, word: str, place: int) -> Items:
    return (*items[:place], *items[place + 1 :])


def _replace(items: Items, word: str, place: int) -> Items:
    return (*items[:place], word, *items[place + 1 :])


def _places(length: int, max_items: int) -> range:
    return range(length)


def _gaps(length: int, max_items: int) -> range:
    return range(length + 1)


def _counts(length: int, max_items: int) -> range:
    return range(2, min(LARGEST_COUNT, max_items // length) + 1)


def _ranks(length: int, max_items: int) -> range:
    return range(1, math.factorial(length))


_INDEX, _COUNT, _FREE = Argument.INDEX, Argument.COUNT, Argument.FREE

OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation(name="copy", apply=lambda items, word, argument: items),
        Operation(name="reverse", apply=lambda items, word, argument: items[::-1]),
        Operation(name="sort", apply=lambda items, word, argument: tuple(sorted(items))),
        Operation(
            name="shuffle",
            apply=lambda items, word, rank: permute(items, rank),
            argument=_FREE,
            choices=_ranks,
            recognise=_is_shuffle,
        ),
        Operation(name="replace_index", apply=_replace, argument=_INDEX, choices=_places, takes_word=True),
        Operation(name="replace_random", apply=_replace, argument=_FREE, choices=_places, takes_word=True),
        Operation(name="insert_index", apply=_insert, argument=_INDEX, choices=_gaps, takes_word=True),
        Operation(name="insert_random", apply=_insert, argument=_FREE, choices=_gaps, takes_word=True),
        Operation(name="remove_index", apply=_remove, argument=_INDEX, choices=_places),
        Operation(name="remove_random", apply=_remove, argument=_FREE, choices=_places),
        Operation(
            name="repeat_each",
            apply=lambda items, word, count: tuple(item for item in items for _ in range(count)),
            argument=_COUNT,
            choices=_counts,
        ),
        Operation(
            name="repeat_list",
            apply=lambda items, word, count: items * count,
            argument=_COUNT,
            choices=_counts,
        ),
    )
}
