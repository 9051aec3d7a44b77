"""Replayed rounds against drafting itself: the same counters, by every drafter that drafts from text."""

from functools import cache

import pytest
import torch

from harness.engine.autoregressive.drafting import Drafter, DraftLength
from harness.engine.autoregressive.method import AutoregressiveMethod, FixedLength
from harness.engine.autoregressive.replay import DraftsFromText, Place, Rule, record, replay
from harness.engine.shared.model import LanguageModel, Models
from harness.engine.shared.records import Ledger
from harness.models import random as random_models
from methods.autoregressive.deer import DiffusionDrafter
from methods.autoregressive.draft_lengths import ConfidenceLength, HeuristicLength
from methods.autoregressive.easyspec import LayersAbreast
from methods.autoregressive.greedy import Greedy
from methods.autoregressive.layer_skip import EarlyExit
from methods.autoregressive.prompt_lookup import PromptLookup
from methods.autoregressive.speculative import ModelDrafter
from methods.autoregressive.swift import Swift
from tests.engine.causal import PROMPTS, alike, random_causal, run

LAYERS, LENGTH, LONGEST, STOP = 5, 16, 6, 17
DRAFTERS: dict[str, Drafter] = {
    "prompt_lookup": PromptLookup(),
    "model": ModelDrafter(),
    "early_exit": EarlyExit(exit=3),
    "layers_abreast": LayersAbreast(N=2),
    "swift": Swift(max_opt_iter=0, threshold=0.3),
}
STEPWISE = ("model", "early_exit", "layers_abreast")


@cache
def target(stop: int | None) -> LanguageModel:
    """Return the target, an answer of which may end early."""
    return random_causal(layers=LAYERS, stop_ids=() if stop is None else (stop,))


@cache
def models(name: str, stop: int | None) -> LanguageModel:
    """Return the target, with a model that drafts where one is asked."""
    causal = target(stop)
    if name in ("model", "layers_abreast"):
        return Models(causal, alike(causal))  # type: ignore[arg-type]
    if name != "diffusion":
        return causal
    masked = random_models.load(name="draft", kind="masked_diffusion", seed=3, max_length=64, dtype=torch.float64)
    return Models(causal, masked.model)


@cache
def answers(stop: int | None) -> list[tuple[int, ...]]:
    """Return what plain decoding answers."""
    return [one.tokens for one in run(target(stop), AutoregressiveMethod(acceptor=Greedy()), PROMPTS, LENGTH)]


@cache
def traces(name: str, stop: int | None, length: int = LONGEST) -> list[list[Place]]:
    """Return the places of all answers, recorded once."""
    drafter = DRAFTERS.get(name, DiffusionDrafter())
    method = AutoregressiveMethod(acceptor=Greedy(), drafter=drafter)
    model, pairs = models(name, stop), zip(PROMPTS, answers(stop), range(100, 108), strict=True)
    return [record(model, method, *pair, length=length, gen_length=LENGTH, seed=seed) for *pair, seed in pairs]


def compared(name: str, stop: int | None, length: DraftLength, rule: Rule, longest: int = LONGEST) -> int:
    """Hold the replay of a rule to drafting with it, and return how many drafts stood."""
    ledger, drafter = Ledger(), DRAFTERS.get(name, DiffusionDrafter())
    method = AutoregressiveMethod(acceptor=Greedy(), drafter=drafter, draft_length=length)
    run(models(name, stop), method, PROMPTS, LENGTH, ledger=ledger)
    numbers = range(len(PROMPTS))
    told = zip(ledger.counts(numbers), ledger.loads(numbers), ledger.drafting(numbers), strict=True)
    stood = 0
    for (counts, loads, drafting), places in zip(told, traces(name, stop, longest), strict=True):
        made = replay(places, rule, layers=LAYERS)
        assert drafting is not None
        assert (made.nfe, made.nfe_draft, made.layer_loads) == (counts.nfe, counts.nfe_draft, loads.layer_loads)
        for column in vars(drafting).keys() - {"query_tokens_draft"}:
            assert getattr(made.drafting, column) == getattr(drafting, column), column
        assert made.plain_loads == LAYERS * (len(places) + 1)
        stood += drafting.accepted_draft_tokens
    return stood


@pytest.mark.parametrize("stop", [None, STOP])
@pytest.mark.parametrize("name", DRAFTERS)
def test_every_length_is_that_of_drafting_itself(name: str, stop: int | None) -> None:
    """Guards places, clipping at the end, and costs: one trace serves all lengths, and none costs a call."""
    stood = [compared(name, stop, FixedLength(length=k), Rule(length=k)) for k in range(LONGEST + 1)]
    assert stood[0] == 0 and max(stood) > len(PROMPTS)
    assert stop is None or any(len(one) < LENGTH for one in answers(stop)), "an answer has to end early"


@pytest.mark.parametrize("name", STEPWISE)
@pytest.mark.parametrize("threshold", [0.2, 0.6, 0.95])
def test_a_threshold_is_that_of_drafting_itself(name: str, threshold: float) -> None:
    """Guards probabilities, and the token that is not sure, which is drafted."""
    length = ConfidenceLength(length=LONGEST, threshold=threshold)
    assert compared(name, STOP, length, Rule(length=LONGEST, threshold=threshold)) > 0


@pytest.mark.parametrize("name", ["prompt_lookup", "model"])
def test_a_schedule_is_that_of_drafting_itself(name: str) -> None:
    """Guards lengths that follow from rounds; the trace is as long as answers are, since they may get as long."""
    rule = Rule(length=2, heuristic=True)
    assert compared(name, None, HeuristicLength(length=2), rule, longest=LENGTH) > 0


@pytest.mark.parametrize("length", [1, 4])
def test_blocks_are_replayed_at_their_own_length(length: int) -> None:
    """Guards drafts that change with their number: one trace for each length."""
    assert not DiffusionDrafter().nested
    compared("diffusion", STOP, FixedLength(length=length), Rule(length=length), longest=length)


def test_what_hangs_on_earlier_rounds_says_so() -> None:
    """Guards against replays of what adapts: a search, and drafts whose inexact keys and values are kept."""
    told = [Swift(), Swift(max_opt_iter=0), LayersAbreast(N=2, calibrate=False), LayersAbreast(N=1, calibrate=False)]
    assert [isinstance(one, DraftsFromText) and one.from_text for one in told] == [False, True, False, True]


def test_a_walk_by_hand() -> None:
    """Guards the rounds themselves: behind 1, 3 and 6 tokens of 7, drafting at most 2."""
    stands = [1, 0, 2, 2, 0, 0]
    places = [Place(drafted=2, stand=m, probabilities=(0.9, 0.5), calls=2, loads=4.0, begun=0) for m in stands]
    made = replay(places, Rule(length=2), layers=8)
    assert made.drafting.accept_lens == [2, 3, 1] and made.drafting.tried_at == [3, 2]
    assert (made.nfe, made.nfe_draft, made.layer_loads, made.plain_loads) == (4, 6, 8 * 4 + 12, 8 * 7)
    unsure = replay(places, Rule(length=2, threshold=0.95), layers=8)
    assert unsure.drafting.accept_lens == [2, 2, 1, 1] and unsure.nfe_draft == 4
