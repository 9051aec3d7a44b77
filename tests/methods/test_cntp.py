"""Cautious next token prediction: its table of trials, its identities, its law, and what its trials cost."""

from collections import Counter
from itertools import product
from math import log

import pytest
import torch

from harness.engine.autoregressive.drafting import Round
from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.shared.records import Ledger
from harness.errors import ConfigError, FieldError
from methods.autoregressive.cntp import Cautious, StopMatch, Trials
from methods.autoregressive.prompt_lookup import PromptLookup
from methods.autoregressive.sample import KeyedSample, Law
from tests.engine.causal import PROMPTS, next_logits, random_causal, run, with_drafts

ENTROPIES = [0.10, 0.20, 0.50, 0.75, 1.00, 1.25, 1.49, 1.50, 2.00]
STOPS = (2, 5, 7, 11)
MODEL = random_causal(stop_ids=(4,))


def cntp(**knobs: object) -> AutoregressiveMethod:
    """Return the method with the knobs of its acceptor."""
    return AutoregressiveMethod(acceptor=Cautious(**knobs))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        (Trials.code, [1, 2, 3, 5, 6, 8, 9, 10, 10]),
        (Trials.paper, [1, 1, 3, 4, 6, 8, 9, 10, 10]),
        (Trials.inverted, [10, 9, 8, 6, 5, 3, 2, 1, 1]),
        (Trials.same_num, 9 * [6]),
    ],
)
def test_trials_are_those_of_the_released_table(variant: Trials, expected: list[int]):
    """Guards both formulas, which differ in where they begin and in rounding."""
    assert Cautious(variant=variant).trials(torch.tensor(ENTROPIES, dtype=torch.float64)).tolist() == expected


@pytest.mark.parametrize("knobs", [{"N_max": 1}, {"H_lo": 8.999, "H_hi": 9.0}])
def test_without_trials_it_is_plain_sampling(knobs: dict[str, float]):
    """Guards the numbers that tokens are drawn with: the same as those of `ar_sample`."""
    plain = AutoregressiveMethod(acceptor=KeyedSample(temperature=1.2, top_p=0.9))
    made = run(MODEL, cntp(**knobs), PROMPTS)
    assert [one.tokens for one in made] == [one.tokens for one in run(MODEL, plain, PROMPTS)]
    assert [one.tokens_generated for one in made] == [len(one.tokens) for one in made]


def test_one_nucleus_token_leaves_greedy_decoding():
    """Guards trials against drawing what the nucleus does not hold: all of them are the same."""
    made = run(MODEL, cntp(top_p=1e-9, variant=Trials.same_num, stop_ids=STOPS), PROMPTS)
    greedy = run(MODEL, AutoregressiveMethod(acceptor=KeyedSample(temperature=0)), PROMPTS)
    assert [one.tokens for one in made] == [one.tokens for one in greedy]


def test_a_plain_reading_of_the_algorithm():
    """Guards everything: a loop over tokens, trials and full forwards gives the same answers."""
    acceptor = Cautious(stop_ids=STOPS, max_trial_len=5)
    made = run(MODEL, AutoregressiveMethod(acceptor=acceptor), PROMPTS)
    for row, (prompt, one) in enumerate(zip(PROMPTS, made, strict=True)):
        assert one.tokens == plain(acceptor, prompt, 100 + row, 12), f"row {row}"


def plain(acceptor: Cautious, prompt: list[int], seed: int, limit: int) -> tuple[int, ...]:
    """Decode one prompt as the paper's Algorithm 1 says, with the keyed numbers of the project."""
    from harness.engine.shared.randomness import uniforms
    from harness.engine.shared.sampling import invert

    law, answer = Law(acceptor.temperature, acceptor.top_k, acceptor.top_p), []

    def draw(tokens: list[int], trial: int) -> tuple[int, float]:
        p_1V = law.probabilities(next_logits(MODEL, tokens)[None])
        uniform = uniforms(torch.tensor([seed]), torch.tensor([len(tokens)]), "token", trial + 1)[:, trial]
        token = int(invert(p_1V, uniform))
        return token, log(float(p_1V[0, token]))

    while len(answer) < limit and answer[-1:] != [4]:
        p_1V = law.probabilities(next_logits(MODEL, prompt + answer)[None])
        trials = int(acceptor.trials(torch.special.entr(p_1V).sum(-1)))
        kept: list[tuple[float, int, list[int]]] = []
        for number in range(trials):
            tried: list[int] = []
            total = 0.0
            while True:
                token, log_p = draw(prompt + answer + tried, number)
                tried, total = [*tried, token], total + log_p
                ends = token in (4, *STOPS) or len(tried) == acceptor.max_trial_len
                if trials == 1 or ends or len(answer) + len(tried) == limit:
                    break
            kept.append((-total / len(tried), number, tried))
        answer += min(kept)[2]
    return tuple(answer)


def test_trials_cost_what_the_table_says():
    """Guards the counters: the longest trial's calls, rows but for the first tokens, and every token that was drawn."""
    rounds: list[Round] = []
    ledger = Ledger()
    (made,) = run(MODEL, cntp(stop_ids=STOPS), PROMPTS[2:3], ledger=ledger, observers=[rounds.append])
    lengths = [int(one.after.length_B - one.before.length_B) for one in rounds]
    (counts,) = ledger.counts([0])
    drawn = [int(one.verdict.generated_B) if one.verdict.generated_B is not None else 1 for one in rounds]
    branched = [
        int(Cautious().trials(torch.special.entr(Law(1.2, 0, 0.9).probabilities(one.prediction.logits_NV)).sum(-1)))
        for one in rounds
    ]
    assert made.tokens_generated == sum(drawn) > sum(lengths) == len(made.tokens)
    assert counts.nfe_total == len(rounds) + sum(drawn) - sum(branched)
    assert counts.nfe >= sum(lengths), "a trial that is kept takes a call for each of its tokens"
    assert any(length > 1 for length in lengths)


def test_every_segment_ends_where_it_may():
    """Guards the ends of trials: a mark, the end, or the longest that is allowed."""
    rounds: list[Round] = []
    run(MODEL, cntp(stop_ids=STOPS, max_trial_len=3, variant=Trials.same_num), PROMPTS[:1], observers=[rounds.append])
    assert len(rounds) > 1
    for one in rounds:
        length, last = int(one.after.length_B), int(one.after.tokens_BL[0, one.after.length_B - 1])
        taken = length - int(one.before.length_B)
        assert last in (4, *STOPS) or taken == 3 or length == int(one.after.limit_B)


def test_the_first_token_of_two_trials_has_its_law():
    """Guards the choice between trials: the likelier of two draws, so each token's law is known in closed form."""
    acceptor = Cautious(temperature=1.0, top_p=1.0, N_max=2, H_lo=-1.0, H_hi=0.0, max_trial_len=1)
    p_V = Law(1.0, 0, 1.0).probabilities(next_logits(MODEL, [5, 1])[None])[0]
    law: Counter[int] = Counter()
    for one, other in product(range(len(p_V)), repeat=2):
        law[one if p_V[one] >= p_V[other] else other] += float(p_V[one] * p_V[other])  # type: ignore[assignment]
    rows = 20_000
    made = run(MODEL, AutoregressiveMethod(acceptor=acceptor), [[5, 1]] * rows, 1, seeds=range(rows))
    seen = Counter(one.tokens[0] for one in made)
    assert sum(abs(seen[token] / rows - p) for token, p in law.items()) / 2 < 0.02


def test_marks_are_found_in_tokens():
    """Guards merged tokens such as `).`, which the ids of single marks miss."""
    pieces = ["a", ".", ").", " x", ",\n", ":  ", "", "b\nc", "?"]
    found = Cautious().in_tokens(lambda text: [pieces.index(text)] if text in pieces else [], pieces).stop_ids
    assert found == (1, 2, 4, 5, 7, 8)
    by_id = Cautious(stop_match=StopMatch.id)
    assert by_id.in_tokens(lambda text: [pieces.index(text)] if text in pieces else [], pieces).stop_ids == (1, 8)


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"temperature": 0}, "temperature=0: must be above 0"),
        ({"H_hi": 0.0}, "H_hi=0.0: must be above H_lo=0.01"),
        ({"N_max": 0}, "N_max=0: must be from 1 to 4096"),
        ({"max_trial_len": -1}, "max_trial_len=-1: must be at least 0"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs: dict[str, float], told: str):
    """Guards the line that names key, value and range."""
    with pytest.raises(FieldError, match=told):
        Cautious(**knobs)  # type: ignore[arg-type]


def test_drafts_are_refused():
    """Guards drafts that nobody would score."""
    with pytest.raises(ConfigError, match="drafter=PromptLookup: this method decides one token after another"):
        with_drafts(Cautious(), PromptLookup())
