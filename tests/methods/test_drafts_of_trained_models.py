"""Drafts where tokens mean something: list tasks, the trained models, float32."""

from functools import cache

import pytest
import torch

from harness.config.build import load_model
from harness.config.catalogue import names
from harness.config.composition import compose
from harness.engine.autoregressive.drafting import AutoregressiveMethod
from harness.engine.shared.model import Models
from harness.results.gate.differences import smallest_decided
from harness.runs.decode_batch import Decoded
from methods.autoregressive.greedy import Greedy
from methods.autoregressive.lookahead import Lookahead
from methods.autoregressive.prompt_lookup import PromptLookup
from methods.autoregressive.speculative import ModelDrafter
from tests.engine.causal import RaggedNoise, run, with_drafts
from tests.methods.trained import decode_task

TASKS = [name for name in names("task") if name.startswith("list_")]
LOSSLESS = {
    "speculative": ("method=speculative", "model@draft=tiny_ar_draft"),
    "itself": ("method=speculative", "model@draft=tiny_ar"),
    "prompt_lookup": ("method=prompt_lookup",),
    "lookahead": ("method=lookahead",),
    "aded": ("method=aded",),
    "deer": ("method=deer", "model@draft=tiny_mdm", "method.K=8"),
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


@pytest.mark.parametrize("method", ["lookahead", "aded"])
def test_trees_on_the_oracle_change_nothing(method: str) -> None:
    """Guards a store that holds tokens in place of keys, whose slots a path moves through."""
    base, made = (
        decode_task("list_repeat_list", "model=oracle_ar", f"method={name}", samples=SAMPLES)
        for name in ("ar_greedy", method)
    )
    assert [one.tokens for one in base.generations] == [one.tokens for one in made.generations]
    assert sum(one.nfe for one in made.counts) < sum(one.nfe for one in base.counts)


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("name", ["speculative", "prompt_lookup", "lookahead", "noise"])
def test_no_answer_to_a_random_prompt_changes(name: str, rows: int) -> None:
    """Guards prompts that are no task, of any length, where the draft is mostly wrong, and rows that end apart."""
    loaded = load_model(compose(["model=tiny_ar", "model@draft=tiny_ar_draft", "method=speculative"]))
    assert isinstance(loaded.model, Models)
    vocabulary, chance = loaded.model.spec.vocab_size, torch.Generator().manual_seed(rows)
    lengths = torch.randint(1, 24, (rows,), generator=chance).tolist()
    prompts = [torch.randint(vocabulary, (length,), generator=chance).tolist() for length in lengths]
    drafters = {
        "speculative": ModelDrafter(),
        "prompt_lookup": PromptLookup(),
        "lookahead": Lookahead(),
        "noise": RaggedNoise(torch.Generator().manual_seed(rows), vocabulary),
    }
    plain_rows = run(loaded.model, AutoregressiveMethod(acceptor=Greedy()), prompts, 24)
    made = run(loaded.model, with_drafts(Greedy(), drafters[name]), prompts, 24)
    for one, other in zip(plain_rows, made, strict=True):
        near = one.token_margin is not None and one.token_margin < smallest_decided("float32")
        assert one.tokens == other.tokens or near


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
