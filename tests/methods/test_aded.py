"""Drafts from trigrams: table, search and tree by hand; answers, rows and cost in the loop."""

import json
from pathlib import Path

import pytest

from harness.engine.autoregressive.drafting import Round
from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.shared.records import Ledger
from harness.errors import FieldError
from methods.autoregressive.aded import TrigramDrafter
from methods.autoregressive.greedy import Greedy
from methods.autoregressive.sample import KeyedSample
from methods.autoregressive.trigrams import Search, adapted, read_corpus, trie
from tests.engine.causal import PROMPTS, continue_greedily, random_causal, run, with_drafts

MODEL = random_causal(vocabulary=6)
SMALL = [[token % 6 for token in prompt] for prompt in PROMPTS]
LENGTH = 24
ANSWERS = [continue_greedily(MODEL, prompt, LENGTH) for prompt in SMALL]


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    """Return a file of two documents."""
    file = tmp_path / "corpus.json"
    file.write_text(json.dumps([[1, 2, 3, 1, 2, 3], [1, 2, 4]]))
    return str(file)


def search(table: dict, *, iterations: int = 50, output: int = 24, score_bug: bool = False, stop: int = 9) -> list:
    """Return what a search behind tokens 1 and 2 finds; roll-outs take the middle of what there is."""
    made = Search(
        table=table, stop_ids=[stop], iterations=iterations, output=output, draw=lambda turn: [0.5] * 4,
        score_bug=score_bug,
    )  # fmt: skip
    return made.sequences((1, 2))


def test_a_corpus_gives_relative_frequencies(corpus: str, tmp_path: Path) -> None:
    """Guards counts over documents, which do not run into each other, and the best twelve of a key."""
    assert read_corpus(corpus) == {(1, 2): {3: 2 / 3, 4: 1 / 3}, (2, 3): {1: 1.0}, (3, 1): {2: 1.0}}
    many = tmp_path / "many.json"
    many.write_text(json.dumps([[0, 0, token] for token in range(20, 0, -1)]))
    assert read_corpus(str(many)) == {(0, 0): dict.fromkeys(range(1, 13), 1 / 20)}


@pytest.mark.parametrize("text", ["{", "[1]", '[["a", "b", "c"]]'])
def test_a_corpus_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    """The message names key and file, and what it must be."""
    file = tmp_path / "corpus.json"
    file.write_text(text)
    with pytest.raises(FieldError, match=r"corpus_file.*JSON list of documents"):
        TrigramDrafter(corpus_file=str(file))
    with pytest.raises(FieldError, match="num_draft"):
        TrigramDrafter(num_draft=0)


def test_a_search_adds_to_the_last_sixteen_tokens() -> None:
    """Guards window, step and cap, and that the corpus stays as it is."""
    table = {(1, 2): {3: 0.5}}
    text = [1, 2, 3, *range(10, 24)]  # 17 tokens: the first trigram is outside of the last 16
    assert adapted(table, text, [17]).get((1, 2)) == {3: 0.5}
    assert adapted(table, text, [16]).get((1, 2)) == {3: 0.54}
    assert adapted(table, text, [16]).get((12, 13)) == {14: 0.04}
    assert adapted({}, [7] * 40, range(20, 40)).get((7, 7)) == {7: 3.0}
    assert adapted({}, [7] * 5, [4, 5]).get((7, 7)) == {7: pytest.approx(5 * 0.04)}
    assert table == {(1, 2): {3: 0.5}}


def test_the_search_goes_where_weights_are() -> None:
    """Guards depth, order, extension by the best successor, and what follows a stop token."""
    chain = {(1, 2): {3: 1.0}, (2, 3): {4: 1.0}, (3, 4): {5: 1.0}, (4, 5): {6: 1.0}, (5, 6): {7: 1.0}}
    assert search(chain) == [(3, 4), (3, 4, 5), (3, 4, 5, 6)]
    assert search(chain, stop=4) == [(3, 4)]
    assert search({}) == [] and search(chain, output=1) == [(3, 4)]
    fork = {(1, 2): {3: 0.1, 4: 0.9}, (2, 4): {5: 1.0}, (2, 3): {6: 1.0}}
    assert search(fork)[0] == (4, 5) and (3, 6) in search(fork)
    # One look goes to the heaviest, as no other has been looked at.
    assert search(fork, iterations=1)[0] == (4, 5)


def test_the_released_score_looks_up_a_token_as_its_own_successor() -> None:
    """Guards the flag: with it weights along a roll-out count nothing, but for repeated tokens."""
    # The lighter branch is worth more in the end, which the released score does not see.
    table = {(1, 2): {3: 0.52, 4: 0.48}, (2, 4): {5: 3.0}, (4, 5): {6: 3.0}}
    looked = {bug: search(table, iterations=400, score_bug=bug, output=1)[0] for bug in (False, True)}
    assert looked == {False: (4, 5), True: (3,)}


def test_sequences_are_merged_into_a_tree() -> None:
    """Guards shared beginnings, the longest that fall first, and the size of the tree."""
    assert trie([(1, 2), (1, 3), (4,)], 9) == [(-1, 1), (0, 2), (0, 3), (-1, 4)]
    assert trie([(1, 2, 3), (4, 5), (6,)], 3) == [(-1, 4), (0, 5), (-1, 6)]
    assert trie([(1, 2), (3, 4)], 3) == [(-1, 1), (0, 2)]
    assert trie([(7, 7, 7, 7)], 2) == [(-1, 7), (0, 7)]


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("temperature", [0.0, 0.3])
def test_answers_are_those_of_plain_decoding(rows: int, temperature: float) -> None:
    """Guards losslessness, and tables and random numbers of rows that are their own, counts included."""
    acceptor, ledger = KeyedSample(temperature=temperature), Ledger()
    method = with_drafts(acceptor, TrigramDrafter(num_draft=16, iterations=30))
    plain = run(MODEL, AutoregressiveMethod(acceptor=acceptor), SMALL[:rows], LENGTH)
    made = run(MODEL, method, SMALL[:rows], LENGTH, ledger=ledger)
    assert [one.tokens for one in made] == [one.tokens for one in plain]
    for row, counts in enumerate(ledger.counts(range(rows))):
        alone = Ledger()
        (one,) = run(MODEL, method, [SMALL[row]], LENGTH, seeds=[100 + row], ledger=alone)
        assert (one.decided_at, alone.counts([0])[0]) == (made[row].decided_at, counts)


def test_a_corpus_of_the_answers_is_worth_its_calls(tmp_path: Path) -> None:
    """Guards the table in the loop: a corpus that knows what comes; a position per token of a tree, none of a draft."""
    file = tmp_path / "corpus.json"
    file.write_text(json.dumps([[*prompt, *answer] for prompt, answer in zip(SMALL, ANSWERS, strict=True)]))
    calls, nodes = {}, []
    for name, drafter in (("empty", TrigramDrafter()), ("corpus", TrigramDrafter(corpus_file=str(file)))):
        ledger = Ledger()

        def watch(completed: Round) -> None:
            nodes.append(int((completed.proposal.count_B + 1).sum()) if bool(completed.before.rounds_B.any()) else -1)

        nodes.clear()
        run(MODEL, with_drafts(Greedy(), drafter), SMALL, LENGTH, ledger=ledger, observers=[watch])
        counts = ledger.counts(range(8))
        calls[name] = sum(one.nfe for one in counts)
        assert all(one.nfe_draft == 0 for one in counts)
        assert [int(record.query_B.sum()) for record in ledger.records[1:]] == nodes[1:]
    assert calls["corpus"] < calls["empty"] < 8 * LENGTH and calls["corpus"] < 0.5 * 8 * LENGTH
