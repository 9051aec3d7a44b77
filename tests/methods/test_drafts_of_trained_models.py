"""Drafts where tokens mean something: list tasks, the trained models, float32."""

from functools import cache

import pytest

from harness.config.catalogue import names
from harness.results.gate.differences import smallest_decided
from harness.runs.decode_batch import Decoded
from tests.methods.trained import decode_task

TASKS = [name for name in names("task") if name.startswith("list_")]
LOSSLESS = {
    "speculative": ("method=speculative", "model@draft=tiny_ar_draft"),
    "itself": ("method=speculative", "model@draft=tiny_ar"),
    "prompt_lookup": ("method=prompt_lookup",),
}
SAMPLES = 8


@cache
def plain(task: str) -> Decoded:
    return decode_task(task, "model=tiny_ar", "method=ar_greedy", samples=SAMPLES)


@pytest.mark.parametrize("name", LOSSLESS)
def test_no_answer_of_a_trained_model_changes(name: str) -> None:
    """Guards losslessness on every list task; a token that hung on less than float32 decides may part the rows."""
    parted = 0
    for task in TASKS:
        base, made = plain(task), decode_task(task, "model=tiny_ar", *LOSSLESS[name], samples=SAMPLES)
        for one, other in zip(base.generations, made.generations, strict=True):
            if one.tokens != other.tokens:
                assert one.token_margin is not None and one.token_margin < smallest_decided("float32"), task
                parted += 1
        assert all(b.nfe >= m.nfe for b, m in zip(base.counts, made.counts, strict=True))
    assert parted <= 1


def test_the_embedded_draft_is_worth_its_calls() -> None:
    """Guards the shipped draft: of its tokens three fifths stand, and the target is called half as often."""
    drafted = stood = calls = plain_calls = 0
    for task in TASKS:
        made = decode_task(task, "model=tiny_ar", *LOSSLESS["speculative"], samples=SAMPLES)
        rounds = sum(one.nfe - one.nfe_prefill for one in made.counts)
        drafted += sum(one.nfe_draft for one in made.counts)
        stood += sum(len(one.tokens) - 1 for one in made.generations) - rounds
        calls += sum(one.nfe for one in made.counts)
        plain_calls += sum(one.nfe for one in plain(task).counts)
    assert stood / drafted > 0.6
    assert plain_calls / calls > 2


def test_a_draft_that_is_the_target_stands_on_every_task() -> None:
    """Guards positions and stores of two models on ragged prompts: hardly a token of one's own draft may fall."""
    for task in TASKS:
        made = decode_task(task, "model=tiny_ar", *LOSSLESS["itself"], "method.K=3", samples=SAMPLES)
        for one, counts in zip(made.generations, made.counts, strict=True):
            assert counts.nfe == 1 + -(-(len(one.tokens) - 1) // 4), task
