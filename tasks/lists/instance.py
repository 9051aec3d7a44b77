"""One list problem: its data, all of its answers, and the only definition of a correct one."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from harness.errors import DataError
from tasks.lists.operations import LARGEST_COUNT, OPERATIONS, Argument, Items, Operation


@dataclass(frozen=True, kw_only=True)
class ListInstance:
    """Ask for `op` on `items`; `word`, `index` (from 0) and `count` are None where the operation takes none.

    Items are distinct and the word is not among them, so that different arguments give different answers.
    Anything else raises DataError naming the field.
    """

    op: str
    items: Items
    id: str
    split: str
    seed: int
    word: str | None = None
    index: int | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        for field, problem in self._problems():
            raise DataError(f"field {field!r}: {problem}")

    def accepts(self, answer: Sequence[str]) -> bool:
        """Tell whether `answer` is one of the valid answers."""
        answer, recognise = tuple(answer), self._operation.recognise
        return recognise(self.items, answer) if recognise else answer in self.answers()

    def answers(self) -> Iterator[Items]:
        """Yield every valid answer once; `shuffle` has n! - 1 of them."""
        return (self._answer(argument) for argument in self._arguments)

    @property
    def num_answers(self) -> int:
        """The number of valid answers, known without enumerating them."""
        return self._arguments.stop - self._arguments.start

    @property
    def log_n_answers(self) -> float:
        """The entropy in nats of a uniformly chosen valid answer."""
        return math.log(self.num_answers)

    def sample_answer(self, rng: Random) -> Items:
        """Draw one valid answer, each with the same probability."""
        return self._answer(rng.randrange(self._arguments.start, self._arguments.stop))

    @property
    def _operation(self) -> Operation:
        return OPERATIONS[self.op]

    @property
    def _arguments(self) -> range:
        given = self.index if self.index is not None else self.count
        return range(given, given + 1) if given is not None else self._legal_arguments

    @property
    def _legal_arguments(self) -> range:
        return self._operation.choices(len(self.items), LARGEST_COUNT * len(self.items))

    def _answer(self, argument: int) -> Items:
        return self._operation.apply(self.items, self.word or "", argument)

    def _problems(self) -> Iterator[tuple[str, str]]:
        if self.op not in OPERATIONS:
            yield "op", f"{self.op!r} is no list operation; there are {', '.join(OPERATIONS)}"
        if len(self.items) < 2 or len(set(self.items)) < len(self.items):
            yield "items", f"{list(self.items)} must hold at least two items, all different"
        if self._operation.takes_word != (self.word is not None) or self.word in self.items:
            wanted = "a word that is not an item" if self._operation.takes_word else "no word"
            yield "word", f"{self.word!r}, but {self.op} takes {wanted}"
        for kind in (Argument.INDEX, Argument.COUNT):
            given, takes = getattr(self, kind.value), self._operation.argument is kind
            if takes != (given is not None) or (takes and given not in self._legal_arguments):
                legal = self._legal_arguments
                wanted = f"one from {legal.start} to {legal.stop - 1}" if takes else "none"
                yield kind.value, f"{given!r}, but {self.op} of {len(self.items)} items takes {wanted}"


@dataclass(frozen=True, kw_only=True)
class Example:
    """A solved problem that is shown before the question."""

    instance: ListInstance
    answer: Items
