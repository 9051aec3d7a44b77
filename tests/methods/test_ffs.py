"""Several samples of one prompt: who counts, what is aborted, what that costs, and that rows are those of sampling."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from harness.engine.autoregressive.drafting import Drafter
from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.shared.randomness import forked_seeds
from harness.engine.shared.records import Ledger
from harness.errors import FieldError
from methods.autoregressive.ffs import Samples
from methods.autoregressive.lookahead import Lookahead
from methods.autoregressive.prompt_lookup import PromptLookup
from methods.autoregressive.sample import KeyedSample
from tests.engine.causal import PROMPTS, next_logits, random_causal, run

MODEL = random_causal(stop_ids=(4, 6, 12))
PLAIN = AutoregressiveMethod(acceptor=KeyedSample())


def search(N: int, k: int = 1, **knobs: bool) -> AutoregressiveMethod:
    """Return the method that samples at temperature 1."""
    return AutoregressiveMethod(acceptor=KeyedSample(), branching=Samples(N=N, k=k, **knobs))


def rows_of(prompt: list[int], seed: int, N: int) -> list[tuple[int, ...]]:
    """Return what plain sampling says with the seed of every copy."""
    seeds = forked_seeds(torch.full((N,), seed), torch.arange(N)).tolist()
    return [one.tokens for one in run(MODEL, PLAIN, [prompt] * N, seeds=seeds)]


@pytest.mark.parametrize("k", [1, 2, 3, 0])
@pytest.mark.parametrize("synchronous", [True, False])
def test_the_first_to_stop_answer_and_the_others_are_aborted(k: int, synchronous: bool):
    """Guards the order of finishing, who votes, and the honest totals: aborted rows count up to the abort."""
    ledger = Ledger()
    made = run(MODEL, search(4, k, synchronous=synchronous), PROMPTS, ledger=ledger)
    for row, (prompt, one) in enumerate(zip(PROMPTS, made, strict=True)):
        rows = rows_of(prompt, 100 + row, 4)
        ordered = sorted(rows, key=len)
        stopped = [tokens for tokens in ordered if tokens[-1] in MODEL.spec.stop_ids]
        finishers = stopped[:k] if 0 < k <= len(stopped) else ordered
        assert [one.tokens, *(other.tokens for other in one.others)] == finishers
        last = len(finishers[-1])
        total = sum(min(len(tokens), last) for tokens in rows)
        (counts,) = ledger.counts([row])
        assert one.tokens_generated == total
        assert counts.nfe_total == total - 3, "the first token of all comes from one row"
        assert counts.nfe == (last if synchronous else counts.nfe_total)


def test_one_sample_is_plain_sampling():
    """Guards the seed of the first row, which keeps its own."""
    assert run(MODEL, search(1), PROMPTS) == run(MODEL, PLAIN, PROMPTS)


def test_the_sequential_cost_does_not_grow_with_the_number_of_rows():
    """Guards rows against depending on how many there are: the first N of more are the same."""
    calls = []
    for N in (1, 2, 4, 8):
        ledger = Ledger()
        run(MODEL, search(N), PROMPTS, ledger=ledger)
        calls.append([one.nfe for one in ledger.counts(range(len(PROMPTS)))])
    for fewer, more in pairwise(calls):
        assert all(one >= other for one, other in zip(fewer, more, strict=True))
    assert calls[0] != calls[-1]


def test_rows_of_a_sample_are_independent_draws():
    """Guards copies that repeat each other: the joint law of two rows' first tokens is the product."""
    p_V = KeyedSample().probabilities(next_logits(MODEL, [5, 1])[None])[0]
    samples = 8_000
    made = run(MODEL, search(2, 0), [[5, 1]] * samples, 1, seeds=range(samples))
    rows = [sorted([one.tokens[0], *(other.tokens[0] for other in one.others)]) for one in made]
    seen, distance = Counter(map(tuple, rows)), 0.0
    for first in range(len(p_V)):
        for second in range(first, len(p_V)):
            p = float(p_V[first] * p_V[second]) * (1 if first == second else 2)
            distance += abs(seen[first, second] / samples - p)
    assert distance / 2 < 0.06


def test_a_row_without_an_answer_does_not_count_if_one_is_required():
    """Guards the follow-up's rule, and that it is asked of rows that have stopped."""
    asked: list[int] = []

    def readable(sample: int, tokens: tuple[int, ...]) -> bool:
        asked.append(sample)
        return len(tokens) > 2

    plain = run(MODEL, search(8), PROMPTS, readable=readable)
    strict = run(MODEL, search(8, require_answer=True), PROMPTS, readable=readable)
    assert any(len(one.tokens) <= 2 for one in plain)
    assert all(len(one.tokens) > 2 for one in strict)
    assert set(asked) == set(range(len(PROMPTS)))


@pytest.mark.parametrize(
    ("knobs", "told"),
    [({"N": 0}, "N=0: must be from 1 to 4096"), ({"N": 2, "k": 3}, r"k=3: must lie in \[0, N=2\]")],
)
def test_knobs_out_of_range_are_refused(knobs: dict[str, int], told: str):
    """Guards the line that names key, value and range."""
    with pytest.raises(FieldError, match=told):
        Samples(**knobs)


@pytest.mark.parametrize("drafter", [PromptLookup(max_ngram=1), Lookahead(N=2, W=3, G=1)])
def test_drafts_change_no_row_but_who_ends_first(drafter: Drafter):
    """Guards sampled rows that fork beside drafts: what each says is its own, in whatever order they end."""
    endless, method = random_causal(), search(3, 0)
    plain, drafted = (run(endless, one, PROMPTS, 30) for one in (method, replace(method, drafter=drafter)))
    said, again = ([[one.tokens for one in (first, *first.others)] for first in made] for made in (plain, drafted))
    assert [*map(sorted, said)] == [*map(sorted, again)]
    assert said != again
