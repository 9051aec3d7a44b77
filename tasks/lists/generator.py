"""Draw list instances: each from its own random stream, so that subsets and parallel workers agree."""

import hashlib
from collections.abc import Sequence
from random import Random

from tasks.lists.alphabets import ALPHABETS
from tasks.lists.instance import ListInstance
from tasks.lists.operations import OPERATIONS, Argument, Items
from tasks.lists.splits import split_of


def instance(
    op: str,
    n: int,
    split: str,
    seed: int,
    index: int,
    alphabet: str = "letters",
    max_items: int = 10,
) -> ListInstance:
    """Return instance number `index` of `op` on `n` items: a pure function of its arguments.

    `max_items` bounds the repeat operations only: their answers hold at most so many items.
    """
    operation = OPERATIONS[op]
    rng = stream("instance", op, n, split, seed, index, alphabet)
    items, word = _draw_items(rng, n, split, alphabet)
    legal = operation.choices(n, max_items)
    given = rng.choice(legal) if operation.argument in (Argument.INDEX, Argument.COUNT) else None
    return ListInstance(
        op=op,
        items=items,
        word=word if operation.takes_word else None,
        index=given if operation.argument is Argument.INDEX else None,
        count=given if operation.argument is Argument.COUNT else None,
        id=f"{op}-{alphabet}-n{n}-{split}-s{seed}-{index}",
        split=split,
        seed=seed,
    )


def instances(
    op: str,
    lengths: Sequence[int],
    split: str,
    seed: int,
    count: int,
    alphabet: str = "letters",
    max_items: int = 10,
) -> list[ListInstance]:
    """Return `count` instances spread evenly over `lengths`; a smaller count gives a prefix of a larger one."""
    return [
        instance(op, lengths[i % len(lengths)], split, seed, i // len(lengths), alphabet, max_items)
        for i in range(count)
    ]


def stream(*name: object) -> Random:
    """Return the random stream with this name, the same on every machine and in every process."""
    return Random(int.from_bytes(hashlib.sha256(repr(name).encode()).digest(), "big"))


def _draw_items(rng: Random, n: int, split: str, alphabet: str) -> tuple[Items, str]:
    while True:
        *items, word = ALPHABETS[alphabet].draw(rng, n + 1)
        if split_of(items) == split:
            return tuple(items), word
