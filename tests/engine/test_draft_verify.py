"""The draft-verify loop against plain decoding by full forwards, with drafters from perfect to adversarial."""

from dataclasses import replace
from math import ceil

import pytest
import torch

from harness.engine.autoregressive.drafting import Proposal, Round
from harness.engine.autoregressive.loop import evaluate
from harness.engine.autoregressive.method import AutoregressiveMethod, FixedLength
from harness.engine.shared.generation import DecodeError
from harness.engine.shared.records import Ledger, Role
from harness.errors import FieldError
from harness.models.embedded import EmbeddedModel
from methods.autoregressive.greedy import Greedy
from methods.autoregressive.sample import KeyedSample
from tests.engine.causal import (
    PROMPTS,
    Oracle,
    continue_greedily,
    drafters,
    next_logits,
    random_causal,
    run,
    with_drafts,
)

PLAIN = AutoregressiveMethod(acceptor=Greedy())
MODEL = random_causal()
ANSWERS = [continue_greedily(MODEL, prompt, 12) for prompt in PROMPTS]


def test_no_drafts_is_an_argmax_loop() -> None:
    """A shifted logit, position or slot in a ragged batch (prompts of one token among them) changes a token."""
    generations = run(MODEL, PLAIN, PROMPTS)
    assert [g.tokens for g in generations] == ANSWERS
    assert all(g.decided_at == tuple(range(12)) for g in generations)
    assert {(g.remasked, g.forced, g.idle) for g in generations} == {(0, 0, 0)}


def test_a_mask_is_never_an_answer() -> None:
    """Guards models that know a mask: what they like best is taken, but for that."""
    favourite = ANSWERS[0][0]
    masked = EmbeddedModel(MODEL.transformer, replace(MODEL.spec, mask_id=favourite))
    tokens = [generation.tokens for generation in run(masked, PLAIN, PROMPTS)]
    order = next_logits(MODEL, PROMPTS[0]).argsort(descending=True).tolist()
    assert tokens[0][0] == order[1] and all(favourite not in one for one in tokens)


@pytest.mark.parametrize("name", ["oracle", "half", "adversary", "noise"])
@pytest.mark.parametrize("length", [1, 4, 20])
def test_drafts_change_nothing(name: str, length: int) -> None:
    """A store cut one slot too late or too early, or a draft beyond `gen_length`, changes the answer."""
    method = with_drafts(Greedy(), drafters(ANSWERS)[name], length)
    assert [g.tokens for g in run(MODEL, method, PROMPTS)] == ANSWERS


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_a_row_does_not_depend_on_the_others(rows: int) -> None:
    """Padding, neighbours and rows that left may not reach a row's logits, nor its rounds."""
    alone = [_seen([prompt], [answer]) for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)][:rows]
    together = _seen(PROMPTS[:rows], ANSWERS[:rows])
    for sample, ((single,), row) in enumerate(zip(alone, together, strict=True)):
        assert single[0] == row[0], f"rounds of sample {sample}"
        torch.testing.assert_close(single[1], row[1], rtol=0, atol=1e-12)


def _seen(prompts: list, answers: list) -> list[tuple[object, torch.Tensor]]:
    """Return per row when each token came, and every logit that was read for it."""
    logits: list[list[torch.Tensor]] = [[] for _ in prompts]

    def watch(completed: Round) -> None:
        for row, sample in enumerate(completed.before.sample_B.tolist()):
            logits[sample].append(completed.prediction.logits_NV[completed.prediction.row_N == row])

    method = with_drafts(Greedy(), Oracle(answers, wrong_every=3))
    generations = run(MODEL, method, prompts, observers=[watch])
    return [(g.decided_at, torch.cat(read)) for g, read in zip(generations, logits, strict=True)]


@pytest.mark.parametrize(("tokens", "length"), [(1, 4), (2, 4), (11, 4), (12, 4), (12, 1), (12, 0)])
def test_a_perfect_drafter_needs_one_call_per_draft_length_plus_one(tokens: int, length: int) -> None:
    """The loop must keep the bonus token of a fully accepted round; the prefill emits the first token."""
    ledger = Ledger()
    run(MODEL, with_drafts(Greedy(), Oracle(ANSWERS), length), PROMPTS[:1], tokens, ledger=ledger)
    (counts,) = ledger.counts([0])
    assert (counts.nfe_prefill, counts.nfe) == (1, 1 + ceil((tokens - 1) / (length + 1)))


def test_the_store_is_that_of_a_fresh_forward_after_each_round() -> None:
    """Keys of rejected drafts that stay visible show in the next logits."""
    checked = []

    def check(completed: Round) -> None:
        after = completed.after
        if not bool((after.length_B < after.limit_B).all()):
            return
        logits_BV = evaluate(MODEL, after, Proposal.empty(after), Ledger()).logits_NV
        for row, length in enumerate(after.length_B.tolist()):
            fresh_V = next_logits(MODEL, after.tokens_BL[row, :length].tolist())
            torch.testing.assert_close(logits_BV[row], fresh_V, rtol=0, atol=1e-12)
        checked.append(int(completed.n_accepted_B.sum()))

    method = with_drafts(Greedy(), Oracle(ANSWERS, wrong_every=4), 3)
    run(MODEL, method, PROMPTS, observers=[check])
    assert len(checked) >= 3
    assert any(checked), "no round with accepted drafts was checked"


@pytest.mark.parametrize("name", ["oracle", "half", "adversary", "noise"])
def test_an_answer_ends_with_its_first_stop_token(name: str) -> None:
    """A stop token inside accepted drafts must cut what was accepted behind it."""
    stop = ANSWERS[2][5]
    expected = [a[: a.index(stop) + 1] if stop in a else a for a in ANSWERS]
    model = random_causal(stop_ids=(stop,))
    generations = run(model, with_drafts(Greedy(), drafters(ANSWERS)[name]), PROMPTS)
    assert [g.tokens for g in generations] == expected
    assert [len(g.decided_at) for g in generations] == [len(tokens) for tokens in expected]
    assert len(expected[2]) < 12


def test_discarded_tokens_are_counted_as_generated() -> None:
    """Rejected drafts and what stands behind a stop token are work, not output."""
    generation = run(MODEL, with_drafts(Greedy(), Oracle(ANSWERS, wrong_every=1), 3), PROMPTS[:1])[0]
    rejected = sum(min(3, 12 - emitted - 1) for emitted in range(1, 12))
    assert generation.tokens_generated == 12 + rejected


def test_plain_decoding_has_the_counts_of_its_closed_form() -> None:
    """Padding must not be counted; the prompt is work like any other."""
    ledger = Ledger()
    generations = run(MODEL, PLAIN, PROMPTS, ledger=ledger)
    for prompt, generation, counts in zip(PROMPTS, generations, ledger.counts(range(8)), strict=True):
        tokens_out = len(generation.tokens)
        assert (counts.nfe_prefill, counts.prefill_tokens) == (1, len(prompt))
        assert counts.nfe == counts.nfe_total == counts.head_tokens == tokens_out
        assert counts.query_tokens == len(prompt) + tokens_out - 1
        assert counts.layer_tokens == 2 * counts.query_tokens
        assert (counts.nfe_draft, counts.nfe_cache) == (0, 0)


def test_each_call_records_what_its_rows_computed() -> None:
    """Keys are the mean over queries of a row, logits only those that are read, and drafts name their role."""
    ledger = Ledger()
    run(MODEL, with_drafts(Greedy(), Oracle(ANSWERS), 3), PROMPTS[:2], 6, ledger=ledger)
    assert [r.role for r in ledger.records] == [Role.PREFILL, Role.VERIFY, Role.TARGET]
    prefill, verify, target = ledger.records
    assert (prefill.query_B.tolist(), prefill.keys_B.tolist(), prefill.head_B.tolist()) == ([1, 3], [1, 2], [1, 1])
    assert (verify.query_B.tolist(), verify.keys_B.tolist(), verify.head_B.tolist()) == ([4, 4], [3.5, 5.5], [4, 4])
    assert (target.query_B.tolist(), target.keys_B.tolist(), target.head_B.tolist()) == ([1, 1], [6, 8], [1, 1])


def test_observers_and_progress_see_every_round() -> None:
    """Traces need drafted and accepted tokens before clipping, from the prefill on."""
    rounds: list[tuple[int, list[int], list[int]]] = []
    progress: list[tuple[int, int]] = []

    def watch(completed: Round) -> None:
        number = int(completed.before.rounds_B[0])
        rounds.append((number, completed.n_drafted_B.tolist(), completed.n_accepted_B.tolist()))

    method = with_drafts(Greedy(), Oracle(ANSWERS, wrong_every=4), 5)
    run(MODEL, method, PROMPTS[:1], observers=[watch], on_progress=lambda *seen: progress.append(seen))
    assert rounds == [(0, [0], [0]), (1, [5], [3]), (2, [5], [3]), (3, [2], [2])]
    assert progress == [(0, 1), (0, 2), (0, 3), (1, 4)]


def test_policies_memory_leaves_with_its_row() -> None:
    """What a policy keeps for a row must stay with the row when others have finished."""

    class Remember(FixedLength):
        def update(self, completed: Round) -> None:
            memory, samples_B = completed.after.memory, completed.after.sample_B
            assert memory.setdefault("sample", samples_B.clone()).tolist() == samples_B.tolist()

    stop = ANSWERS[2][5]
    method = AutoregressiveMethod(acceptor=Greedy(), draft_length=Remember())
    generations = run(random_causal(stop_ids=(stop,)), method, PROMPTS)
    assert len({len(g.tokens) for g in generations}) > 1


def test_logits_that_are_not_numbers_are_an_error() -> None:
    """A broken kernel must not come out as token 0."""
    model = random_causal()
    torch.nn.init.constant_(model.transformer.head.weight, torch.nan)
    with pytest.raises(DecodeError, match="NaN"):
        run(model, PLAIN, PROMPTS[:1])


def test_a_negative_draft_length_is_refused() -> None:
    """The message names key and value."""
    with pytest.raises(FieldError, match=r"^length=-1: must be at least 0, which drafts nothing$"):
        FixedLength(length=-1)


@pytest.mark.parametrize("name", ["oracle", "half", "adversary"])
def test_the_token_margin_is_that_of_plain_decoding(name: str) -> None:
    """Guards the gap of every emitted token, accepted drafts included, and none of rejected ones or those behind."""
    made = run(MODEL, with_drafts(Greedy(), drafters(ANSWERS)[name], 4), PROMPTS)
    for prompt, answer, one in zip(PROMPTS, ANSWERS, made, strict=True):
        best = [next_logits(MODEL, [*prompt, *answer[:place]]).topk(2).values for place in range(len(answer))]
        assert one.token_margin == pytest.approx(min(float(first - second) for first, second in best), rel=1e-6)
        assert one.choice_margin is None


def test_drawn_tokens_have_no_margin() -> None:
    """Guards against calling a sampled token near to another: its uniform number decided."""
    methods = {t: AutoregressiveMethod(acceptor=KeyedSample(temperature=t)) for t in (0.0, 1.0)}
    margins = {t: {one.token_margin for one in run(MODEL, method, PROMPTS)} for t, method in methods.items()}
    assert margins[1.0] == {None}
    assert margins[0.0] == {one.token_margin for one in run(MODEL, PLAIN, PROMPTS)}
