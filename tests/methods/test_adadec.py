"""AdaDec: the ends of its knobs, a plain reading of its rule, rollouts that are taken over, and what they cost."""

import pytest
import torch

from harness.engine.autoregressive.drafting import Proposal, Round
from harness.engine.autoregressive.loop import evaluate
from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.shared.records import Ledger
from harness.errors import FieldError
from harness.models.embedded import EmbeddedModel
from methods.autoregressive.adadec import LookaheadRerank
from methods.autoregressive.greedy import Greedy
from tests.engine.causal import PROMPTS, next_logits, random_causal, run

STOP = 4


def sharp(factor: float = 6.0) -> EmbeddedModel:
    """Return a random model whose entropies lie on both sides of one."""
    model = random_causal(stop_ids=(STOP,))
    with torch.no_grad():
        model.transformer.head.weight *= factor
    return model


MODEL = sharp()
GREEDY = [one.tokens for one in run(MODEL, AutoregressiveMethod(acceptor=Greedy()), PROMPTS)]


def adadec(**knobs: float | bool) -> AutoregressiveMethod:
    """Return the method."""
    return AutoregressiveMethod(acceptor=LookaheadRerank(**knobs))  # type: ignore[arg-type]


@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("knobs", [{"theta": 99.0}, {"theta": 0.0, "B": 1}])
def test_it_is_greedy_at_the_ends_of_its_knobs(knobs: dict[str, float], reuse: bool):
    """Guards a pause that changes the only candidate, or one that never should be made."""
    assert [one.tokens for one in run(MODEL, adadec(**knobs, reuse_rollout=reuse), PROMPTS)] == GREEDY


def entropy(logits_V: torch.Tensor) -> float:
    return float(torch.special.entr(logits_V.softmax(-1)).sum())


def plain(prompt: list[int], *, theta: float, B: int, L: int, limit: int) -> tuple[list[int], int, int]:
    """Decode one prompt by full forwards; return the answer, the pauses, and the longest rollouts' lengths, summed."""
    answer: list[int] = []
    pauses = waves = 0
    while len(answer) < limit and answer[-1:] != [STOP]:
        log_p_V = next_logits(MODEL, prompt + answer).log_softmax(-1)
        if entropy(log_p_V) < theta:
            answer.append(int(log_p_V.argmax()))
            continue
        scored, longest = [], 0
        for token in log_p_V.argsort(descending=True, stable=True)[:B].tolist():
            tried, total = [token], float(log_p_V[token])
            while len(tried) <= L and tried[-1] != STOP and len(answer) + len(tried) < limit:
                ahead_V = next_logits(MODEL, prompt + answer + tried).log_softmax(-1)
                tried.append(int(ahead_V.argmax()))
                total += float(ahead_V.max())
            scored.append((total / len(tried), -len(scored), token))
            longest = max(longest, len(tried) - 1)
        answer.append(max(scored)[2])
        pauses, waves = pauses + 1, waves + longest
    return answer, pauses, waves


@pytest.mark.parametrize("theta", [0.2, 0.6, 1.2])
def test_a_plain_reading_of_the_rule(theta: float):
    """Guards candidates, rollouts that end early, their scores, and the calls of every pause."""
    ledger = Ledger()
    made = run(MODEL, adadec(theta=theta, L=3, reuse_rollout=False), PROMPTS, ledger=ledger)
    pauses = 0
    for row, prompt in enumerate(PROMPTS):
        answer, paused, waves = plain(prompt, theta=theta, B=3, L=3, limit=12)
        assert list(made[row].tokens) == answer, f"row {row}"
        assert ledger.counts([row])[0].nfe == len(answer) + waves
        pauses += paused
    assert 0 < pauses < sum(len(one.tokens) for one in made)


@pytest.mark.parametrize("theta", [0.2, 0.6, 1.2])
def test_rollouts_that_are_taken_over_change_no_token(theta: float):
    """Guards a rollout that is followed past a pause; and it must save calls somewhere."""
    ledgers = {reuse: Ledger() for reuse in (True, False)}
    made = {
        reuse: run(MODEL, adadec(theta=theta, reuse_rollout=reuse), PROMPTS, ledger=ledger)
        for reuse, ledger in ledgers.items()
    }
    assert [one.tokens for one in made[True]] == [one.tokens for one in made[False]]
    calls = {reuse: sum(one.nfe for one in ledger.counts(range(8))) for reuse, ledger in ledgers.items()}
    assert calls[True] < calls[False]


def test_the_store_is_that_of_a_fresh_forward_after_each_round():
    """Guards the keys and values of the winner, cropped, for rows that paused and rows that did not."""
    looked = []

    def check(completed: Round) -> None:
        after = completed.after
        if bool((after.length_B < after.limit_B).all()):
            logits_BV = evaluate(MODEL, after, Proposal.empty(after), Ledger()).logits_NV
            for row, length in enumerate(after.length_B.tolist()):
                fresh_V = next_logits(MODEL, after.tokens_BL[row, :length].tolist())
                torch.testing.assert_close(logits_BV[row], fresh_V, rtol=0, atol=1e-10)
            looked.append(int((after.length_B - completed.before.length_B).max()))

    run(MODEL, adadec(theta=1.4, L=2), PROMPTS, 40, observers=[check])
    assert max(looked) > 1, "no rollout was taken over"


def test_a_pause_is_at_theta_and_above():
    """Guards the side on which equality lies."""
    (entropy_0,) = {entropy(next_logits(MODEL, PROMPTS[0]))}
    for theta, rows in ((entropy_0 * (1 - 1e-12), 4), (entropy_0 * (1 + 1e-9), 2)):
        ledger = Ledger()
        run(MODEL, adadec(theta=theta, L=1, reuse_rollout=False), PROMPTS[:1], 2, ledger=ledger)
        first = [len(record.query_B) for record in ledger.records[:2]]
        assert sum(first) == rows, theta


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"B": 0}, "B=0: must be from 1 to"),
        ({"L": 0}, "L=0: must be at"),
        ({"theta": -1.0}, "theta=-1.0: must be at"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs: dict[str, float], told: str):
    """Guards the line that names key, value and range."""
    with pytest.raises(FieldError, match=told):
        LookaheadRerank(**knobs)  # type: ignore[arg-type]
