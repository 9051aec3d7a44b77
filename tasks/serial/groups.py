"""Groups whose words are multiplied one move after the other: rows that are rearranged, counters that run round.

Over S5 and A5, which are not solvable, the product of a word is complete for NC1; over S3, C60 and parity it is not.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial

State = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Move:
    """A generator: what it does in words, and to a state."""

    words: str
    apply: Callable[[State], State]


@dataclass(frozen=True, kw_only=True)
class Group:
    """A group given by generators; `A` and `B` are the letters of words, `start` is the identity.

    `write` is the text of a state and `pattern` the regular expression of such texts.
    """

    name: str
    start: State
    moves: Mapping[str, Move]
    pattern: str
    write: Callable[[State], str]
    title: str

    def run(self, word: str) -> list[State]:
        """Return the state after each letter of `word`."""
        states = [self.start]
        for letter in word:
            states.append(self.moves[letter].apply(states[-1]))
        return states[1:]


@cache
def numbering(name: str) -> Mapping[State, int]:
    """Return a number for every state, in the order in which a search from the identity finds them."""
    group = GROUPS[name]
    found, queue = {group.start: 0}, [group.start]
    for state in queue:
        for move in group.moves.values():
            after = move.apply(state)
            if after not in found:
                found[after] = len(found)
                queue.append(after)
    return found


def _swap(state: State) -> State:
    return (state[1], state[0], *state[2:])


def _rotate(length: int, state: State) -> State:
    return (*state[1:length], state[0], *state[length:])


def _add(step: int, modulus: int, state: State) -> State:
    return ((state[0] + step) % modulus,)


def _rows(name: str, size: int, moves: dict[str, Move]) -> Group:
    return Group(
        name=name,
        start=tuple(range(1, size + 1)),
        moves=moves,
        pattern=rf"(?<!\d)[1-{size}]{{{size}}}(?!\d)",
        write=lambda state: "".join(map(str, state)),
        title="row",
    )


def _counter(name: str, modulus: int, steps: tuple[int, int]) -> Group:
    words = [f"add {step} and go on from 0 after {modulus - 1}" if step else "leave the number" for step in steps]
    moves = {
        letter: Move(words=text, apply=partial(_add, step, modulus))
        for letter, text, step in zip("AB", words, steps, strict=True)
    }
    pattern = r"(?<!\d)\d{1,2}(?!\d)"
    return Group(name=name, start=(0,), moves=moves, pattern=pattern, write=lambda state: str(state[0]), title="number")


_SWAP = Move(words="exchange the first two digits", apply=_swap)
_TURN_3 = Move(words="move the first digit behind the third", apply=partial(_rotate, 3))
_TURN_5 = Move(words="move the first digit to the end", apply=partial(_rotate, 5))

GROUPS: Mapping[str, Group] = {
    group.name: group
    for group in (
        _rows("s5", 5, {"A": _SWAP, "B": _TURN_5}),
        _rows("a5", 5, {"A": _TURN_3, "B": _TURN_5}),
        _rows("s3", 3, {"A": _SWAP, "B": _TURN_3}),
        _counter("c60", 60, (1, 7)),
        _counter("parity", 2, (0, 1)),
    )
}
