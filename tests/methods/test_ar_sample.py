"""Sampling: the filters by hand, the law by enumeration, and equality under every drafter."""

from collections import Counter
from itertools import product

import pytest
import torch

from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.errors import FieldError
from methods.autoregressive.greedy import Greedy
from methods.autoregressive.sample import KeyedSample
from tests.engine.causal import PROMPTS, drafters, next_logits, random_causal, run, with_drafts

LOGITS = torch.tensor([[0.5, 0.1, 0.25, 0.15]]).log()


@pytest.mark.parametrize(
    ("knobs", "expected"),
    [
        ({}, [0.5, 0.1, 0.25, 0.15]),
        ({"temperature": 0.5}, [0.25 / 0.345, 0.01 / 0.345, 0.0625 / 0.345, 0.0225 / 0.345]),
        ({"top_k": 2}, [2 / 3, 0, 1 / 3, 0]),
        ({"top_k": 9}, [0.5, 0.1, 0.25, 0.15]),
        ({"top_p": 0.6}, [2 / 3, 0, 1 / 3, 0]),
        ({"top_p": 0.01}, [1, 0, 0, 0]),
        ({"top_k": 2, "top_p": 0.66}, [1, 0, 0, 0]),
    ],
)
def test_filters(knobs: dict[str, float], expected: list[float]) -> None:
    """The token that crosses top_p is kept, and top_p counts the mass that top_k left."""
    torch.testing.assert_close(
        KeyedSample(**knobs).probabilities(LOGITS)[0], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6
    )


def test_ties_keep_the_lowest_id() -> None:
    """An unstable sort would keep any of the equal tokens."""
    assert KeyedSample(top_k=1).probabilities(torch.zeros(1, 64)).argmax() == 0
    assert KeyedSample(top_k=3).probabilities(torch.zeros(1, 64)).nonzero()[:, 1].tolist() == [0, 1, 2]


@pytest.mark.parametrize("knobs", [{}, {"temperature": 0.7, "top_k": 5, "top_p": 0.8}])
@pytest.mark.parametrize("name", ["oracle", "half", "adversary", "noise"])
def test_drafts_change_nothing(name: str, knobs: dict[str, float]) -> None:
    """Noise keyed by round or by place in the draft would make the sample depend on the drafter."""
    acceptor, model = KeyedSample(**knobs), random_causal()
    plain = [g.tokens for g in run(model, AutoregressiveMethod(acceptor=acceptor), PROMPTS)]
    drafted = run(model, with_drafts(acceptor, drafters(plain)[name]), PROMPTS)
    assert [g.tokens for g in drafted] == plain
    assert plain != [g.tokens for g in run(model, AutoregressiveMethod(acceptor=Greedy()), PROMPTS)]


def test_temperature_0_is_greedy() -> None:
    """Dividing by a tiny temperature instead would overflow."""
    model = random_causal()
    sampled, greedy = (
        run(model, AutoregressiveMethod(acceptor=a), PROMPTS) for a in (KeyedSample(temperature=0), Greedy())
    )
    assert sampled == greedy


def test_a_row_draws_the_same_in_any_batch() -> None:
    """Draws are keyed by the row's seed, not by its place in the batch."""
    model, method = random_causal(), AutoregressiveMethod(acceptor=KeyedSample())
    together = run(model, method, PROMPTS)
    alone = [run(model, method, [p], seeds=[100 + i])[0] for i, p in enumerate(PROMPTS)]
    assert [g.tokens for g in alone] == [g.tokens for g in together]


def test_answers_follow_the_law_of_the_model() -> None:
    """Draws of neighbouring positions must be independent: the joint law is enumerated, not the marginals."""
    model, acceptor, rows = random_causal(), KeyedSample(temperature=0.8, top_k=3), 20_000
    law: dict[tuple[int, ...], float] = {}
    for first, second in product(range(model.spec.vocab_size), repeat=2):
        p_first, p_second = (acceptor.probabilities(next_logits(model, t)[None])[0] for t in ([5, 1], [5, 1, first]))
        law[first, second] = float(p_first[first] * p_second[second])
    seen = Counter(
        g.tokens for g in run(model, AutoregressiveMethod(acceptor=acceptor), [[5, 1]] * rows, 2, seeds=range(rows))
    )
    assert sum(law.values()) == pytest.approx(1)
    assert sum(abs(seen[pair] / rows - p) for pair, p in law.items()) / 2 < 0.02


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"temperature": -1.0}, "temperature=-1.0: must be at least 0"),
        ({"top_k": -1}, "top_k=-1: must be at least 0"),
        ({"top_p": 0.0}, "top_p=0.0: must lie in"),
        ({"top_p": 1.1}, "top_p=1.1: must lie in"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs: dict[str, float], message: str) -> None:
    """The message names key, range and value."""
    with pytest.raises(FieldError, match=f"^{message}"):
        KeyedSample(**knobs)
