"""LayerSkip: greedy answers at every exit, what a round costs, and that nothing is computed twice."""

import pytest
import torch

from harness.config.composition import compose
from harness.engine.autoregressive.loop import decode
from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.shared.records import Ledger, Role
from harness.errors import ConfigError, FieldError
from harness.models.closed_form import ClosedForm, ClosedFormModel
from methods.autoregressive.greedy import Greedy
from methods.autoregressive.layer_skip import EarlyExit
from methods.autoregressive.speculative import Rejection
from tests.engine.causal import PROMPTS, run, with_drafts
from tests.methods.self_drafts import LAYERS, answers, rounds_of, same_for_every_batch, stores_are_fresh, target


def skipping(exit_layer: int, drafts: int = 3, temperature: float = 0.0) -> AutoregressiveMethod:
    """Return the method that drafts with the first layers."""
    acceptor = Rejection(temperature=temperature) if temperature else Greedy()
    return with_drafts(acceptor, EarlyExit(exit=exit_layer, temperature=temperature), drafts)


@pytest.mark.parametrize("exit_layer", [1, pytest.param(3, marks=pytest.mark.slow), 7, 8])
@pytest.mark.parametrize("drafts", [0, 1, pytest.param(4, marks=pytest.mark.slow), 20])
def test_no_exit_changes_a_token(exit_layer: int, drafts: int) -> None:
    """Guards states, keys and positions that verification goes on from, and rows that draft less than others."""
    assert same_for_every_batch(target(), skipping(exit_layer, drafts)) == answers()


def test_a_sample_does_not_depend_on_the_batch() -> None:
    """Guards random numbers of drafts."""
    drawn = same_for_every_batch(target(), skipping(7, temperature=0.7))
    assert drawn != answers()


@pytest.mark.parametrize("exit_layer", [2, 7])
def test_keys_and_values_behind_a_round_are_those_of_a_fresh_forward(exit_layer: int) -> None:
    """Guards the shared store: what a draft wrote into early layers and fell must be hidden or overwritten."""
    assert stores_are_fresh(target(), skipping(exit_layer)) > 3


@pytest.mark.parametrize("exit_layer", [1, 5, 8])
@pytest.mark.parametrize("drafts", [1, 3])
def test_a_round_loads_what_its_closed_form_says(exit_layer: int, drafts: int) -> None:
    """Guards the count of layers: g E + L, the drafts' first layers not run again by verification."""
    first, *rounds = rounds_of(target(), skipping(exit_layer, drafts))
    assert first == (0, 0, LAYERS)
    assert [loads for _, _, loads in rounds] == [drafted * exit_layer + LAYERS for drafted, _, _ in rounds]
    assert any(drafted for drafted, _, _ in rounds)


def test_every_draft_of_the_whole_model_stands() -> None:
    """Guards the end of the range, E = L: verification has no layer left, and says what the drafts said."""
    for temperature in (0.0, 1.0):
        rounds = rounds_of(target(), skipping(LAYERS, 4, temperature), 16)
        assert [stood for _, stood, _ in rounds] == [0, 4, 4, 4]
        assert [drafted for drafted, _, _ in rounds] == [0, 4, 4, 4]


def test_calls_of_a_round_say_what_they_compute() -> None:
    """Guards positions, layers and logits on record: g + 1 calls of one position, the last of which reads nothing."""
    ledger = Ledger()
    run(target(), skipping(3, 3), PROMPTS[1:2], 5, ledger=ledger)
    seen = [(r.role, int(r.query_B), int(r.head_B), r.layers) for r in ledger.records[:6]]
    drafts = [(Role.DRAFT, 1, 1, 3)] * 3 + [(Role.DRAFT, 1, 0, 3)]
    assert seen == [(Role.PREFILL, 3, 1, 8), *drafts, (Role.VERIFY, 4, 4, 5)]
    counts = ledger.counts([0])[0]
    assert counts.layer_tokens == sum(int(r.query_B) * int(r.layers) for r in ledger.records)


def test_an_answer_ends_inside_a_draft() -> None:
    """Guards stop tokens that a draft writes: nothing is drafted behind them, all of it is verified."""
    stop = answers()[2][5]
    expected = [a[: a.index(stop) + 1] if stop in a else a for a in answers()]
    for exit_layer in (3, 8):
        assert same_for_every_batch(target(stop=stop), skipping(exit_layer, 4)) == expected


def test_an_exit_that_is_not_there_is_refused() -> None:
    """Guards bad input, in one line, before a token is written: no layer, one too many, a model without layers."""
    with pytest.raises(FieldError, match=r"exit=0: must be at least 1"):
        EarlyExit(exit=0)
    with pytest.raises(ConfigError, match=r"method\.drafter\.exit=9: must be from 1 to 8.*model=random"):
        run(target(), skipping(9), PROMPTS[:1])
    law = ClosedFormModel(ClosedForm(vocab_size=12, mask_id=11, eos_id=0, a1=4, f1=1.3, a2=0, f2=0, f3=0))
    law.spec = target().spec
    with pytest.raises(ConfigError, match="runs all of its layers or none, and the drafter"):
        decode(law, skipping(1), [[1]], gen_length=2, seeds=[0], ledger=Ledger())


def test_the_option_is_the_paper_s() -> None:
    """Guards defaults and the knobs that are wired through."""
    method = compose(["model=tiny_ar", "method=layer_skip", "method.exit=2", "method.num_speculations=5"]).method
    assert (method.drafter.exit, method.draft_length.length, method.acceptor.temperature) == (2, 5, 0.0)


def test_exits_of_a_wide_batch_are_padded_not_charged() -> None:
    """Guards calls in which rows wait: positions on record are those that rows computed for themselves."""
    ledger = Ledger()
    run(target(), skipping(3, 3), PROMPTS, ledger=ledger)
    assert len(ledger.records) > 2
    for record in ledger.records:
        assert torch.equal(record.layer_tokens_B, record.query_B * int(record.layers))
        assert int(record.query_B.min()) >= 1
