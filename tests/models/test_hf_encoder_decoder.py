"""Encoder-decoder checkpoints of transformers behave behind the engine's interface as in their own class."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from harness.engine.autoregressive.method import EmptyDrafter
from harness.engine.shared.model import ForwardRequest
from harness.engine.shared.records import Ledger
from harness.errors import ConfigError, DataError
from harness.models.hf_encoder_decoder import EncoderDecoderModel, load
from harness.models.pool import LoadedModel
from methods.autoregressive.greedy import Greedy
from tests.engine.causal import drafters, run, with_drafts
from tests.models.public import miniature
from tests.models.public.miniature import KINDS
from tests.models.shapes import tokens

V, EOS = miniature.VOCABULARY, 257
CLASSES: dict[str, dict[str, Any]] = {
    "T5": {"d_model": 32, "d_kv": 8, "d_ff": 56, "num_layers": 2, "num_heads": 4, "vocab_size": V}
    | {"relative_attention_num_buckets": 8, "decoder_start_token_id": 0, "eos_token_id": EOS, "pad_token_id": 0},
    "Bart": {"d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 4, "vocab_size": V}
    | {"decoder_attention_heads": 4, "encoder_ffn_dim": 56, "decoder_ffn_dim": 56, "max_position_embeddings": 64}
    | {"decoder_start_token_id": EOS, "eos_token_id": EOS, "pad_token_id": 1, "bos_token_id": 256}
    | {"forced_eos_token_id": None},
}
PROMPTS = [[3], [5, 1, 4], [2, 7, 1, 8, 2, 8], [6, 6]]


def write(folder: Path, name: str = "T5") -> Any:
    """Write a checkpoint with random weights as transformers does; return the model in float64."""
    config = getattr(transformers, f"{name}Config")(**CLASSES[name])
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config)
    generator = torch.Generator().manual_seed(0)
    for parameter_name, weight in model.named_parameters():
        centre, spread = (1.0, 0.3) if "norm" in parameter_name and "bias" not in parameter_name else (0.0, 0.25)
        torch.nn.init.normal_(weight, centre, spread, generator=generator)
    model.save_pretrained(folder)
    miniature.write_tokenizer(folder, KINDS["llada"])
    return model.double().eval().requires_grad_(False)


def loaded(folder: Path, **changes: Any) -> LoadedModel:
    arguments: dict[str, Any] = {"name": "mine", "hub_id": None, "max_length": 64, "path": str(folder)}
    return load(**arguments | {"dtype": torch.float64} | changes)


def answer(own: Any, prompt: list[int], count: int) -> tuple[int, ...]:
    """Return a greedy answer by whole forwards of the class."""
    row = [own.generation_config.decoder_start_token_id]
    while len(row) <= count and row[1:][-1:] != [EOS]:
        logits = own(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([row])).logits
        row.append(int(logits[0, -1].argmax()))
    return tuple(row[1:])


@pytest.mark.parametrize("name", CLASSES)
def test_drafts_change_no_token(name: str, tmp_path: Path) -> None:
    """Guards prompts of several lengths in one batch, rejected drafts, and rows at different points of an answer."""
    own = write(tmp_path, name)
    model, expected = loaded(tmp_path).model, [answer(own, prompt, 12) for prompt in PROMPTS]
    ledger = Ledger()
    plain = run(model, with_drafts(Greedy(), EmptyDrafter()), PROMPTS, ledger=ledger)
    assert [g.tokens for g in plain] == expected
    assert len({token for made in expected for token in made}) > 3
    assert [c.prefill_tokens for c in ledger.counts(range(4))] == [len(prompt) for prompt in PROMPTS]
    for drafter in drafters([made + (0,) * 12 for made in expected]).values():
        assert [g.tokens for g in run(model, with_drafts(Greedy(), drafter), PROMPTS)] == expected


@pytest.mark.parametrize("name", CLASSES)
def test_logits_equal_the_class(name: str, tmp_path: Path) -> None:
    """Guards windows of an answer against one forward of the class, over stores that are chosen from and grown."""
    own, model = write(tmp_path, name).float(), loaded(tmp_path, dtype=torch.float32).model
    tokens_BT, start = tokens(2, 11, vocab_size=V), own.generation_config.decoder_start_token_id
    starts = torch.full((2, 1), start)
    expected = own(input_ids=tokens_BT[:, :5], decoder_input_ids=torch.cat([starts, tokens_BT[:, 5:]], 1)).logits
    store = model.new_store(2, 7)
    model.forward(ForwardRequest(tokens_BT[:, :5], kv=store, end=5))
    store = store.grown(12).rows(torch.tensor([1, 0, 1]))
    for first, last in ((5, 7), (6, 11)):
        places = torch.arange(first, last).expand(3, -1)
        logits = model.forward(
            ForwardRequest(tokens_BT[[1, 0, 1], first:last], positions_BT=places, kv=store, end=last)
        )
        torch.testing.assert_close(logits, expected[[1, 0, 1], first - 4 : last - 4], atol=1e-5, rtol=0)


def test_plain_prompts_end_as_the_encoder_expects(tmp_path: Path) -> None:
    """Guards T5's prompts, which end with the end token by the tokenizer's own rule."""
    write(tmp_path)
    core = json.loads((tmp_path / "tokenizer.json").read_text())
    end = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}
    core["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, end],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}, end],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [EOS], "tokens": ["<|endoftext|>"]}},
    }
    bare = loaded(tmp_path).tokenizer.encode_prompt("abc")
    (tmp_path / "tokenizer.json").write_text(json.dumps(core))
    assert loaded(tmp_path).tokenizer.encode_prompt("abc") == [*bare, EOS]


def test_what_it_cannot_do_is_refused(tmp_path: Path) -> None:
    """Guards methods that look at attention or put candidates side by side from silent nonsense."""
    write(tmp_path, "Bart")
    model = loaded(tmp_path).model
    assert isinstance(model, EncoderDecoderModel)
    for arguments in ({}, {"kv": model.new_store(1, 4), "structured": False}, {"observe": print}):
        with pytest.raises(TypeError, match="model mine"):
            model.forward(ForwardRequest(tokens(1, 3), **arguments))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"model\.max_length=65: .* has 64 positions"):
        loaded(tmp_path, max_length=65)


def test_a_decoder_of_another_kind_is_refused(tmp_path: Path) -> None:
    """Guards against a causal checkpoint under the wrong model name, and a decoder without a start."""
    config = transformers.LlamaConfig(vocab_size=V, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
    with pytest.raises(DataError, match=r"transformers [0-9.]+ cannot load this with AutoModelForSeq2SeqLM"):
        loaded(tmp_path / "llama")
    write(tmp_path)
    for name in ("config.json", "generation_config.json"):
        values = json.loads((tmp_path / name).read_text())
        (tmp_path / name).write_text(json.dumps({**values, "decoder_start_token_id": None}))
    with pytest.raises(DataError, match="names decoder_start_token_id"):
        loaded(tmp_path)
