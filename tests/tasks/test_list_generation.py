"""Where list problems come from: own streams, disjoint splits, and the published sets bit for bit."""

from itertools import islice

import numpy as np
import pytest

from harness.models.tokenizer import IDS, SymbolTokenizer
from tasks.lists import parity
from tasks.lists.alphabets import ALPHABETS
from tasks.lists.generator import instance, instances, stream
from tasks.lists.instance import ListInstance
from tasks.lists.operations import OPERATIONS
from tasks.lists.splits import SPLITS, split_of
from tasks.lists.tiny import TinyRenderer
from tasks.lists.training import Layout, batches

SETS = [(set_name, op) for set_name in parity.SETS for op in parity.operations(set_name)]


@pytest.mark.parametrize(("set_name", "op"), SETS)
def test_published_sets_bit_for_bit(set_name: str, op: str) -> None:
    """One draw more or less, another name order, another field: the digest of all rows changes."""
    rows = [parity.row_of(row, example) for row, example in parity.draws(set_name, op)]
    fact = parity.facts()[f"{set_name}/{op}"]
    assert len(rows) == fact["rows"]
    assert parity.digest(rows) == fact["sha256"]


def test_all_published_sets_are_there() -> None:
    """A list of sets that silently lost one."""
    assert len(SETS) == 20


def test_published_rows_become_problems_with_the_published_answers() -> None:
    """An instance that forgets which word or index its row has."""
    for set_name, op in SETS[:10]:
        for (row, shown), (asked, example) in zip(
            parity.draws(set_name, op), parity.problems(set_name, op), strict=True
        ):
            assert asked.accepts(row.answer)
            assert example.instance.accepts(shown.answer) and example.answer == shown.answer


def test_an_instance_depends_on_nothing_but_its_name() -> None:
    """A shared stream: other lengths, a smaller count or an earlier call would change an instance."""
    alone = instance("shuffle", 5, "test", 3, 1)
    many = instances("shuffle", [3, 4, 5], "test", 3, 6)
    assert many[5] == alone
    assert instances("shuffle", [3, 4, 5], "test", 3, 4) == many[:4]
    assert [len(one.items) for one in many] == [3, 4, 5, 3, 4, 5]
    # Fails if the recipe changes while the task keeps its version.
    assert alone.items == ("u", "l", "f", "h", "j")


@pytest.mark.parametrize("change", [{"n": 6}, {"split": "train"}, {"seed": 1}, {"index": 1}, {"op": "copy"}])
def test_every_part_of_the_name_matters(change: dict[str, object]) -> None:
    """Two seeds, splits or operations that share their lists."""
    name = {"op": "reverse", "n": 5, "split": "test", "seed": 0, "index": 0}
    assert instance(**name | change).items != instance(**name).items


@pytest.mark.parametrize("alphabet", ALPHABETS)
@pytest.mark.parametrize("split", SPLITS)
def test_splits_are_disjoint_and_items_distinct(alphabet: str, split: str) -> None:
    """A test list that training has seen; a list with an item twice, which makes removal ambiguous."""
    for one in instances("insert_random", [3, 6, 10], split, 0, 30, alphabet):
        assert split_of(one.items) == split
        assert len({*one.items, one.word}) == len(one.items) + 1


def test_splits_have_their_shares() -> None:
    """A hash that sends everything into one split."""
    lists = [ALPHABETS["letters"].draw(stream(i), 5) for i in range(4000)]
    shares = [sum(split_of(items) == split for items in lists) / 4000 for split in SPLITS]
    assert shares == pytest.approx([0.90, 0.05, 0.05], abs=0.02)


@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_alphabets_are_as_large_as_they_say(alphabet: str) -> None:
    """A draw of the announced size that fails, or repeats a symbol (two family names occur twice)."""
    letters = ALPHABETS[alphabet]
    assert len(set(letters.draw(stream(0), letters.largest_draw))) == letters.largest_draw
    with pytest.raises(ValueError, match="Sample larger"):
        letters.draw(stream(0), letters.largest_draw + 1)


@pytest.mark.parametrize("op", ["repeat_each", "repeat_list"])
def test_repetitions_fit_the_canvas(op: str) -> None:
    """A count that makes the answer longer than the models can write."""
    drawn = instances(op, [3, 4, 5], "test", 0, 60)
    assert {one.count for one in drawn if len(one.items) == 3} == {2, 3}
    assert all(len(next(one.answers())) <= 10 for one in drawn)


@pytest.mark.parametrize("op", OPERATIONS)
def test_symbols_round_trip(op: str) -> None:
    """A prompt of varying width, a symbol outside the vocabulary, or an answer that is read differently."""
    renderer, tokenizer = TinyRenderer(max_items=10), SymbolTokenizer()
    for one in instances(op, [3, 4, 5], "test", 0, 300):
        prompt, answer = renderer.prompt(one), one.sample_answer(stream(one.id))
        assert len(tokenizer.encode(prompt)) == 16
        assert tokenizer.decode(tokenizer.encode(prompt)) == prompt
        assert renderer.parse(tokenizer.decode(tokenizer.encode(renderer.write(answer)))) == answer


def test_training_writes_what_evaluation_asks() -> None:
    """Training on prompts that differ from the ones asked, on wrong answers, or on lists held out."""
    layout, tokenizer = Layout(ids=IDS, max_items=10, answer_length=16), SymbolTokenizer()
    renderer = TinyRenderer(max_items=10)
    seen = set()
    for row in np.concatenate(list(islice(batches(layout=layout, rows=50, seed=0), 10))):
        prompt, answer = tokenizer.decode(row[:16]), tokenizer.decode(row[16:])
        asked = instance_of(prompt.split())
        assert renderer.prompt(asked) == prompt
        assert asked.accepts(renderer.parse(answer) or ())
        assert split_of(asked.items) == "train"
        seen.add(asked.op)
    assert seen == set(OPERATIONS)


def instance_of(symbols: list[str]) -> ListInstance:
    """Read a prompt of the fixed layout back."""
    _, op, argument, word, _, *items = symbols[:-1]
    number = None if argument == "<none>" else int(argument[1:])
    repeats = op.startswith("repeat")
    return ListInstance(
        op=op,
        items=tuple(item for item in items if item != "<pad>"),
        word=None if word == "<none>" else word,
        index=None if repeats else number,
        count=number if repeats else None,
        id="",
        split="train",
        seed=0,
    )
