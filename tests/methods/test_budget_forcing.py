"""Budget forcing: plain readings of both rules, what is charged, and that keys and values fit what was written over."""

from dataclasses import replace

import pytest
import torch

from harness.config.build import build_method
from harness.config.composition import compose
from harness.engine.autoregressive.branching import rewritten
from harness.engine.autoregressive.drafting import Proposal, Round
from harness.engine.autoregressive.loop import evaluate
from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.autoregressive.sequences import Sequences
from harness.engine.shared.generation import GIVEN
from harness.engine.shared.randomness import forked_seeds
from harness.engine.shared.records import Ledger
from harness.errors import ConfigError, FieldError
from methods.autoregressive.budget_forcing import Budget, Forcing
from methods.autoregressive.greedy import Greedy
from tests.engine.causal import PROMPTS, VOCABULARY, next_logits, random_causal, run

STOP = 4
MODEL = random_causal(stop_ids=(STOP,))
PIECES = [chr(ord("a") + token) for token in range(VOCABULARY)]


def encode(text: str) -> list[int]:
    return [PIECES.index(letter) for letter in text]


def policy(**knobs: object) -> Budget:
    """Return the policy over the letters a to s, which waits with `bc` and answers with `kl`."""
    told = {"wait": "bc", "cue": "kl"} | knobs
    return Budget(**told).in_tokens(encode, PIECES)  # type: ignore[arg-type]


def method(**knobs: object) -> AutoregressiveMethod:
    return AutoregressiveMethod(acceptor=Greedy(), revision=policy(**knobs))


GREEDY = run(MODEL, AutoregressiveMethod(acceptor=Greedy()), PROMPTS, 16)
# What greedy answers say early: a text of one letter and one of two, so that both are met.
ENDS = [PIECES[GREEDY[0].tokens[2]], "".join(PIECES[token] for token in GREEDY[2].tokens[1:3])]


def plain(prompt: list[int], end: str, limit: int, **knobs: int) -> list[int]:
    """Decode one prompt as s1 says: an end before `min_think` is taken back, one is put behind `max_think`."""
    said: list[int] = []
    waits, answers = 0, False
    while len(said) < limit and said[-1:] != [STOP]:
        said.append(int(next_logits(MODEL, prompt + said).argmax()))
        if answers:
            continue
        text = "".join(PIECES[token] for token in said)
        ends, thought = said[-1] == STOP or text.endswith(end), len(said)
        if ends:
            thought -= 1 if said[-1] == STOP else len(end)
        if ends and thought < knobs["min_think"] and waits < knobs["max_waits"]:
            if thought + 2 < limit:
                said, waits = said[:thought] + encode("bc"), waits + 1
        elif ends:
            answers = True
        elif knobs["max_think"] and thought >= knobs["max_think"]:
            answers = True
            if thought + len(end) + 2 < limit:
                said += encode(end + "kl")
    return said


@pytest.mark.parametrize("knobs", [(12, 0, 2), (6, 9, 1), (0, 5, 0), (20, 0, 9)])
@pytest.mark.parametrize("end", ENDS)
def test_a_plain_reading_of_min_wait(end: str, knobs: tuple[int, int, int]):
    """Guards ends of several tokens, stops, the number of waits, and thoughts that are cut."""
    told = dict(zip(("min_think", "max_think", "max_waits"), knobs, strict=True))
    made = run(MODEL, method(end=end, **told), PROMPTS, 16)
    assert [list(one.tokens) for one in made] == [plain(prompt, end, 16, **told) for prompt in PROMPTS]
    assert any(one.tokens != other.tokens for one, other in zip(made, GREEDY, strict=True))


def test_nothing_is_forced_where_nothing_is_asked():
    """Guards a look at the text that would change a row."""
    made = run(MODEL, method(end=ENDS[0], max_waits=0), PROMPTS, 16)
    assert [one.tokens for one in made] == [one.tokens for one in GREEDY]


def test_fill_burns_the_budget_and_then_answers():
    """Guards the follow-up's rule: every end is taken back, and the cue stands where the reserve begins."""
    fill = method(variant=Forcing.fill, end=ENDS[0], reserve=6, max_waits=100)
    for one in run(MODEL, fill, PROMPTS, 16):
        text = "".join(PIECES[token] for token in one.tokens)
        cued = [at for at in range(len(text)) if text[at:].startswith("kl") and one.decided_at[at] == GIVEN]
        # A wait that is put in at the last moment reaches over the reserve's first token.
        assert len(cued) == 1 and cued[0] <= 11
        thinking = text[: cued[0]]
        assert ENDS[0] not in thinking and STOP not in one.tokens[: cued[0]]


def test_what_is_put_in_is_no_token_of_the_models():
    """Guards the counts: injected tokens are given, are computed once, and were not generated; discarded ones were."""
    ledger = Ledger()
    told = {"min_think": 12, "max_waits": 2, "end": ENDS[0]}
    made = run(MODEL, method(**told), PROMPTS, 16, ledger=ledger)
    for row, one in enumerate(made):
        given = sum(at == GIVEN for at in one.decided_at)
        assert one.tokens_generated == ledger.counts([row])[0].nfe
        assert given % 2 == 0 and len(one.tokens) == len(one.decided_at)
    assert any(GIVEN in one.decided_at for one in made)


def test_the_store_is_that_of_a_fresh_forward_after_each_round():
    """Guards keys and values of tokens that were taken back."""
    revised = []

    def check(completed: Round) -> None:
        after = completed.before
        if bool(completed.before.rounds_B.any()):
            logits_BV = evaluate(MODEL, after, Proposal.empty(after), Ledger()).logits_NV
            for row, length in enumerate(after.length_B.tolist()):
                fresh_V = next_logits(MODEL, after.tokens_BL[row, :length].tolist())
                torch.testing.assert_close(logits_BV[row], fresh_V, rtol=0, atol=1e-10)
            revised.append(bool((after.computed_B < after.length_B - 1).any()))

    run(MODEL, method(min_think=12, max_waits=3, end=ENDS[1]), PROMPTS, 16, observers=[check])
    assert any(revised), "nothing was taken back"


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"min_think": -1}, "min_think=-1: must be at least 0"),
        ({"end": ""}, "end='': must be a text"),
        ({"min_think": 5, "max_think": 3}, "max_think=3: must be at least min_think=5"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs: dict[str, object], told: str):
    """Guards the line that names key, value and range."""
    with pytest.raises(FieldError, match=told):
        Budget(**knobs)  # type: ignore[arg-type]


@pytest.mark.parametrize("drafter", ["prompt_lookup", "early_exit", "trigrams"])
def test_drafts_are_refused(drafter: str) -> None:
    """Guards ends that stand in the middle of a round, and drafts behind tokens that no call has computed yet."""
    with pytest.raises(ConfigError, match="works with method/drafter=empty alone"):
        build_method(compose(["model=tiny_ar", "method=budget_forcing", f"method/drafter={drafter}"]))


@pytest.mark.parametrize("method", ["adadec", "cntp", "beam"])
def test_several_tokens_of_a_round_and_beams_are_refused(method: str) -> None:
    """Guards the same ends, and hypotheses whose sums would be those of other tokens."""
    with pytest.raises(ConfigError, match="alone, and not with"):
        build_method(compose(["model=tiny_ar", f"method={method}", "method/revision=budget"]))


def test_a_row_that_is_rewritten_draws_as_no_other_row_of_its_sample() -> None:
    """Guards the seeds: rows of a sample have those of the numbers 0, 1, 2, ..."""
    rows = Sequences.from_prompts(MODEL, [[1, 2]], gen_length=8, seeds=[7])
    moved = rewritten(replace(rows, length_B=rows.length_B + 2), 0, 1, [3])
    others = forked_seeds(rows.seed_B.repeat(64), torch.arange(64))
    assert int(moved.seed_B) not in others.tolist()
