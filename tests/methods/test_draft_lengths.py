"""Lengths of drafts that are decided on the way: by hand, by a plain reading, and without a trace in the answers."""

from collections.abc import Iterable

import pytest

from harness.config.build import build_method
from harness.config.composition import compose
from harness.engine.autoregressive.drafting import DraftLength, Round
from harness.engine.autoregressive.method import AutoregressiveMethod, FixedLength
from harness.engine.shared.model import Models
from harness.engine.shared.records import Ledger
from harness.errors import ConfigError
from methods.autoregressive.draft_lengths import ConfidenceLength, HeuristicLength
from methods.autoregressive.greedy import Greedy
from methods.autoregressive.prompt_lookup import PromptLookup
from methods.autoregressive.speculative import ModelDrafter, Rejection
from tests.engine.causal import PROMPTS, Oracle, alike, continue_greedily, next_logits, random_causal, run

MODEL = random_causal()
DRAFT = alike(MODEL)
ANSWERS = [continue_greedily(MODEL, prompt, 12) for prompt in PROMPTS]
LENGTHS: dict[str, DraftLength] = {
    "heuristic": HeuristicLength(length=2),
    "confidence": ConfidenceLength(length=6, threshold=0.5),
}


def lengths(method: AutoregressiveMethod, model: object, prompts: list, seeds: Iterable[int], room: int) -> list:
    """Return per sample the drafted and accepted tokens of each round, its tokens, and its counts."""
    seen: list[list[tuple[int, int]]] = [[] for _ in prompts]

    def watch(completed: Round) -> None:
        for row, sample in enumerate(completed.before.sample_B.tolist()):
            seen[sample].append((int(completed.n_drafted_B[row]), int(completed.n_accepted_B[row])))

    ledger = Ledger()
    made = run(model, method, prompts, room, seeds=seeds, observers=[watch], ledger=ledger)  # type: ignore[arg-type]
    counts = ledger.counts(range(len(prompts)))
    return [(rounds[1:], one.tokens, count) for rounds, one, count in zip(seen, made, counts, strict=True)]


def method(length: DraftLength, temperature: float = 0.0) -> AutoregressiveMethod:
    """Return speculative decoding with this length."""
    return AutoregressiveMethod(
        acceptor=Rejection(temperature=temperature),
        drafter=ModelDrafter(temperature=temperature),
        draft_length=length,
    )


def test_the_schedule_by_hand() -> None:
    """Guards two up, one down, the floor of one, a fresh start per sample, and drafts cut short by the end."""
    made = AutoregressiveMethod(acceptor=Greedy(), drafter=Oracle(ANSWERS), draft_length=HeuristicLength(length=1))
    for _ in range(2):
        ((rounds, _, _),) = lengths(made, MODEL, PROMPTS[:1], [0], 12)
        assert rounds == [(1, 1), (3, 3), (4, 4)]
    wrong = AutoregressiveMethod(
        acceptor=Greedy(), drafter=Oracle(ANSWERS, wrong_every=1), draft_length=HeuristicLength(length=3)
    )
    ((rounds, _, _),) = lengths(wrong, MODEL, PROMPTS[:1], [0], 6)
    assert rounds == [(3, 0), (2, 0), (1, 0), (1, 0), (0, 0)]


def test_confidence_stops_behind_the_first_token_that_is_not_sure() -> None:
    """Guards where a draft ends, by full forwards of the drafter: the unsure token is in it."""
    threshold, most = 0.5, 4
    seen = lengths(
        method(ConfidenceLength(length=most, threshold=threshold)), Models(MODEL, DRAFT), PROMPTS, range(8), 12
    )
    stopped = 0
    for prompt, answer, (rounds, tokens, _) in zip(PROMPTS, ANSWERS, seen, strict=True):
        assert tokens == answer
        emitted = 1
        for drafted, accepted in rounds:
            before, expected = [*prompt, *answer[:emitted]], 0
            while expected < min(most, 12 - emitted - 1):
                law_V = next_logits(DRAFT, before).softmax(-1)
                before.append(int(law_V.argmax()))
                expected += 1
                if law_V.max() < threshold:
                    break
            assert drafted == expected
            stopped += expected < min(most, 12 - emitted - 1)
            emitted += accepted + 1
    assert stopped > 5, "no draft was stopped"


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("name", LENGTHS)
@pytest.mark.parametrize("rows", [3, 8])
def test_a_row_does_not_depend_on_the_others(name: str, rows: int, temperature: float) -> None:
    """Guards rows that stop while others go on: no call, length or random number is another's."""
    models, made = Models(MODEL, DRAFT), method(LENGTHS[name], temperature)
    alone = [lengths(made, models, [prompt], [100 + i], 12)[0] for i, prompt in enumerate(PROMPTS[:rows])]
    assert alone == lengths(made, models, PROMPTS[:rows], range(100, 100 + rows), 12)
    assert temperature or [tokens for _, tokens, _ in alone] == ANSWERS[:rows]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_no_threshold_is_a_fixed_length(temperature: float) -> None:
    """Guards the invariant: counts and answers are those of `fixed`."""
    models = Models(MODEL, DRAFT)
    made = [
        lengths(method(length, temperature), models, PROMPTS, range(8), 12)
        for length in (FixedLength(length=3), ConfidenceLength(length=3, threshold=0))
    ]
    assert made[0] == made[1]


def test_the_probability_is_that_of_the_law_drawn_from() -> None:
    """Guards the temperature of what is compared with the threshold: at a high one no token is sure."""
    cold, hot = (
        sum(
            drafted
            for rounds, _, _ in lengths(
                method(ConfidenceLength(length=4, threshold=0.3), t), Models(MODEL, DRAFT), PROMPTS, range(8), 12
            )
            for drafted, _ in rounds[:1]
        )
        for t in (0.1, 50.0)
    )
    assert hot == 8 and cold > 16


def test_bad_lengths_are_refused() -> None:
    """The messages name key and value, and what would do."""
    for length, said in (
        (lambda: HeuristicLength(length=0), "^length=0: must be at least 1"),
        (lambda: ConfidenceLength(length=-1), "^length=-1: must be at least 0"),
        (lambda: ConfidenceLength(threshold=1.5), r"^threshold=1.5: must lie in \[0, 1\]"),
        (
            lambda: AutoregressiveMethod(acceptor=Greedy(), drafter=PromptLookup(), draft_length=ConfidenceLength()),
            "ConfidenceLength: decides behind every token, and PromptLookup does not draft one by one; use",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            length()


@pytest.mark.parametrize("name", ["confidence", "heuristic", "fixed"])
def test_speculative_takes_every_length(name: str) -> None:
    """Guards the options of the slot by their names; K is that of `fixed`, as the refusal of it says."""
    words = ["model=tiny_ar", "method=speculative", f"method/draft_length={name}"]
    made = build_method(compose([*words, "method.draft_length.length=3"]))
    assert isinstance(made, AutoregressiveMethod)
    assert made.draft_length.length == 3  # type: ignore[attr-defined]
    if name != "fixed":
        with pytest.raises(ConfigError, match=r"method.K=3: nothing reads it .* set method.draft_length.length, or"):
            build_method(compose([*words, "method.K=3"]))
