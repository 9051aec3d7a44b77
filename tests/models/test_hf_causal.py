"""Causal checkpoints of transformers behave behind the engine's interface as in their own class."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from harness.engine.autoregressive.method import EmptyDrafter
from harness.engine.shared.model import ForwardRequest, ModelKind
from harness.errors import ConfigError, DataError
from harness.models.hf_causal import CausalModel, load
from methods.autoregressive.greedy import Greedy
from tests.engine.causal import drafters, run, with_drafts
from tests.engine.trees import Grown
from tests.models.public import miniature
from tests.models.public.miniature import KINDS
from tests.models.shapes import tokens

V = miniature.VOCABULARY
SHAPE = {"vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "eos_token_id": 257}
SHAPE |= {"intermediate_size": 56, "num_key_value_heads": 2, "max_position_embeddings": 256, "pad_token_id": 257}
CLASSES: dict[str, dict[str, Any]] = {
    "Llama": SHAPE,
    "Qwen2": SHAPE,
    "Qwen3": SHAPE | {"head_dim": 8},
    "Gemma2": SHAPE
    | {"head_dim": 8, "sliding_window": 256, "query_pre_attn_scalar": 8, "final_logit_softcapping": 3.0},
    "GPT2": {"vocab_size": V, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "eos_token_id": 257},
    "GPTNeoX": {k: v for k, v in SHAPE.items() if k != "num_key_value_heads"},
    "Qwen3Moe": SHAPE | {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "Olmoe": SHAPE | {"num_experts": 4, "num_experts_per_tok": 2},
}


def write(folder: Path, name: str = "Llama", **changes: Any) -> Any:
    """Write a checkpoint with random weights as transformers does; return the model."""
    class_name = {"GPT2": "GPT2LMHeadModel"}.get(name, f"{name}ForCausalLM")
    model = getattr(transformers, class_name)(getattr(transformers, f"{name}Config")(**CLASSES[name] | changes))
    generator = torch.Generator().manual_seed(0)
    for parameter_name, weight in model.named_parameters():
        centre, spread = (1.0, 0.3) if "norm" in parameter_name or "ln_" in parameter_name else (0.0, 0.25)
        torch.nn.init.normal_(weight, centre, spread, generator=generator)
    model.save_pretrained(folder)
    miniature.write_tokenizer(folder, KINDS["llada"])
    return model.eval().requires_grad_(False)


def loaded(folder: Path, dtype: torch.dtype = torch.float32, **changes: Any) -> CausalModel:
    arguments: dict[str, Any] = {"name": "mine", "hub_id": None, "max_length": 256, "path": str(folder), "dtype": dtype}
    model = load(**arguments | changes).model
    assert isinstance(model, CausalModel)
    return model


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CLASSES)
def test_windows_over_a_store_equal_the_class_alone(name: str, tmp_path: Path) -> None:
    """Guards masks, positions and slots of every architecture, rows at different points included."""
    write(tmp_path, name)
    # Experts know float32 and below.
    dtype = torch.float32 if name in ("Qwen3Moe", "Olmoe") else torch.float64
    own, tokens_BT = (
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype),
        tokens(2, 12, vocab_size=V),
    )
    model, expected = loaded(tmp_path, dtype), own(tokens_BT).logits.detach()
    assert expected.std() > 0.3
    close(model.forward(ForwardRequest(tokens_BT)), expected)
    store = model.new_store(2, 13)
    model.forward(ForwardRequest(tokens_BT, kv=store, end=12))
    places = torch.stack([torch.arange(3, 7), torch.arange(8, 12)])
    again = model.forward(ForwardRequest(tokens_BT.gather(1, places), positions_BT=places, kv=store, end=12))
    close(again, torch.stack([expected[0, 3:7], expected[1, 8:12]]))
    select_N = torch.tensor([3, 5, 0])
    close(
        model.forward(
            ForwardRequest(tokens_BT.gather(1, places), positions_BT=places, kv=store, end=12, select_N=select_N)
        ),
        again.flatten(0, 1)[select_N],
    )
    copied = store.rows(torch.tensor([1, 0, 1]))
    last = model.forward(
        ForwardRequest(tokens_BT[[1, 0, 1], 11:], positions_BT=torch.full((3, 1), 11), kv=copied, end=12)
    )
    close(last[:, 0], expected[[1, 0, 1], 11])


@pytest.mark.parametrize("name", ["Llama", "GPT2"])
def test_drafts_change_no_token(name: str, tmp_path: Path) -> None:
    """Guards the loop over the store: rejected drafts, ragged rows and leaving rows leave no trace."""
    own, prompts = write(tmp_path, name).double(), [[3], [5, 1, 4], [2, 7, 1, 8, 2, 8], [6, 6]]
    model = loaded(tmp_path, torch.float64)
    expected = []
    for prompt in prompts:
        row = list(prompt)
        while len(row) < len(prompt) + 12 and row[-1] not in model.spec.stop_ids:
            row.append(int(own(torch.tensor([row])).logits[0, -1].argmax()))
        expected.append(tuple(row[len(prompt) :]))
    plain = run(model, with_drafts(Greedy(), EmptyDrafter()), prompts)
    assert [g.tokens for g in plain] == expected
    long_enough = [answer + (0,) * 12 for answer in expected]
    for drafter in drafters(long_enough).values():
        assert [g.tokens for g in run(model, with_drafts(Greedy(), drafter), prompts)] == expected


@pytest.mark.parametrize("name", CLASSES)
def test_trees_change_no_token(name: str, tmp_path: Path) -> None:
    """Guards siblings at one position and the path moved into place, in every architecture; what stands is seen."""
    write(tmp_path, name)
    model = loaded(tmp_path, torch.float32 if name in ("Qwen3Moe", "Olmoe") else torch.float64)
    prompts = [[5], [9, 3, 7], [4, 4, 8, 2]]
    answers = [one.tokens for one in run(model, with_drafts(Greedy(), EmptyDrafter()), prompts, 10)]
    for drafter in (Grown(answers), Grown(answers, noise=False), Grown(answers, right=False)):
        made = run(model, with_drafts(Greedy(), drafter, 9), prompts, 10)
        assert [one.tokens for one in made] == answers
        assert drafter.right == (max(max(one.decided_at) for one in made) < 8)


def test_only_chosen_keys_are_visible(tmp_path: Path) -> None:
    """Guards candidates side by side: two drafts of one position, each as if it stood alone."""
    write(tmp_path)
    model, tokens_BT = loaded(tmp_path), tokens(1, 8, vocab_size=V)
    store, candidates = model.new_store(1, 10), torch.tensor([[5, 7]])
    model.forward(ForwardRequest(tokens_BT, kv=store, end=8))
    visible_BTS = torch.cat([torch.ones(2, 8, dtype=torch.bool), torch.eye(2, dtype=torch.bool)], 1)[None]
    logits = model.forward(
        ForwardRequest(
            candidates,
            positions_BT=torch.tensor([[8, 8]]),
            slots_BT=torch.tensor([[8, 9]]),
            kv=store,
            visible_BTS=visible_BTS,
            structured=False,
        )
    )
    for n in range(2):
        close(logits[:, n], model.forward(ForwardRequest(torch.cat([tokens_BT, candidates[:, n, None]], 1)))[:, -1])


def test_the_spec_and_the_stops_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    """Guards stop ids: chat models end turns with more than one token."""
    write(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [261, 257]}))
    spec = loaded(tmp_path).spec
    assert (spec.kind, spec.shift, spec.mask_id, spec.layers) == (ModelKind.CAUSAL, 1, None, 2)
    assert (spec.stop_ids, spec.pad_id, spec.vocab_size) == ((261, 257), 257, V)


def test_sliding_windows_limit_the_length(tmp_path: Path) -> None:
    """Guards against full attention in layers that were trained to see less."""
    write(tmp_path, "Gemma2", sliding_window=64)
    with pytest.raises(ConfigError, match="64 positions that every layer sees; use 64 or less"):
        loaded(tmp_path)
    assert loaded(tmp_path, max_length=64).spec.max_length == 64


def test_more_positions_than_there_are_are_refused(tmp_path: Path) -> None:
    """Guards against an index error in a table of positions."""
    write(tmp_path, "GPT2")
    with pytest.raises(ConfigError, match=r"model\.max_length=300: .* has 256 positions"):
        loaded(tmp_path, max_length=300)


def test_a_class_that_does_not_keep_to_its_mask_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards architectures whose attention or positions the interface cannot drive."""
    write(tmp_path)
    rotate = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding.forward
    monkeypatch.setattr(
        "transformers.models.llama.modeling_llama.LlamaRotaryEmbedding.forward",
        lambda self, x, position_ids: rotate(self, x, position_ids - position_ids[:, :1]),
    )
    with pytest.raises(DataError, match="LlamaForCausalLM gives other logits window by window"):
        loaded(tmp_path)


def test_recurrent_models_are_refused(tmp_path: Path) -> None:
    """Guards against a store that cannot hold the state of the model."""
    config = transformers.MambaConfig(vocab_size=V, hidden_size=16, num_hidden_layers=1, state_size=4)
    transformers.MambaForCausalLM(config).save_pretrained(tmp_path)
    miniature.write_tokenizer(tmp_path, KINDS["llada"])
    with pytest.raises(DataError, match=str(tmp_path)):
        loaded(tmp_path)


def test_remote_code_is_never_run(tmp_path: Path) -> None:
    """Guards against a checkpoint that brings its own Python."""
    write(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(DataError, match="cannot load this with AutoModelForCausalLM"):
        loaded(tmp_path)
    assert not (tmp_path / "ran").exists()
