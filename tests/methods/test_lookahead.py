"""Lookahead decoding against plain decoding, and against a plain reading with full forwards and lists."""

import pytest
import torch

from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.shared.randomness import uniforms
from harness.engine.shared.records import Ledger
from harness.errors import FieldError
from harness.models.embedded import EmbeddedModel
from methods.autoregressive.greedy import Greedy
from methods.autoregressive.lookahead import Lookahead
from methods.autoregressive.sample import KeyedSample
from tests.engine.causal import PROMPTS, continue_greedily, next_logits, random_causal, run, with_drafts

MODEL = random_causal(vocabulary=6)
SMALL = [[token % 6 for token in prompt] for prompt in PROMPTS]
LENGTH = 24
ANSWERS = [continue_greedily(MODEL, prompt, LENGTH) for prompt in SMALL]
SIZES = [(5, 7, 7), (3, 2, 1), (2, 3, 2), (4, 1, 3)]


def lookahead(N: int, W: int, G: int, acceptor: object | None = None) -> AutoregressiveMethod:
    """Return the method of these sizes."""
    return with_drafts(acceptor or Greedy(), Lookahead(N=N, W=W, G=G), N)


def read_plainly(
    model: EmbeddedModel, prompt: list[int], seed: int, N: int, W: int, G: int
) -> tuple[list[int], list[int]]:
    """Return tokens per round and positions per call, by argmax of full forwards over what each token follows."""

    def said(context: list[int]) -> int:
        return int(next_logits(model, context).argmax())

    drawn = uniforms(torch.tensor([seed]), torch.tensor([0]), "window", W + N - 3)[0]
    rows = [[prompt[int(u * len(prompt))] for u in drawn]]  # row 0 without its first column
    text, pool = [*prompt, said(prompt)], {}
    emitted, computed = [1], [len(prompt)]
    while len(text) < len(prompt) + LENGTH:
        room, full = len(prompt) + LENGTH - len(text) - 1, len(rows) == N - 1
        guesses = list(pool.get(text[-1], []))
        width = len(rows[0]) + 1
        computed.append(width * len(rows) + sum(min(len(gram), room) for gram in guesses))
        paths = [[text[-1], *rows[0][:c], *(row[c] for row in rows[1:])] for c in range(width)]
        answers = [said([*text[:-1], *path]) for path in paths]
        best: list[int] = []
        for gram in guesses:
            stands: list[int] = []
            while len(stands) < min(len(gram), room) and said([*text, *stands]) == gram[len(stands)]:
                stands.append(gram[len(stands)])
            best = max(best, stands, key=len)
        if full:
            heads = [text[-1], *rows[0]]
            for c in range(width):
                gram = (*(row[c] for row in rows[1:]), answers[c])
                entries = pool.setdefault(heads[c], [])
                if gram in entries:
                    entries.remove(gram)
                entries.append(gram)
                del entries[:-G]
            rows = [*rows[1:], answers]
            rows[0] = rows[0][1:]
        else:
            rows = [row[1:] for row in (*rows, answers)]
        text += [*best, said([*text, *best])]
        emitted.append(len(best) + 1)
    return emitted, computed


@pytest.mark.parametrize(("N", "W", "G"), SIZES)
def test_rounds_are_those_of_a_plain_reading(N: int, W: int, G: int) -> None:
    """Guards window, pool and their order: tokens of each round and positions of each call of every row."""
    ledger = Ledger()
    made = run(MODEL, lookahead(N, W, G), SMALL, LENGTH, ledger=ledger)
    longer = 0
    for row, (prompt, answer, one) in enumerate(zip(SMALL, ANSWERS, made, strict=True)):
        emitted, computed = read_plainly(MODEL, prompt, 100 + row, N, W, G)
        assert one.tokens == answer
        assert [one.decided_at.count(step) for step in range(max(one.decided_at) + 1)] == emitted
        queries = [int(r.query_B[r.sample_B == row]) for r in ledger.records if row in r.sample_B.tolist()]
        assert queries == computed
        longer += sum(tokens > 1 for tokens in emitted)
    assert longer > 4, "hardly an n-gram stood"


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("temperature", [0.0, 0.3])
def test_answers_are_those_of_plain_decoding(rows: int, temperature: float) -> None:
    """Guards losslessness and rows that see each other, counts included."""
    acceptor, ledger = KeyedSample(temperature=temperature), Ledger()
    plain = run(MODEL, AutoregressiveMethod(acceptor=acceptor), SMALL[:rows], LENGTH)
    made = run(MODEL, lookahead(3, 3, 2, acceptor), SMALL[:rows], LENGTH, ledger=ledger)
    assert [one.tokens for one in made] == [one.tokens for one in plain]
    for row, counts in enumerate(ledger.counts(range(rows))):
        alone = Ledger()
        (one,) = run(MODEL, lookahead(3, 3, 2, acceptor), [SMALL[row]], LENGTH, seeds=[100 + row], ledger=alone)
        assert (one.decided_at, alone.counts([0])[0]) == (made[row].decided_at, counts)


def test_a_window_that_does_not_fit_rests() -> None:
    """Guards positions that the model does not have."""
    longest = MODEL.spec.max_length
    ledger, room = Ledger(), 6
    prompt = [token % 6 for token in range(longest - room)]
    (made,) = run(MODEL, lookahead(3, 4, 2), [prompt], room, ledger=ledger)
    assert made.tokens == continue_greedily(MODEL, prompt, room)
    assert int(ledger.records[1].query_B) == 5 and int(ledger.records[-1].query_B) <= 1 + 2 * 2


@pytest.mark.parametrize(("name", "value"), [("N", 1), ("W", 0), ("G", 0)])
def test_sizes_that_are_none_are_refused(name: str, value: int) -> None:
    """The message names key and value."""
    with pytest.raises(FieldError, match=f"^{name}={value}: must be at least {value + 1}"):
        Lookahead(**{name: value})
    with pytest.raises(FieldError, match=r"^W=1: must be at least 2 with N=2"):
        Lookahead(N=2, W=1)
