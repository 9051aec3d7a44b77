"""Drafts of a model: the target's own answers and law, whatever the draft is, and what they cost."""

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
import torch

from harness.engine.autoregressive.drafting import Drafter, Proposal, Round, Verdict
from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.shared.generation import DecodeError
from harness.engine.shared.model import ForwardRequest, Models
from harness.engine.shared.prediction import Prediction
from harness.engine.shared.records import Ledger, Role
from harness.errors import FieldError
from harness.models.embedded import EmbeddedModel
from harness.models.key_values import KeyValueStore
from harness.runs.forward_clock import ForwardClock
from methods.autoregressive.layer_skip import EarlyExit
from methods.autoregressive.sample import KeyedSample
from methods.autoregressive.speculative import COMPUTED, STORE, ModelDrafter, Rejection
from tests.engine.causal import (
    PROMPTS,
    RaggedNoise,
    alike,
    continue_greedily,
    random_causal,
    run,
    with_drafts,
)
from tests.methods.laws import TINY, TINY_PROMPT, law_of, likelihood

MODEL = random_causal()
ANSWERS = [continue_greedily(MODEL, prompt, 12) for prompt in PROMPTS]
DRAFTS = {
    "itself": MODEL,
    "alike": alike(MODEL),
    "another": random_causal(seed=1, layers=1),
    "wider": alike(MODEL, vocabulary=24),
    "narrower": alike(MODEL, vocabulary=17),
}


def speculative(length: int = 4, temperature: float = 0.0, **filters: float) -> AutoregressiveMethod:
    """Return the method that drafts `length` tokens."""
    acceptor = Rejection(temperature=temperature, **filters)  # type: ignore[arg-type]
    return with_drafts(acceptor, ModelDrafter(temperature=temperature), length)


@pytest.mark.parametrize("name", DRAFTS)
@pytest.mark.parametrize("length", [0, 1, 4, 20])
def test_a_draft_changes_no_token(name: str, length: int) -> None:
    """Guards greedy verification of a draft from equal to strange, of one that knows more tokens, or fewer."""
    made = run(Models(MODEL, DRAFTS[name]), speculative(length), PROMPTS)
    assert [one.tokens for one in made] == ANSWERS


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_under_keyed_acceptance_a_sample_is_that_of_plain_sampling(temperature: float) -> None:
    """Guards the other exact rule with a drafter of its own: token by token what is drawn without drafts."""
    acceptor = KeyedSample(temperature=temperature)
    plain = run(MODEL, AutoregressiveMethod(acceptor=acceptor), PROMPTS)
    method = with_drafts(acceptor, ModelDrafter(temperature=temperature), 3)
    made = run(Models(MODEL, alike(MODEL)), method, PROMPTS)
    assert [one.tokens for one in made] == [one.tokens for one in plain]
    assert any(one.decided_at != other.decided_at for one, other in zip(made, plain, strict=True))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("rows", [1, 3, 8])
def test_a_row_does_not_depend_on_the_others(rows: int, temperature: float) -> None:
    """Guards rows that draft less than their neighbours: no call, position or random number is another's."""
    models, method = Models(MODEL, alike(MODEL)), speculative(3, temperature)
    alone = [_counted(models, method, [prompt], [100 + i]) for i, prompt in enumerate(PROMPTS[:rows])]
    together = _counted(models, method, PROMPTS[:rows], range(100, 100 + rows))
    assert [row for (row,) in alone] == together


def _counted(models: Models, method: AutoregressiveMethod, prompts: list, seeds: Iterable[int]) -> list:
    ledger = Ledger()
    made = run(models, method, prompts, seeds=seeds, ledger=ledger)
    return [
        (one.tokens, one.decided_at, one.tokens_generated, counts)
        for one, counts in zip(made, ledger.counts(range(len(prompts))), strict=True)
    ]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_both_stores_are_those_of_a_fresh_forward_after_each_round(temperature: float) -> None:
    """Guards the rollback of both models: keys of what was rejected, or of a position that was skipped, would stay."""
    checked: list[int] = []
    draft = alike(MODEL)

    def check(completed: Round) -> None:
        after = completed.after
        for model, store, computed_B in (
            (MODEL, after.store, after.computed_B),
            (draft, after.stores.get(STORE), after.memory.get(COMPUTED)),
        ):
            if store is None:
                continue
            assert isinstance(store, KeyValueStore) and isinstance(computed_B, torch.Tensor)
            final_B = torch.minimum(computed_B, after.length_B - 1)
            for row, end in enumerate(final_B.tolist()):
                fresh = model.new_store(1, store.slots)
                tokens_BT = after.tokens_BL[row : row + 1, :end]
                model.forward(ForwardRequest(tokens_BT, positions_BT=torch.arange(end)[None], kv=fresh, end=end))
                for kept, again in zip([*store.keys, *store.values], [*fresh.keys, *fresh.values], strict=True):
                    torch.testing.assert_close(kept[row, :end], again[0, :end], rtol=0, atol=1e-5)
        checked.append(int(completed.n_accepted_B.sum()))

    run(Models(MODEL, draft), speculative(3, temperature), PROMPTS, observers=[check])
    assert len(checked) > 4 and max(checked) > 3, "hardly a draft was accepted"


def _replayed(draft: EmbeddedModel, prompt: list[int], answer: tuple[int, ...], length: int) -> tuple[int, int, int]:
    """Return calls, draft calls and query tokens by walking a known answer: full forwards, no store, no loop."""
    calls, draft_calls, tokens, fed, emitted = 1, 0, len(prompt), 0, 1
    while emitted < len(answer):
        drafted = min(length, len(answer) - emitted - 1)
        before = [*prompt, *answer[:emitted]]
        guess = continue_greedily(draft, before, drafted)
        stand = next((k for k in range(drafted) if guess[k] != answer[emitted + k]), drafted)
        if drafted:
            # What it lacks of the text, and its own tokens but the last.
            tokens += len(before) - fed + drafted - 1
            fed = min(len(before) + drafted - 1, len(before) + stand)
        calls, draft_calls, tokens = calls + 1, draft_calls + drafted, tokens + drafted + 1
        emitted += stand + 1
    return calls, draft_calls, tokens


@pytest.mark.parametrize("name", ["itself", "alike", "another"])
@pytest.mark.parametrize("length", [1, 3, 5])
def test_the_work_is_that_of_a_replay(name: str, length: int) -> None:
    """Guards the counters: a draft token costs the draft one position, and no prefix is computed twice."""
    ledger = Ledger()
    run(Models(MODEL, DRAFTS[name]), speculative(length), PROMPTS, ledger=ledger)
    for prompt, answer, counts in zip(PROMPTS, ANSWERS, ledger.counts(range(8)), strict=True):
        expected = _replayed(DRAFTS[name], prompt, answer, length)
        assert (counts.nfe, counts.nfe_draft, counts.query_tokens) == expected
        assert (counts.nfe_prefill, counts.prefill_tokens) == (1, len(prompt))


def test_a_draft_that_is_the_target_is_always_right() -> None:
    """Guards the closed form of a perfect draft, call by call: two positions for the draft where all had stood."""
    for temperature in (0.0, 1.0):
        ledger = Ledger()
        (made,) = run(Models(MODEL, MODEL), speculative(4, temperature), [[5, 1, 4]], 16, ledger=ledger)
        again, behind = [(Role.DRAFT, 2), *3 * [(Role.DRAFT, 1)], (Role.VERIFY, 5)], [(Role.DRAFT, 1)] * 3
        seen = [(record.role, int(record.query_B)) for record in ledger.records]
        assert seen == [(Role.PREFILL, 3), (Role.DRAFT, 4), *behind, (Role.VERIFY, 5), *again, *again]
        assert made.tokens_generated == 16


def test_a_draft_is_charged_with_its_own_layers() -> None:
    """Guards work that would look like the target's."""
    ledger, draft = Ledger(traced=True), DRAFTS["another"]
    run(Models(MODEL, draft), speculative(2), PROMPTS, ledger=ledger)
    assert {(r.role is Role.DRAFT, r.layers, r.layers_total) for r in ledger.records} == {(True, 1, 1), (False, 2, 2)}
    counts = ledger.counts(range(8))[0]
    own = sum(int(r.query_B[r.sample_B == 0].sum()) for r in ledger.records if r.role is Role.DRAFT)
    assert counts.layer_tokens == 2 * counts.query_tokens - own


def test_every_position_is_work_or_padding() -> None:
    """Guards what a batch computes for nothing: rows shorter than others, and rows that have drafted enough."""
    stop, ledger = ANSWERS[2][5], Ledger()
    seen = [ForwardClock(one) for one in (random_causal(stop_ids=(stop,)), alike(MODEL))]
    run(Models(*seen), speculative(4), PROMPTS, ledger=ledger)
    shown = sum(shape.numel() for one in seen for shape in one.shapes)
    padded, counts = ledger.padded(range(8)), ledger.counts(range(8))
    assert sum(padded) + sum(one.query_tokens for one in counts) == shown
    assert any(len(one.idle_B) for one in ledger.records if one.idle_B is not None), "no row waited for others"


def test_a_last_token_is_not_drafted_for() -> None:
    """Guards a draft without room: one token asks for no draft, two of them neither."""
    for length, calls in ((1, 0), (2, 0), (3, 1)):
        ledger = Ledger()
        made = run(Models(MODEL, MODEL), speculative(4), PROMPTS[:2], length, ledger=ledger)
        assert [one.tokens for one in made] == [answer[:length] for answer in ANSWERS[:2]]
        assert [counts.nfe_draft for counts in ledger.counts([0, 1])] == [calls, calls]


@pytest.mark.parametrize("name", ["itself", "alike", "another"])
def test_nothing_is_drafted_behind_a_stop_token(name: str) -> None:
    """Guards answers that end inside a draft, and drafts that nobody could use."""
    stop = ANSWERS[2][5]
    expected = [a[: a.index(stop) + 1] if stop in a else a for a in ANSWERS]
    drafted: list[list[int]] = []

    def watch(completed: Round) -> None:
        proposal = completed.proposal
        rows = zip(proposal.tokens_BK.tolist(), proposal.count_B.tolist(), strict=True)
        drafted.extend(row[:count] for row, count in rows)

    models = Models(random_causal(stop_ids=(stop,)), DRAFTS[name])
    made = run(models, speculative(4), PROMPTS, observers=[watch])
    assert [one.tokens for one in made] == expected
    assert all(stop not in row[:-1] for row in drafted)
    assert name != "itself" or any(row and row[-1] == stop for row in drafted)


LAWS: dict[str, tuple[Drafter, int]] = {
    "alike": (ModelDrafter(temperature=1.0), 2),
    "other temperature": (ModelDrafter(temperature=3.0), 3),
    "certain of its token": (ModelDrafter(), 2),
    "noise": (RaggedNoise(torch.Generator().manual_seed(5), vocabulary=5), 2),
    "the first layer": (EarlyExit(exit=1, temperature=1.0), 2),
}


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("top_k", [0, pytest.param(3, marks=pytest.mark.slow)])
def test_answers_have_the_law_of_the_target(name: str, top_k: int) -> None:
    """Guards rejection sampling: joint law of four tokens over rounds of several drafts against its enumeration."""
    (drafter, length), rows = LAWS[name], 8_000
    acceptor = Rejection(temperature=1.0, top_k=top_k)
    method = with_drafts(acceptor, drafter, length)
    stand: list[int] = []
    models = Models(TINY, alike(TINY, noise=0.3))
    made = run(
        models, method, [TINY_PROMPT] * rows, 4, seeds=range(rows),
        observers=[lambda completed: stand.append(int(completed.n_accepted_B.sum()))],
    )  # fmt: skip
    law = law_of(acceptor, 4)
    assert sum(law.values()) == pytest.approx(1) and rows / 20 < sum(stand) < 3 * rows
    assert likelihood(made, law) > 1e-3


def test_the_law_would_show_a_biased_rule() -> None:
    """Guards the test above against being too weak: accepting every draft has another law, and is told."""

    class Gullible(Rejection):
        def __call__(self, prediction: Prediction, proposal: Proposal, sequences: Sequences) -> Verdict:
            return replace(super().__call__(prediction, proposal, sequences), accepted_B=proposal.count_B)

    rows, acceptor = 8_000, Rejection(temperature=1.0)
    method = with_drafts(Gullible(temperature=1.0), ModelDrafter(temperature=3.0), 3)
    made = run(Models(TINY, alike(TINY, noise=0.3)), method, [TINY_PROMPT] * rows, 4, seeds=range(rows))
    assert likelihood(made, law_of(acceptor, 4)) < 1e-6


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_seed_fixes_the_answer(temperature: float) -> None:
    """Guards repeated runs; other seeds give other answers where there is something to draw."""
    models, method = Models(MODEL, alike(MODEL)), speculative(3, temperature)
    first, again, other = (
        [one.tokens for one in run(models, method, PROMPTS, seeds=range(start, start + 8))] for start in (0, 0, 50)
    )
    assert first == again and (first == other) == (temperature == 0)


def test_logits_of_a_draft_that_are_not_numbers_name_it() -> None:
    """Guards a broken draft against being taken for a bad one, in silence."""
    draft = alike(MODEL)
    torch.nn.init.constant_(draft.transformer.head.weight, torch.nan)
    with pytest.raises(DecodeError, match=r"model alike returned logits .*NaN"):
        run(Models(MODEL, draft), speculative(2), PROMPTS[:1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ModelDrafter(temperature=-1.0), r"^temperature=-1.0: must be at least 0"),
        (lambda: Rejection(temperature=-1.0), r"^temperature=-1.0: must be at least 0"),
        (lambda: Rejection(top_k=-1), r"^top_k=-1: must be at least 0"),
        (lambda: Rejection(top_p=0.0), r"^top_p=0.0: must lie in"),
    ],
)
def test_knobs_out_of_range_are_refused(make: Callable[[], object], message: str) -> None:
    """The message names key, range and value."""
    with pytest.raises(FieldError, match=message):
        make()
