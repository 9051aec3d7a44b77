"""DEL: greedy answers whatever is chosen, the published choice of exit and length, and what a round costs."""

import math

import pytest
import torch

from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.shared.records import Ledger, Role
from harness.errors import ConfigError, FieldError
from methods.autoregressive.dynamic_exit import DynamicExit, best, thresholds
from methods.autoregressive.greedy import Greedy
from methods.autoregressive.speculative import Rejection
from tests.engine.causal import PROMPTS, VOCABULARY, random_causal, run, with_drafts
from tests.methods.self_drafts import LAYERS, answers, rounds_of, same_for_every_batch, stores_are_fresh, target


def choosing(gamma_max: int = 18, *, dynamic: bool = True, temperature: float = 0.0) -> AutoregressiveMethod:
    """Return the method."""
    drafter = DynamicExit(gamma_max=gamma_max, dynamic_length=dynamic, temperature=temperature)
    return with_drafts(Rejection(temperature=temperature) if temperature else Greedy(), drafter, gamma_max)


@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("gamma_max", [2, 18])
def test_no_choice_changes_a_token(dynamic: bool, gamma_max: int) -> None:
    """Guards rows of different exits in one batch, which verification goes on from layer by layer."""
    assert same_for_every_batch(target(), choosing(gamma_max, dynamic=dynamic)) == answers()


def test_a_sample_does_not_depend_on_the_batch() -> None:
    """Guards random numbers of drafts, and counts of agreement, against neighbours."""
    assert same_for_every_batch(target(), choosing(temperature=0.7)) != answers()


def test_keys_and_values_behind_a_round_are_those_of_a_fresh_forward() -> None:
    """Guards the shared store while exits change."""
    assert stores_are_fresh(target(), choosing()) > 3


@pytest.mark.parametrize("dynamic", [True, False])
def test_a_round_loads_what_its_closed_form_says(dynamic: bool) -> None:
    """Guards the count of layers, g l + L for one exit l of each round; the first drafts one token behind layer 1."""
    first, second, *others = rounds_of(target(), choosing(dynamic=dynamic), 16)
    assert first == (0, 0, LAYERS) and (second[0], second[2]) == (1, 1 + LAYERS)
    for drafted, _, loads in others:
        assert (drafted == 0 and loads == LAYERS) or (loads - LAYERS) % drafted == 0
        assert drafted == 0 or 1 <= (loads - LAYERS) // drafted < LAYERS


def test_shadows_are_read_by_the_head_and_are_no_call() -> None:
    """Guards counts: (L - 1) positions of the head per place of a round, no layer, no call of model or draft."""
    ledger = Ledger()
    run(target(), choosing(), PROMPTS[1:2], 8, ledger=ledger)
    read = [r for r in ledger.records if r.role is Role.HEAD]
    assert {r.layers for r in read} == {0}
    # The first round has two places, read at every exit; the prompt three, read at the end and at every exit.
    assert [int(r.head_B) for r in read[:3]] == [2 * (LAYERS - 1), 3, 3 * (LAYERS - 1)]
    counts = ledger.counts([0])[0]
    calls = [r for r in ledger.records if r.role is not Role.HEAD]
    assert counts.nfe_total == len(calls) == counts.nfe + counts.nfe_draft
    assert counts.head_tokens == sum(int(r.head_B) for r in ledger.records)


def test_exits_are_read_together_as_far_as_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards large vocabularies: logits of some exits at a time say what those of all do, for as many positions."""
    seen = []
    for most in (2**25, 40 * VOCABULARY, 1):
        monkeypatch.setattr("methods.autoregressive.dynamic_exit._LOGITS", most)
        ledger = Ledger()
        made = run(target(), choosing(), PROMPTS, ledger=ledger)
        heads = [int(r.head_B.sum()) for r in ledger.records if r.role is Role.HEAD]
        assert max(heads) <= max(most // VOCABULARY, 8 * 32)
        seen.append(([(one.tokens, one.decided_at) for one in made], sum(heads)))
    assert seen[0] == seen[1] == seen[2] and len(heads) > 2 * len(made)


def _best_by_hand(matched: list[float], missed: list[float], layers: int, gamma_max: int) -> tuple[int, int]:
    worth = {}
    for at, (good, bad) in enumerate(zip(matched, missed, strict=True), start=1):
        share = good / (good + bad) if good + bad else -math.inf
        for length in range(gamma_max):
            tokens = sum(share**k for k in range(length + 1)) if share >= 0 else (1.0 if length == 0 else -math.inf)
            worth[at, length] = tokens / (length * at + layers)
    return max(worth, key=lambda one: (worth[one], -one[0], -one[1]))


def test_exit_and_length_have_the_most_tokens_per_layer() -> None:
    """Guards the formula: (1 - a^(d + 1)) / (1 - a) over d l + L, by sums of powers; ties by the first exit."""
    chance = torch.Generator().manual_seed(0)
    matched_BD = torch.randint(0, 6, (40, 5), generator=chance).double()
    missed_BD = torch.randint(0, 6, (40, 5), generator=chance).double()
    exit_B, length_B = best(matched_BD, missed_BD, 6, 9)
    for row in range(40):
        expected = _best_by_hand(matched_BD[row].tolist(), missed_BD[row].tolist(), 6, 9)
        assert (int(exit_B[row]), int(length_B[row])) == expected
    always, never = torch.tensor([[0.0, 5.0, 5.0]]).double(), torch.tensor([[5.0, 0.0, 0.0]]).double()
    assert [int(one) for one in best(always, never, 4, 18)] == [2, 17]


def test_thresholds_lie_between_sure_and_unsure() -> None:
    """Guards tau, which is no number, and stops nothing, until an exit has been right and wrong."""
    counts = [torch.tensor([[2.0, 0.0, 3.0]]), torch.tensor([[4.0, 1.0, 0.0]])]
    sure = [torch.tensor([[1.8, 0.0, 2.7]]), torch.tensor([[2.0, 0.4, 0.0]])]
    tau = thresholds([*counts, *sure])[0].tolist()
    assert tau[0] == pytest.approx((0.9 + 0.5) / 2) and math.isnan(tau[1]) and math.isnan(tau[2])


def test_what_cannot_be_is_refused() -> None:
    """Guards bad input, in one line."""
    for knob, value in (("w", 0.0), ("gamma_max", 0), ("prompt_window", -1)):
        with pytest.raises(FieldError, match=f"{knob}={value}: must "):
            DynamicExit(**{knob: value})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"method\.drafter\.gamma_max=18: must .* the model has one layer"):
        run(random_causal(layers=1), choosing(), PROMPTS[:1])
