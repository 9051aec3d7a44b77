"""The waiting-line sets of ParallelBench (arXiv:2510.04767), regenerated bit for bit from names and seeds.

Deviation from its released generator, which does not reproduce its released files: within one list all given
names and all family names are distinct, and a list that violates this is drawn again at the same length.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from tasks.lists.alphabets import DATA, waiting_line_names
from tasks.lists.chat import render
from tasks.lists.instance import Example, ListInstance
from tasks.lists.operations import OPERATIONS, Argument, Items

SETS = ("waiting_line", "waiting_line_n15")
_MASKED = ("copy", "shuffle", "insert", "replace")


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One row of a set before rendering: `place` is where the answer differs, also for random operations."""

    op: str
    items: Items
    word: str | None
    place: int | None
    answer: Items


@cache
def facts() -> dict[str, Any]:
    """Return seeds, sizes and digests by `set/operation`."""
    return json.loads((DATA / "parity.json").read_text(encoding="utf-8"))["tasks"]


def operations(set_name: str) -> tuple[str, ...]:
    """Return the operations that a set has."""
    return tuple(name.partition("/")[2] for name in facts() if name.partition("/")[0] == set_name)


def draws(set_name: str, op: str) -> list[tuple[Draw, Draw]]:
    """Return the rows of a set in order, each with its worked example."""
    fact = facts()[f"{set_name}/{op}"]
    lengths = range(fact["min_length"], fact["max_length"] + 1)
    buckets: dict[int, list[Draw]] = {length: [] for length in lengths}
    rng = Random(fact["seed"])
    while any(len(bucket) < fact["samples_per_length"] for bucket in buckets.values()):
        draw = _draw(rng, op, lengths)
        if len(buckets[len(draw.items)]) < fact["samples_per_length"]:
            buckets[len(draw.items)].append(draw)
    rows = [draw for bucket in buckets.values() for draw in bucket]
    return [(row, _draw(rng, op, lengths)) for row in rows]


def problems(set_name: str, op: str) -> list[tuple[ListInstance, Example]]:
    """Return the rows of a set as list instances, each with its worked example."""
    seed, solved = facts()[f"{set_name}/{op}"]["seed"], []
    for number, (row, shown) in enumerate(draws(set_name, op)):
        name = f"{set_name}/{op}/{number}"
        example = Example(instance=_instance(shown, f"{name}/example", seed), answer=shown.answer)
        solved.append((_instance(row, name, seed), example))
    return solved


def row_of(draw: Draw, example: Draw | None = None) -> dict[str, Any]:
    """Return a draw in the row schema of the published files."""
    index = draw.place if OPERATIONS[draw.op].argument is Argument.INDEX else None
    fields = {"word": draw.word, "index": index}
    row: dict[str, Any] = {
        "input": {"context": render(draw.items)} | {k: v for k, v in fields.items() if v is not None},
        "answer": _answer_field(draw),
        "metadata": {"length": len(draw.items)},
    }
    if draw.place is not None:
        row["metadata"]["index"] = index
    if draw.word is not None:
        row["metadata"]["word"] = draw.word
    if draw.op.startswith(_MASKED):
        row["output_format"] = render(["[MASK]"] * len(draw.answer))
    if example is not None:
        row["input"]["icl_examples"] = [row_of(example)]
    return row


def digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the sha256 of rows as canonical JSON lines."""
    lines = (json.dumps(r, ensure_ascii=False, sort_keys=True, separators=(",", ":")) + "\n" for r in rows)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@cache
def _pool() -> list[str]:
    first, last = waiting_line_names()
    return [f"{given} {family}" for given in first for family in last]


def _draw(rng: Random, op: str, lengths: range) -> Draw:
    items = _draw_items(rng, rng.randint(lengths[0], lengths[-1]))
    operation = OPERATIONS[op]
    if op == "shuffle":
        return Draw(op=op, items=items, word=None, place=None, answer=_shuffled(rng, items))
    word = rng.choice([name for name in _pool() if name not in items]) if operation.takes_word else None
    moves = operation.argument is not Argument.NONE
    place = rng.choice(operation.choices(len(items), len(items))) if moves else None
    answer = operation.apply(items, word or "", place or 0)
    return Draw(op=op, items=items, word=word, place=place, answer=answer)


def _draw_items(rng: Random, length: int) -> Items:
    while True:
        items = rng.sample(_pool(), length)
        given, family = zip(*(name.split(" ") for name in items), strict=True)
        if len(set(given)) == len(set(family)) == length:
            return tuple(items)


def _shuffled(rng: Random, items: Items) -> Items:
    answer = list(items)
    while tuple(answer) == items:
        rng.shuffle(answer)
    return tuple(answer)


def _answer_field(draw: Draw) -> str | dict[str, Any]:
    if OPERATIONS[draw.op].argument is not Argument.FREE:
        return render(draw.answer)
    word = {} if draw.word is None else {"word": draw.word}
    return {"input": list(draw.items), **word, "example": render(draw.answer)}


def _instance(draw: Draw, name: str, seed: int) -> ListInstance:
    indexed = OPERATIONS[draw.op].argument is Argument.INDEX
    return ListInstance(
        op=draw.op,
        items=draw.items,
        word=draw.word,
        index=draw.place if indexed else None,
        id=name,
        split="test",
        seed=seed,
    )
