"""Staged prompting: a plain reading of its stages, what is charged, and the answer that is read."""

import pytest

from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.shared.generation import GIVEN
from harness.engine.shared.records import Ledger
from harness.errors import FieldError
from harness.runs.votes import answer_of
from methods.autoregressive.greedy import Greedy
from methods.autoregressive.staged import Stages
from tests.engine.causal import PROMPTS, VOCABULARY, next_logits, random_causal, run

STOP, ROOM = 4, 40
MODEL = random_causal(stop_ids=(STOP,))
GREEDY = run(MODEL, AutoregressiveMethod(acceptor=Greedy()), PROMPTS, ROOM)


def encode(text: str) -> list[int]:
    """Tell openings and closings apart by few tokens, which say nothing."""
    return [5, 6, 7] if not text.startswith("\n</") else [8, 9]


def stages(closing: int | None = None, **knobs: object) -> Stages:
    """Return two stages; one token closes the first of them."""
    pieces = ["</requirements>" if token == closing else "?" for token in range(VOCABULARY)]
    told = {"stages": ("RA", "CODE"), "budgets": (6, 5)} | knobs
    return Stages(**told).in_tokens(encode, pieces)  # type: ignore[arg-type]


def plain(prompt: list[int], closing: int | None) -> list[int]:
    """Decode one prompt stage by stage, as the module says."""
    said = [5, 6, 7]
    for stage, budget in ((1, 6), (2, 5)):
        begun = len(said)
        while True:
            said.append(int(next_logits(MODEL, prompt + said).argmax()))
            closed = stage == 1 and said[-1] == closing
            if said[-1] == STOP or closed or len(said) - begun == budget:
                break
        if stage == 1:
            said = said[:-1] if said[-1] == STOP else said
            said += [5, 6, 7] if closed else [8, 9, 5, 6, 7]
    return said if said[-1] == STOP else [*said, STOP]


@pytest.mark.parametrize("closing", [None, 3, 12, 16])
def test_a_plain_reading_of_the_stages(closing: int | None) -> None:
    """Guards budgets, tags that are closed or not, stops that end a stage and not the row, and the end of the last."""
    made = run(MODEL, AutoregressiveMethod(acceptor=Greedy(), revision=stages(closing)), PROMPTS, ROOM)
    assert [list(one.tokens) for one in made] == [plain(prompt, closing) for prompt in PROMPTS]
    alone = [
        run(MODEL, AutoregressiveMethod(acceptor=Greedy(), revision=stages(closing)), [prompt], ROOM)[0]
        for prompt in PROMPTS
    ]
    assert [one.tokens for one in alone] == [one.tokens for one in made]


def test_told_tokens_are_computed_and_not_generated() -> None:
    """Guards the count: what is told costs positions, the token that was taken back a call."""
    ledger = Ledger()
    (made,) = run(MODEL, AutoregressiveMethod(acceptor=Greedy(), revision=stages()), PROMPTS[1:2], ROOM, ledger=ledger)
    given = sum(at == GIVEN for at in made.decided_at)
    (counts,) = ledger.counts([0])
    assert made.tokens_generated == counts.nfe == len(made.tokens) - given + 1
    # Neither the last token that was said nor the stop behind it is fed.
    assert counts.query_tokens == len(PROMPTS[1]) + len(made.tokens) - 2


def test_nothing_is_told_without_a_tokenizer_and_without_room() -> None:
    """Guards rows of models whose texts nobody knows, and answers that are too short for the next stage."""
    bare = run(MODEL, AutoregressiveMethod(acceptor=Greedy(), revision=Stages()), PROMPTS, ROOM)
    assert [one.tokens for one in bare] == [one.tokens for one in GREEDY]
    short = run(MODEL, AutoregressiveMethod(acceptor=Greedy(), revision=stages()), PROMPTS, 3)
    assert [one.tokens for one in short] == [one.tokens[:3] for one in GREEDY]


def test_the_answer_is_the_last_code() -> None:
    """Guards graders against artifacts that look like programs; other methods answer with all that they say."""
    method = AutoregressiveMethod(acceptor=Greedy(), revision=Stages())
    assert answer_of(method, "<pseudocode>x</pseudocode> <code>y</code><code>z\n</code> bye") == "z\n"
    assert answer_of(method, "plain") == "plain"
    assert answer_of(AutoregressiveMethod(acceptor=Greedy()), "<code>y</code>") == "<code>y</code>"


def test_a_plan_asks_once_with_all_tokens() -> None:
    """Guards the comparison at equal tokens."""
    (opening,), closings = Stages(plan=True).texts()
    assert (
        all(f"<{tag}>" in opening for tag in ("requirements", "machine", "pseudocode", "code")) and len(closings) == 1
    )
    made = run(MODEL, AutoregressiveMethod(acceptor=Greedy(), revision=stages(plan=True)), PROMPTS, ROOM)
    assert max(len(one.tokens) for one in made) == 3 + 6 + 5 + 1


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"stages": ("CODE", "RA"), "budgets": (1, 1)}, r"stages=\['CODE', 'RA'\]: must be some of RA, AD, DD, CODE"),
        ({"stages": ("RA",), "budgets": (1,)}, r"stages=\['RA'\]: must be some of"),
        ({"budgets": (1, 2)}, r"budgets=\[1, 2\]: must be 4 numbers"),
    ],
)
def test_knobs_that_cannot_be_are_refused(knobs: dict, told: str) -> None:
    """Guards the line that names key, value and range."""
    with pytest.raises(FieldError, match=told):
        Stages(**knobs)
