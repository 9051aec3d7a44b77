"""SWIFT: greedy answers for any set of skipped parts, also while it changes, and the search by its own rules."""

from dataclasses import replace

import pytest
import torch

from harness.config import build
from harness.config.compatibility import fit_decoding
from harness.config.composition import compose
from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.shared.records import Ledger, Role
from harness.errors import ConfigError, FieldError
from methods.autoregressive.greedy import Greedy
from methods.autoregressive.layer_search import Rules, Search, suggested
from methods.autoregressive.speculative import Rejection
from methods.autoregressive.swift import Swift
from tests.engine.causal import PROMPTS, run, with_drafts
from tests.methods.self_drafts import LAYERS, answers, rounds_of, same_for_every_batch, stores_are_fresh, target

RULES = Rules(opt_interval=1, bayes_interval=0, max_opt_iter=1000, max_tolerance=300, max_score=0.95, context_window=2)
SEARCHING = {"threshold": 0.0, "context_window": 2, "bayes_interval": 0}


def skipping(length: int = 3, temperature: float = 0.0, **knobs: object) -> AutoregressiveMethod:
    """Return the method."""
    acceptor = Rejection(temperature=temperature) if temperature else Greedy()
    return with_drafts(acceptor, Swift(temperature=temperature, **knobs), length)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(4))
def test_no_set_changes_a_token(seed: int) -> None:
    """Guards drafts of random sets, whose keys and values verification has to write over."""
    chance = torch.Generator().manual_seed(seed)
    attention, feed_forward = (
        tuple((1 + torch.randperm(LAYERS - 2, generator=chance)[: seed + 1]).tolist()) for _ in range(2)
    )
    knobs = {"attention": attention, "feed_forward": feed_forward, "max_opt_iter": 0, "threshold": 0.0}
    assert same_for_every_batch(target(), skipping(**knobs)) == answers()


@pytest.mark.parametrize("r", [0.2, 0.9])
def test_no_search_changes_a_token(r: float) -> None:
    """Guards sets that change while an answer is written, each row's by its own tries."""
    assert same_for_every_batch(target(), skipping(r=r, **SEARCHING)) == answers()


def test_a_sample_does_not_depend_on_the_batch() -> None:
    """Guards random numbers of drafts and of the search."""
    assert same_for_every_batch(target(), skipping(temperature=0.7, **SEARCHING)) != answers()


def test_keys_and_values_behind_a_round_are_those_of_a_fresh_forward() -> None:
    """Guards the store against drafts, and against tries, which run over tokens that are committed."""
    assert stores_are_fresh(target(), skipping(r=0.3, **SEARCHING)) > 3


def test_nothing_skipped_is_the_target() -> None:
    """Guards the end of the range: every draft stands."""
    rounds = rounds_of(target(), skipping(4, r=0.0, threshold=0.0), 16)
    assert [(drafted, stood) for drafted, stood, _ in rounds] == [(0, 0), (4, 4), (4, 4), (4, 4)]


@pytest.mark.parametrize("r", [0.0, 0.3, 0.45, 0.9])
def test_a_round_loads_what_its_closed_form_says(r: float) -> None:
    """Guards halves of layers: g (L - skipped / 2) + L, skipped being int(2 (L - 2) r)."""
    skipped = int(2 * (LAYERS - 2) * r)
    first, *rounds = rounds_of(target(), skipping(3, r=r, threshold=0.0, max_opt_iter=0))
    assert first == (0, 0, LAYERS)
    assert [loads for _, _, loads in rounds] == [drafted * (LAYERS - skipped / 2) + LAYERS for drafted, _, _ in rounds]


def test_a_draft_that_is_not_sure_is_the_last() -> None:
    """Guards the threshold: above 1 each round drafts one token, at 0 as many as there is room for."""
    assert {drafted for drafted, _, _ in rounds_of(target(), skipping(threshold=1.1))} == {0, 1}
    assert max(drafted for drafted, _, _ in rounds_of(target(), skipping(threshold=0.0))) == 3


def test_a_try_is_one_call_over_the_first_tokens() -> None:
    """Guards what a search costs: once enough is written, a call of `context_window` positions before each round."""
    ledger = Ledger()
    run(target(), skipping(1, r=0.5, **SEARCHING), PROMPTS[1:2], 9, ledger=ledger)
    tries = [r for r in ledger.records if r.role is Role.DRAFT and int(r.query_B) == 2]
    rounds = sum(r.role in (Role.VERIFY, Role.TARGET) for r in ledger.records)
    assert tries and len(tries) < rounds
    assert {(int(r.head_B), r.layers) for r in tries} == {(2, LAYERS - 3)}


def _search(rows: int = 2, layers: int = 4) -> Search:
    skipped_H = torch.zeros(2 * layers, dtype=torch.bool)
    skipped_H[2] = True
    return Search.begin(skipped_H, rows)


def test_a_better_set_is_kept_and_a_worse_one_forgotten() -> None:
    """Guards the published rules: the first try replaces the set that was never scored, ties do not."""
    search, due_B = _search(), torch.tensor([True, False])
    sets_BH, points_BF = search.proposals(RULES, due_B, torch.tensor([[0.1, 0.2, 0.9, 0.3]] * 2))
    assert sets_BH.nonzero().tolist() == [[0, 4], [1, 2]] and points_BF[0].tolist() == [0, 0, 1, 0]
    first = search.learned(RULES, due_B, sets_BH, points_BF, torch.tensor([0.5, 0.9]).double())
    assert torch.equal(first.skipped_BH, sets_BH)
    assert (first.best_B.tolist(), first.tried_B.tolist(), first.tolerance_B.tolist()) == ([0.5, 0], [1, 0], [0, 0])
    again = first.learned(RULES, due_B, search.skipped_BH, points_BF, torch.tensor([0.5, 0.0]).double())
    assert torch.equal(again.skipped_BH, sets_BH) and again.tolerance_B.tolist() == [1, 0]
    assert again.scores_BP[0].tolist() == [0.5, 0.5] and bool(again.scores_BP[1].isnan().all())


def test_a_search_ends() -> None:
    """Guards its three ends: a set that is good enough, too many tries in vain, too many tries."""
    due_B, points_BF = torch.tensor([True, False]), torch.zeros(2, 4).double()
    for rules, score in (
        (RULES, 0.96),
        (replace(RULES, max_tolerance=0), 0.0),
        (replace(RULES, max_opt_iter=0), 0.5),
    ):
        ended = _search().learned(rules, due_B, _search().skipped_BH, points_BF, torch.tensor([score, 0.0]).double())
        assert ended.done_B.tolist() == [True, False]
        assert not bool(ended.due(rules, torch.zeros(2), torch.tensor([9, 2])).any())
    assert _search().due(RULES, torch.zeros(2), torch.tensor([4, 3])).tolist() == [True, False]


def test_the_bayesian_try_looks_where_scores_were_good() -> None:
    """Guards the optimiser: what it suggests is the same again, and on the side that was scored better."""
    points_PF = torch.rand(12, 2, generator=torch.Generator().manual_seed(0)).double()
    point_F = suggested(points_PF, points_PF[:, 0])
    assert torch.equal(point_F, suggested(points_PF, points_PF[:, 0]))
    assert point_F[0] > 0.7
    search, due_B = _search(1, 3), torch.tensor([True])
    search = search.learned(
        RULES, due_B, search.skipped_BH, torch.tensor([[1.0, 0.0]]).double(), torch.ones(1).double()
    )
    sets_BH, points_BF = search.proposals(replace(RULES, bayes_interval=1), due_B, torch.zeros(1, 2))
    assert int(sets_BH.sum()) == 1 and bool(((points_BF >= 0) & (points_BF <= 1)).all())


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"r": 1.0}, r"r=1.0: must lie in \[0, 1\) \(0 skips nothing; all cannot be skipped\)"),
        ({"opt_interval": 0}, r"opt_interval=0: must be at least 1"),
        ({"max_opt_iter": -1}, r"max_opt_iter=-1: must be at least 0"),
    ],
)
def test_what_cannot_be_is_refused(knobs: dict, message: str) -> None:
    """Guards bad input, in one line."""
    with pytest.raises(FieldError, match=message):
        Swift(**knobs)


def test_a_set_that_skips_an_end_or_everything_is_refused() -> None:
    """Guards bad input before a model loads, by the layers that its checkpoint has."""
    asked = ["model=tiny_ar", "method=swift"]
    for given in ("[0]", "[0,1,2,3]", "[3]", "[7]"):
        cfg = compose([*asked, f"method.attention={given}"])
        with pytest.raises(
            ConfigError, match=r"^method\.attention=\[.*\]: must be of 1 to 2: the first and the last of 4"
        ):
            fit_decoding(cfg, build.Builder())
    fit_decoding(compose([*asked, "method.attention=[1,2]", "method.feed_forward=[1,2]"]), build.Builder())
