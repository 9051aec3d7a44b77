"""transformers' DFlash on random weights: a block of masks drafted from the target's hidden states, in one call."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from harness.config import build
from harness.config.compatibility import check
from harness.config.composition import compose
from harness.engine import own_sampler
from harness.engine.autoregressive.method import AutoregressiveMethod
from harness.engine.own_sampler import OwnSamplerMethod
from harness.engine.shared.generation import Generation
from harness.engine.shared.model import ForwardRequest, ModelKind, Models
from harness.engine.shared.records import Ledger, Role
from harness.errors import ConfigError, DataError
from harness.models import hf_dflash_drafter
from harness.models.hf_causal import CausalModel
from harness.models.hf_dflash_drafter import BlockDrafter
from methods.autoregressive.greedy import Greedy
from methods.transformers_own import DFlash
from tests.engine.causal import run
from tests.models import test_hf_causal as checkpoints

LAYERS, ASSISTANT_LAYERS, BLOCK, LENGTH, WIDTH = 4, 2, 4, 12, 32
CHANGES = {"Llama": {"num_hidden_layers": LAYERS}, "Qwen3": {"num_hidden_layers": LAYERS}, "GPT2": {"n_layer": LAYERS}}
PROMPTS = [[3], [5, 1, 4], [2, 7, 1, 8, 2, 8], [6, 6], [9, 9, 9, 9, 9, 9]]


def write(folder: Path, *, silent: bool = False, **changes: object) -> Path:
    """Write an assistant with random weights; a `silent` one drafts the same token everywhere."""
    shape = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": ASSISTANT_LAYERS, "head_dim": 8}
    shape |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256, "mask_token_id": 11}
    shape |= {"block_size": BLOCK, "target_layer_ids": [0, 2, 3], "rope_parameters": {"rope_type": "default"}}
    shape |= {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "sliding_window": 256}
    config = transformers.MuseGlimmerAssistantConfig(**shape | changes)
    model, generator = transformers.MuseGlimmerAssistantModel(config), torch.Generator().manual_seed(2)
    for name, weight in model.named_parameters():
        torch.nn.init.normal_(weight, 1.0 if "norm" in name else 0.0, 0.3, generator=generator)
        if silent and ("o_proj" in name or "down_proj" in name):
            torch.nn.init.zeros_(weight)
    model.save_pretrained(folder)
    return folder


def drafter(folder: Path) -> BlockDrafter:
    """Return the assistant of a folder."""
    told = {"name": "assistant", "hub_id": None, "max_length": 256, "path": str(folder), "dtype": torch.float64}
    model = hf_dflash_drafter.load(**told).model  # type: ignore[arg-type]
    assert isinstance(model, BlockDrafter)
    return model


@pytest.fixture(scope="module", params=CHANGES)
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CausalModel:
    """Return a random model of a class."""
    folder = tmp_path_factory.mktemp(request.param)
    checkpoints.write(folder, request.param, **CHANGES[request.param], eos_token_id=[*range(0, 258, 9)])
    return checkpoints.loaded(folder, torch.float64)


def greedy(target: CausalModel) -> list[tuple[int, ...]]:
    """Return what the loop of this project answers."""
    return [one.tokens for one in run(target, AutoregressiveMethod(acceptor=Greedy()), PROMPTS, LENGTH)]


def answered_to(
    target: CausalModel, assistant: BlockDrafter, prompts: Sequence[Sequence[int]], **given: Any
) -> list[Generation]:
    """Return what the sampler answers."""
    return own_sampler.decode(Models(target, assistant), OwnSamplerMethod(sampler=DFlash()), prompts, **given)


def answered(target: CausalModel, assistant: BlockDrafter, ledger: Ledger) -> list[Generation]:
    """Return what the sampler answers to all prompts."""
    return answered_to(target, assistant, PROMPTS, gen_length=LENGTH, seeds=range(len(PROMPTS)), ledger=ledger)


def test_answers_are_greedy_and_calls_of_both_are_counted(target: CausalModel, tmp_path: Path) -> None:
    """Guards answers, and calls against hooks on a layer of each: a block per round, and no draft of the prompt's."""
    assistant, ledger = drafter(write(tmp_path)), Ledger()
    width: dict[str, list[int]] = {"target": [], "draft": []}
    layers = getattr(target.inner, "transformer", getattr(target.inner, "model", None))
    first = {"target": getattr(layers, "h", getattr(layers, "layers", None))[0], "draft": assistant.inner.layers[0]}  # type: ignore[index]
    hooks = [
        layer.register_forward_hook(
            lambda _, given, named, out, seen=width[role]: seen.append((given[0] if given else named["x"]).shape[1]),
            with_kwargs=True,
        )
        for role, layer in first.items()
    ]
    made = answered(target, assistant, ledger)
    for hook in hooks:
        hook.remove()
    assert [one.tokens for one in made] == greedy(target)
    told = [(record.role is Role.DRAFT, int(record.query_B), record.layers) for record in ledger.records]
    assert [query for drafts, query, _ in told if drafts] == width["draft"] == [BLOCK] * len(width["draft"])
    assert [query for drafts, query, _ in told if not drafts] == width["target"]
    assert {(drafts, layers) for drafts, _, layers in told} == {(True, ASSISTANT_LAYERS), (False, LAYERS)}
    samples = range(len(PROMPTS))
    for prompt, one, work, found in zip(PROMPTS, made, ledger.counts(samples), ledger.drafting(samples), strict=True):
        assert found is not None and found.rounds == work.nfe - 1 and work.nfe_prefill == 1
        assert work.prefill_tokens == len(prompt) and work.nfe_draft <= found.rounds
        assert found.draft_tokens == (BLOCK - 1) * work.nfe_draft and found.query_tokens_draft == BLOCK * work.nfe_draft
        assert found.layer_loads_draft == ASSISTANT_LAYERS * work.nfe_draft
        # The target's head reads the last token and the drafts, and before that what the assistant makes of masks.
        assert work.head_tokens == work.nfe + 2 * found.draft_tokens
        assert one.decided_at[0] == 0 and max(one.decided_at) == found.rounds


def test_drafts_that_stand_save_calls(target: CausalModel, tmp_path: Path) -> None:
    """Guards rounds that take more than a token: an assistant that always says what the target says most."""
    expected = greedy(target)
    with torch.no_grad():
        inner = target.inner
        embedded_VC = inner.get_input_embeddings().weight.double()
        said_V = inner.get_output_embeddings()(embedded_VC / embedded_VC.pow(2).mean(-1, keepdim=True).sqrt())
    said = said_V.argmax(-1).tolist()
    frequent = Counter(token for one in expected for token in one)
    mask = max(range(len(said)), key=lambda token: frequent[said[token]])
    folder = write(tmp_path, silent=True, mask_token_id=mask)
    assistant = drafter(folder)
    torch.nn.init.ones_(assistant.inner.norm.weight)
    ledger = Ledger()
    assert [one.tokens for one in answered(target, assistant, ledger)] == expected
    found = [one for one in ledger.drafting(range(len(PROMPTS))) if one is not None]
    stood = sum(one.accepted_draft_tokens for one in found)
    assert stood > 0
    calls = sum(one.nfe for one in ledger.counts(range(len(PROMPTS))))
    assert calls < sum(map(len, expected))


def test_an_answer_does_not_depend_on_those_before_it(target: CausalModel, tmp_path: Path) -> None:
    """Guards the cache of the assistant, which is of one prompt."""
    assistant, all_of_them = drafter(write(tmp_path)), Ledger()
    answered(target, assistant, all_of_them)
    for number, prompt in enumerate(PROMPTS):
        alone = Ledger()
        method = OwnSamplerMethod(sampler=DFlash())
        own_sampler.decode(Models(target, assistant), method, [prompt], gen_length=LENGTH, seeds=[number], ledger=alone)
        assert alone.counts([0]) == all_of_them.counts([number])


def test_an_assistant_decodes_nothing(tmp_path: Path) -> None:
    """Guards a line in place of a traceback of modules that read states of another model."""
    assistant = drafter(write(tmp_path))
    assert assistant.spec.kind is ModelKind.ASSISTANT
    with pytest.raises(TypeError, match="drafts for transformers' own generation and for nobody else"):
        assistant.forward(ForwardRequest(torch.tensor([[1]])))
    with pytest.raises(
        ConfigError, match=r"^method=ar_greedy: does not run on model=hf_dflash_drafter, which is assis"
    ):
        check(compose(["model=hf_dflash_drafter", "method=ar_greedy", "task.renderer=chat"]))


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"hidden_size": 64}, "reads states of 64 channels, and hf_causal has 32; use the assistant of this target"),
        ({"target_layer_ids": [1, 4]}, r"reads layer 4 \(target_layer_ids\), and hf_causal has 4, from 0"),
        ({"mask_token_id": 999}, r"masks with token 999 \(mask_token_id\), and hf_causal has 280"),
    ],
)
def test_another_s_assistant_is_refused(tmp_path: Path, changes: dict[str, object], refusal: str) -> None:
    """Guards shapes that do not fit, before a model is loaded."""
    checkpoints.write(tmp_path / "target", "Llama", **CHANGES["Llama"])
    write(tmp_path / "assistant", **changes)
    asked = ["model=hf_causal", f"model.path={tmp_path / 'target'}", "method=hf_dflash", "task.renderer=chat"]
    asked += ["model@draft=hf_dflash_drafter", f"draft.path={tmp_path / 'assistant'}", "task.template=own-1"]
    with pytest.raises(ConfigError, match=f"^model@draft=hf_dflash_drafter: {refusal}"):
        check(compose(asked))


def test_other_models_and_versions_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a model that drafts alone in an assistant's place, a checkpoint that is none, and an older library."""
    checkpoints.write(tmp_path / "target", "Llama", **CHANGES["Llama"])
    write(tmp_path / "assistant")
    on = ["model=hf_causal", f"model.path={tmp_path / 'target'}", "method=hf_dflash", "task.renderer=chat"]
    on += ["task.template=own-1", "model.max_length=256"]
    with pytest.raises(ConfigError, match=r"^model@draft=null: .*such as model@draft=hf_dflash_drafter$"):
        check(compose(on))
    with pytest.raises(ConfigError, match=r"^model@draft=hf_causal: is causal, and method=hf_dflash cannot ask it"):
        check(compose([*on, "model@draft=hf_causal", f"draft.path={tmp_path / 'target'}"]))
    with pytest.raises(ConfigError, match=r"^model@draft=hf_dflash_drafter: its config.json says no target_layer_ids"):
        check(compose([*on, "model@draft=hf_dflash_drafter", f"draft.path={tmp_path / 'target'}"]))
    with pytest.raises(DataError, match="is a LlamaModel, and no assistant of DFlash; its class is MuseGlimmer"):
        drafter(tmp_path / "target")
    fitting = [*on, "model@draft=hf_dflash_drafter", f"draft.path={tmp_path / 'assistant'}", "draft.max_length=256"]
    check(compose(fitting))
    assert isinstance(build.load_model(compose(fitting)).model, Models)
    monkeypatch.setattr(hf_dflash_drafter, "version", lambda name: "5.23.1")
    with pytest.raises(ConfigError, match=r"5\.23\.1 has no DFlashTokenCandidateGenerator; pip install 'transformers>"):
        check(compose(fitting))


def test_transformers_has_one_assistant() -> None:
    """Guards what is said of the classes that fit: another one is to be tried, and named."""
    module = Path(transformers.__file__).parent / "models"
    fitting = {file.parent.name for file in module.glob("*_assistant/modeling_*.py") if "DFlash" in file.read_text()}
    assert fitting == {"muse_glimmer_assistant"}
