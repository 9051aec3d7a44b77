"""Parts written from the page on parts of one's own: they run in every combination that they declare, and in no other.

The folder `strangers` is a plug-in: a selector and a reviser with memory, a verifier, two caches, and a drafter.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from harness.commands.check.rules import RULES
from harness.commands.check.subject import Subject
from harness.config import matrix
from harness.config.build import build_method
from harness.config.compatibility import reason_against
from harness.config.composition import compose
from harness.config.plugin_folders import VARIABLE
from harness.engine.autoregressive.drafting import Round
from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.diffusion.method import DiffusionMethod
from harness.engine.shared.model import ModelKind
from harness.engine.shared.records import Ledger
from tests.caches.decoding import random_model
from tests.conftest import RunDecbench
from tests.engine.causal import PROMPTS, continue_greedily, random_causal, run

FOLDER = Path(__file__).parent / "strangers"
MODELS = {"masked": ("masked_diffusion", 0), "shifted": ("masked_diffusion", 1), "block": ("block_diffusion", 0)}
CACHES = ("none", "around", "past_blocks", "dual", "prefix")
VERIFIERS = ("none", "ladder", "freedave")
ROWS = ((2, 31, 76, 4), (2, 33, 76, 77, 78, 4), (2, 36, 76, 77, 78, 79, 80, 81, 4))
KNOBS = {"doubt": {"least": 0.3, "most": 2}, "threshold": {"threshold": 0.5}, "twice_named": {"sure": 0.6}}


@pytest.fixture(autouse=True)
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the folder as a user does; digests are remembered apart."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(VARIABLE, str(FOLDER))


@cache
def part(slot: str, name: str) -> Any:
    """Return a policy, once: it holds parameters only."""
    return matrix.policies(slot)[name](**KNOBS.get(name, {}))


@cache
def plain() -> DiffusionMethod:
    """Return the method of the plug-in that has a selector of its own and nothing else."""
    made = build_method(compose(["model=random_mdm", "method=twice", "method.block_length=4", "gen_length=8"]))
    assert isinstance(made, DiffusionMethod)
    return made


@cache
def decoded(model: str, **parts: str) -> Subject | str:
    """Return a method with these parts, by slot, on random weights, or why they do not go together."""
    kind, shift = MODELS[model]
    chosen = {slot: part(slot, name) for slot, name in parts.items()}
    if reason := reason_against(plain(), ModelKind(kind), **chosen):
        return reason
    # Keys and values of a single layer depend on their own token alone: none could be out of date.
    weights = random_model(kind, shift, layers=2)
    return Subject(words=str(parts), method=replace(plain(), **chosen), model=weights, prompts=ROWS, length=8)


def answers(model: str, **parts: str) -> tuple[list[Any], list[int], list[int]]:
    """Return what all rows together came to: tokens with the step of each, calls, and positions computed."""
    made = decoded(model, **parts)
    assert isinstance(made, Subject), made
    counts = made.together.counts
    return [one[:2] for one in made.together.answers], [c.nfe for c in counts], [c.query_tokens for c in counts]


def beside(cache: str) -> Iterator[dict[str, str]]:
    """Yield what is put beside a cache: all of the plug-in's and ours, then its own beside our selector."""
    for reviser in ("never", "doubt"):
        for verifier in VERIFIERS:
            yield {"selector": "twice_named", "reviser": reviser, "verifier": verifier, "cache": cache}
    yield {"selector": "threshold", "reviser": "doubt", "verifier": "ladder", "cache": cache}


SLOWER = ("dual", "prefix")
"""Caches of ours: those of the plug-in are what this is about."""
CASES = [
    pytest.param(model, cache, marks=[pytest.mark.slow] * (cache in SLOWER))
    for model in MODELS
    for cache in CACHES
    if cache != "past_blocks" or model == "block"
]


@pytest.mark.parametrize(("model", "cache"), CASES)
def test_what_is_declared_runs(model: str, cache: str):
    """Guards all that the parts declare: rows end, alone as together; verifiers and the exact cache change nothing."""
    masked_again = 0
    for parts in beside(cache):
        made = decoded(model, **parts)
        assert isinstance(made, Subject), f"{parts}: {made}"
        broken = [*RULES["progress"](made), *RULES["mask"](made), *made.together.touched]
        assert not broken, f"{parts}: {broken}"
        first, _, longest = made.together.answers
        assert [first, longest] == [made.decode([row]).answers[0] for row in (0, 2)], parts
        for one in made.together.generations:
            assert one.tokens_generated == len(one.tokens) + one.remasked, parts
            masked_again += one.remasked * (parts["reviser"] == "doubt")
        tokens, calls, computed = answers(model, **parts)
        alone, most, _ = answers(model, **parts | {"verifier": "none"})
        assert tokens == alone and all(a <= b for a, b in zip(calls, most, strict=True)), parts
        if cache == "past_blocks":
            whole, same, more = answers(model, **parts | {"cache": "none"})
            assert tokens == whole and sum(computed) < sum(more), parts
            # Where keys and values are kept, FreeDave's drafts end with their window.
            assert calls == same or parts["verifier"] == "freedave", parts
    assert masked_again > 0, "nothing was ever taken back"


@pytest.mark.parametrize("model", MODELS)
def test_parts_that_are_built_on_save_what_they_are_for(model: str):
    """Guards against parts that declare much and do nothing."""
    usual = {"selector": "threshold", "reviser": "never", "verifier": "none", "cache": "none"}
    _, calls, computed = answers(model, **usual)
    _, climbed, _ = answers(model, **usual | {"verifier": "ladder"})
    _, _, kept = answers(model, **usual | {"cache": "around"})
    assert sum(climbed) < sum(calls) and sum(kept) < sum(computed)
    assert answers(model, **usual | {"selector": "twice_named"})[0] != answers(model, **usual)[0]


@pytest.mark.parametrize("model", ["shifted", "block"])
def test_every_other_cache_runs_or_is_refused_with_a_reason(model: str):
    """Guards combinations that nobody thought of: what is not refused decodes, and a refusal says what would do."""
    ran, refused = set(), set()
    for name in matrix.policies("cache"):
        for verifier in ("none", "ladder"):
            made = decoded(model, reviser="doubt", verifier=verifier, cache=name)
            if isinstance(made, str):
                assert "; use " in made, made
                refused.add((name, verifier))
            else:
                assert not [*RULES["progress"](replace(made, prompts=ROWS[:1]))], made.words
                ran.add((name, verifier))
    assert {("dual", "ladder"), ("layer_reuse", "none")} <= ran
    assert {("layer_reuse", "ladder"), ("elastic", "none")} <= refused
    assert (("past_blocks", "none") in ran) == (model == "block")


@pytest.mark.parametrize(
    ("words", "tried"),
    [
        ("method=twice_all rule=counting", {"counting"}),
        ("method=twice_blocks", {"batch", "counting", "freedave"}),
        ("method=twice_ahead rule=lossless", {"lossless"}),
        ("method=echo_ahead", {"batch", "counting", "lossless"}),
        ("cache=past_blocks rule=exact", {"exact"}),
    ],
)
def test_the_command_finds_nothing_broken(words: str, tried: set[str], call_decbench: RunDecbench):
    """Guards what a stranger is told to run, on a method with each of the parts."""
    process = call_decbench("check", *words.split())
    assert process.returncode == 0, process.stdout + process.stderr
    assert tried <= {line.split()[0] for line in process.stdout.splitlines() if line.strip()}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("method=twice_blocks model=random_mdm", "does not run on model=random_mdm, which is masked_diffusion"),
        ("method=twice method/cache=past_blocks model=random_mdm", "needs a block_diffusion model"),
        ("method=twice_ahead method/cache=layer_reuse model=random_mdm", "no exact predictions of drafts"),
        ("method=twice_doubted method/cache=elastic model=random_mdm", "every position that the reviser doubt reads"),
        ("method=twice_near method/verifier=freedave method.verifier.reach=eager model=random_mdm", "beyond the"),
        ("method=echo_ahead model=random_mdm", "does not run on model=random_mdm"),
        ("method=twice method/drafter=ngram model=random_mdm", "drafter"),
        ("method=twice_ahead method.rungs=many model=random_mdm", "rungs"),
    ],
)
def test_what_does_not_go_together_is_refused(words: str, said: str, call_decbench: RunDecbench):
    """Guards against a traceback, and against running something else: one line that names the parts."""
    process = call_decbench("run", *words.split(), "task=list_copy", "gen_length=32", "results_dir=store")
    assert process.returncode == 2 and said in process.stderr, process.stderr
    assert len(process.stderr.splitlines()) == 1 and "Traceback" not in process.stderr


def drafting(n: int) -> AutoregressiveMethod:
    """Return greedy decoding with drafts of what followed the last `n` tokens, as the plug-in has it."""
    made = build_method(compose(["model=tiny_ar", "method=echo_ahead", f"method.n={n}"]))
    assert isinstance(made, AutoregressiveMethod)
    return made


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_draft_from_the_prompt_is_greedy_decoding(n: int):
    """Guards the drafter against the model's own word: every token of an argmax loop, alone and together."""
    model, method = random_causal(), drafting(n)
    expected = [continue_greedily(model, prompt, 12) for prompt in PROMPTS]
    assert [one.tokens for one in run(model, method, PROMPTS)] == expected
    assert [run(model, method, [prompt])[0].tokens for prompt in PROMPTS] == expected


def test_what_repeats_takes_fewer_calls():
    """Guards what drafts are for, and the counts: a call writes one token and what was accepted."""
    model, method, ledger, seen = random_causal(), drafting(2), Ledger(), []
    prompts = [[*prompt, *continue_greedily(model, prompt, 24)] for prompt in ([3], [6, 6], [1, 2])]
    generations = run(model, method, prompts, ledger=ledger, observers=[seen.append])
    assert [one.tokens for one in generations] == [continue_greedily(model, prompt, 12) for prompt in prompts]
    counts = ledger.counts(range(len(prompts)))
    for row, (one, counted) in enumerate(zip(generations, counts, strict=True)):
        written, accepted = _written(seen, row)
        assert counted.nfe < 12 and accepted > 0
        assert one.tokens_generated == written and counted.nfe + accepted >= len(one.tokens) == 12


def _written(rounds: list[Round], sample: int) -> tuple[int, int]:
    """Return how many tokens were drafted or emitted for a prompt, and how many drafts stood."""
    mine = [
        (int(drafted) + 1, int(accepted))
        for one in rounds
        for number, drafted, accepted in zip(one.before.sample_B, one.n_drafted_B, one.n_accepted_B, strict=True)
        if number == sample
    ]
    return sum(written for written, _ in mine), sum(accepted for _, accepted in mine)
