"""transformers' own generation behind the project's counters: greedy answers, and every call that was made."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from harness.config import build
from harness.config.compatibility import fit_decoding
from harness.config.composition import compose
from harness.engine import own_sampler
from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.own_sampler import OwnSamplerMethod
from harness.engine.shared.generation import Generation
from harness.engine.shared.model import Models
from harness.engine.shared.records import Ledger, Role
from harness.errors import ConfigError, DataError, FieldError
from harness.models.hf_causal import CausalModel
from methods.autoregressive.greedy import Greedy
from methods.transformers_own import Assisted, ExitEarly, Lookup, Plain, Schedule
from tests.engine.causal import run
from tests.models import test_hf_causal as checkpoints

LAYERS, LENGTH = 4, 12
CHANGES = {"Llama": {"num_hidden_layers": LAYERS}, "GPT2": {"n_layer": LAYERS}}
PROMPTS = [[3], [5, 1, 4], [2, 7, 1, 8, 2, 8], [6, 6], [9, 9, 9, 9, 9, 9]]
SAMPLERS = {
    "hf_greedy": Plain(),
    "hf_prompt_lookup": Lookup(prompt_lookup_num_tokens=3),
    "hf_early_exit": ExitEarly(assistant_early_exit=3, num_assistant_tokens=3, assistant_confidence_threshold=0.0),
    "hf_assisted": Assisted(num_assistant_tokens=3, assistant_confidence_threshold=0.0),
}


@pytest.fixture(scope="module", params=CHANGES)
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Return a random model of a class, and one that drafts for it, which often says the same."""
    folder = tmp_path_factory.mktemp(request.param)
    checkpoints.write(folder, request.param, **CHANGES[request.param], eos_token_id=[*range(0, 258, 9)])
    target, draft = (checkpoints.loaded(folder, torch.float64) for _ in range(2))
    generator = torch.Generator().manual_seed(1)
    for weight in draft.inner.parameters():
        weight += 0.1 * weight.std() * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    return Models(target, draft)


@contextmanager
def counted(model: CausalModel) -> Iterator[list[int]]:
    """Yield the positions of every call that reaches the embedding, the one module that each passes once."""
    seen: list[int] = []
    hook = model.inner.get_input_embeddings().register_forward_hook(lambda _, given, out: seen.append(given[0].numel()))
    try:
        yield seen
    finally:
        hook.remove()


def _runs_all_layers(model: CausalModel) -> bool:
    """Say whether a class does not heed the number of layers in its config, which GPT-2 does not."""
    return "GPT2" in type(model.inner).__name__


def answered(models: Models, name: str, ledger: Ledger) -> list[Generation]:
    """Return what a sampler answers to all prompts."""
    model = models if name == "hf_assisted" else models.target
    method = OwnSamplerMethod(sampler=SAMPLERS[name])
    seeds = range(len(PROMPTS))
    return own_sampler.decode(model, method, PROMPTS, gen_length=LENGTH, seeds=seeds, ledger=ledger)


@pytest.mark.parametrize("name", SAMPLERS)
def test_answers_are_greedy_and_every_call_is_counted(models: Models, name: str) -> None:
    """Guards stop tokens and lengths, calls and positions against belief, and drafts that are told from the target."""
    ledger, target, draft = Ledger(), models.target, models.draft
    assert isinstance(target, CausalModel) and isinstance(draft, CausalModel)
    if name == "hf_early_exit" and _runs_all_layers(target):
        with pytest.raises(DataError, match=r"^model=mine: transformers' generate: "):
            answered(models, name, ledger)
        assert target.inner.config.num_hidden_layers == LAYERS
        return
    with counted(target) as by_target, counted(draft) as by_draft:
        made = answered(models, name, ledger)
    greedy = run(target, AutoregressiveMethod(acceptor=Greedy()), PROMPTS, LENGTH)
    assert [one.tokens for one in made] == [one.tokens for one in greedy]
    # A GPT-2 with random weights, whose head is its embedding, repeats a token.
    assert len({len(one.tokens) for one in made}) > 1 or _runs_all_layers(target)
    queries = [(record.role is Role.DRAFT, int(record.query_B.sum())) for record in ledger.records]
    if name == "hf_assisted":
        assert [query for drafted, query in queries if drafted] == by_draft
        assert [query for drafted, query in queries if not drafted] == by_target
    else:
        assert [query for _, query in queries] == by_target and not by_draft
    counts = ledger.counts(range(len(PROMPTS)))
    for one, plain, work in zip(made, greedy, counts, strict=True):
        assert work.nfe_prefill == 1 and work.nfe <= len(one.tokens)
        assert len(set(one.decided_at)) == work.nfe and [*one.decided_at] == sorted(one.decided_at)
        assert one.tokens_generated >= len(one.tokens)
        if name == "hf_greedy":
            assert one.decided_at == plain.decided_at and one.tokens_generated == len(one.tokens) == work.nfe
    for one, work, found in zip(made, counts, ledger.drafting(range(len(PROMPTS))), strict=True):
        assert (found is None) is (name == "hf_greedy")
        if found is not None:
            # transformers' first call reads the prompt together with drafts: it is no round here.
            assert found.rounds == work.nfe - 1 and found.accepted_draft_tokens <= found.draft_tokens
            of_first = one.decided_at.count(0)
            assert len(one.tokens) - of_first <= sum(found.accept_lens) <= len(one.tokens) - of_first + 3
    drafts = sum(work.nfe_draft for work in counts)
    assert (drafts > 0) is (name in ("hf_assisted", "hf_early_exit"))
    if name != "hf_greedy":
        assert sum(work.nfe for work in counts) < sum(len(one.tokens) for one in made)


def test_a_model_that_drafts_for_itself_is_counted_twice(models: Models) -> None:
    """Guards one module in both roles: calls are told apart, all but a last draft stand, and nothing stays behind."""
    target, ledger = models.target, Ledger()
    assert isinstance(target, CausalModel)
    with counted(target) as by_both:
        made = answered(Models(target, target), "hf_assisted", ledger)
    greedy = run(target, AutoregressiveMethod(acceptor=Greedy()), PROMPTS, LENGTH)
    assert [one.tokens for one in made] == [one.tokens for one in greedy]
    assert [int(record.query_B.sum()) for record in ledger.records] == by_both
    assert 0 < sum(record.role is Role.DRAFT for record in ledger.records) < len(by_both)
    for found in ledger.drafting(range(len(PROMPTS))):
        # Of drafts that end an answer transformers takes one back, which its target then says.
        assert found is not None and found.draft_tokens - 1 <= found.accepted_draft_tokens <= found.draft_tokens
    assert not target.inner._forward_hooks


def test_an_early_exit_runs_so_many_layers(models: Models) -> None:
    """Guards layers of drafts, which share a module with the target."""
    assert isinstance(models.target, CausalModel)
    if _runs_all_layers(models.target):
        return
    ledger = Ledger()
    answered(models, "hf_early_exit", ledger)
    assert {(record.role is Role.DRAFT, record.layers) for record in ledger.records} == {(True, 3), (False, LAYERS)}


def test_an_answer_does_not_depend_on_those_before_it(models: Models) -> None:
    """Guards what schedules write into the config of the model that drafts."""
    ledgers = [Ledger(), Ledger()]
    for ledger, prompts in zip(ledgers, (PROMPTS, PROMPTS[2:3]), strict=True):
        sampler = Assisted(num_assistant_tokens=3, num_assistant_tokens_schedule=Schedule.heuristic)
        method = OwnSamplerMethod(sampler=sampler)
        own_sampler.decode(models, method, prompts, gen_length=LENGTH, seeds=range(len(prompts)), ledger=ledger)
    assert ledgers[0].counts([2]) == ledgers[1].counts([0])
    assert models.draft.inner.generation_config.num_assistant_tokens != 3  # type: ignore[attr-defined]


def test_other_models_layers_and_knobs_are_refused(models: Models, tmp_path: Path) -> None:
    """Guards bad input before a model loads: one line naming key, value and what would do."""
    with pytest.raises(ConfigError, match=r"^model=tiny_ar: method=hf_greedy is transformers' own.* use hf_causal"):
        fit_decoding(compose(["model=tiny_ar", "method=hf_greedy"]), build.Builder())
    with pytest.raises(ConfigError, match=r"^model@draft=null: method=hf_assisted asks a model for its drafts"):
        fit_decoding(compose(["model=hf_causal", "method=hf_assisted"]), build.Builder())
    checkpoints.write(tmp_path, "Llama", **CHANGES["Llama"])
    asked = ["model=hf_causal", f"model.path={tmp_path}", "method=hf_early_exit", "task.renderer=chat"]
    with pytest.raises(ConfigError, match=r"^method\.assistant_early_exit=4: must be from 1 to 3, of 4 layers"):
        fit_decoding(compose([*asked, "method.assistant_early_exit=4"]), build.Builder())
    with pytest.raises(FieldError, match="num_assistant_tokens=0: must be at least 1"):
        Assisted(num_assistant_tokens=0)
    told = {"gen_length": 2, "seeds": [0], "called": lambda *_, **__: None}
    with pytest.raises(DataError, match=r"^model=mine: transformers' generate: "):
        models.target.sample([[3]], settings={"no_such_knob": 1}, **told)  # type: ignore[attr-defined]


def test_want_of_memory_is_not_taken_for_a_fault_of_the_class(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the runner's second try with fewer rows, which a refusal in words would have kept from it."""
    assert isinstance(models.target, CausalModel)

    def fails_with(error: Exception) -> None:
        def generate(*arguments: object, **named: object) -> None:
            raise error

        monkeypatch.setattr(models.target.inner, "generate", generate, raising=False)

    allocator = "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"
    for shortage in (torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(allocator)):
        fails_with(shortage)
        with pytest.raises(RuntimeError) as caught:
            answered(models, "hf_greedy", Ledger())
        assert caught.value is shortage
    fails_with(RuntimeError("shapes do not fit"))
    with pytest.raises(DataError, match=r"^model=mine: transformers' generate: .*shapes do not fit"):
        answered(models, "hf_greedy", Ledger())
