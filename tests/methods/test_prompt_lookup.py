"""Prompt lookup: a plain reading of its rule, and the answers of plain decoding."""

import pytest
import torch

from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.shared.records import Ledger, Role
from harness.errors import FieldError
from methods.autoregressive.prompt_lookup import Prefer, PromptLookup
from methods.autoregressive.sample import KeyedSample
from tests.engine.causal import PROMPTS, continue_greedily, random_causal, run, with_drafts

STOP = 9
MODEL = random_causal(stop_ids=(STOP,))
# The same few tokens again and again, so that there is something to find.
TEXTS = [
    [1, 2, 3, 4, 1, 2, 3],
    [1, 2, 3, 4, 5, 2, 3, 6, 2, 3],
    [1, 2],
    [7],
    [5, 5, 5, 5],
    [1, 2, 9, 4, 1, 2],
    [3, 1, 3, 9, 3],
    [1, 2, 3, 1, 2, 4, 2],
]


def looked_up(text: list[int], limit: int, max_ngram: int, prefer: Prefer) -> list[int]:
    """Return the draft by the words of the rule."""
    for size in range(max_ngram, 0, -1):
        starts = [at for at in range(len(text) - size) if text[at : at + size] == text[len(text) - size :]]
        if size <= len(text) and starts:
            behind = text[(starts[0] if prefer is Prefer.first else starts[-1]) + size :][:limit]
            return behind[: behind.index(STOP) + 1] if STOP in behind else behind
    return []


@pytest.mark.parametrize("prefer", Prefer)
@pytest.mark.parametrize("max_ngram", [1, 2, 3, 12])
def test_the_draft_is_that_of_the_rule(max_ngram: int, prefer: Prefer) -> None:
    """Guards lengths of a match, their order, occurrences that overlap the end, stop tokens, and ragged rows."""
    texts = [*TEXTS, *torch.randint(3, (24, 9), generator=torch.Generator().manual_seed(0)).tolist()]
    sequences = Sequences.from_prompts(MODEL, texts, gen_length=8, seeds=[0] * len(texts))
    drafter = PromptLookup(max_ngram=max_ngram, prefer=prefer)
    for limit in (0, 1, 3, 10):
        limit_B = torch.full((len(texts),), limit)
        proposal = drafter.propose(MODEL, sequences, limit_B, Ledger()).clip(limit_B)
        rows = zip(proposal.tokens_BK.tolist(), proposal.count_B.tolist(), strict=True)
        assert [row[:count] for row, count in rows] == [looked_up(text, limit, max_ngram, prefer) for text in texts]
        assert proposal.probabilities_BKV is None


@pytest.mark.parametrize("prefer", Prefer)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("rows", [1, 3, 8])
def test_answers_are_those_of_plain_decoding(temperature: float, rows: int, prefer: Prefer) -> None:
    """Guards losslessness, greedy and sampled, in any batch; some drafts stand, and calls are saved."""
    acceptor, model, ledger = KeyedSample(temperature=temperature, top_k=3), random_causal(), Ledger()
    prompts = [prompt * 3 for prompt in PROMPTS[:rows]]
    plain = run(model, AutoregressiveMethod(acceptor=acceptor), prompts, 16)
    made = run(model, with_drafts(acceptor, PromptLookup(max_ngram=2, prefer=prefer), 10), prompts, 16, ledger=ledger)
    assert [one.tokens for one in made] == [one.tokens for one in plain]
    counts = ledger.counts(range(rows))
    assert all(one.nfe_draft == 0 for one in counts) and {record.role for record in ledger.records} >= {Role.VERIFY}
    assert rows < 8 or sum(one.nfe for one in counts) < 16 * rows


def test_a_text_that_repeats_itself_costs_a_call_per_draft() -> None:
    """Guards the work of drafts that stand: a model in a loop is looked up, `num_tokens` and one more per call."""
    model = random_causal()
    prompt = [5, 1, 4]
    answer = continue_greedily(model, prompt, 40)
    ledger = Ledger()
    (made,) = run(model, with_drafts(KeyedSample(temperature=0.0), PromptLookup(), 4), [prompt], 40, ledger=ledger)
    (counts,) = ledger.counts([0])
    text, emitted, calls, tokens = [*prompt, answer[0]], 1, 1, len(prompt)
    while emitted < 40:
        draft = looked_up(text, min(4, 40 - emitted - 1), 3, Prefer.first)
        stand = next((k for k, token in enumerate(draft) if token != answer[emitted + k]), len(draft))
        text += answer[emitted : emitted + stand + 1]
        emitted, calls, tokens = emitted + stand + 1, calls + 1, tokens + len(draft) + 1
    assert made.tokens == answer
    assert (counts.nfe, counts.query_tokens) == (calls, tokens)
    assert calls < 40


def test_a_length_that_is_none_is_refused() -> None:
    """The message names key, range and value."""
    with pytest.raises(FieldError, match=r"^max_ngram=0: must be at least 1"):
        PromptLookup(max_ngram=0)
