"""A file as llama.cpp writes it becomes the checkpoint that it was made from; what reads the format is stood in for."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.engine.shared.model import ForwardRequest
from harness.errors import DataError
from harness.models import text
from harness.models.public import gguf_file, loader
from tests.models.public.miniature import BYTES
from tests.models.shapes import tokens
from tests.models.test_hf_causal import SHAPE, write

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
VOCABULARY = [*SPECIAL, *BYTES, "ĠĠ"]
HEADS, KV_HEADS, WIDTH = SHAPE["num_attention_heads"], SHAPE["num_key_value_heads"], SHAPE["hidden_size"]
FIELDS: dict[str, Any] = {
    **{"general.architecture": "llama", "llama.vocab_size": len(VOCABULARY), "llama.context_length": 256},
    **{"llama.embedding_length": WIDTH, "llama.block_count": 2, "llama.feed_forward_length": 56},
    **{"llama.attention.head_count": HEADS, "llama.attention.head_count_kv": KV_HEADS},
    **{"llama.rope.freq_base": 10000.0, "llama.rope.dimension_count": WIDTH // HEADS},
    "llama.attention.layer_norm_rms_epsilon": float(np.float32(1e-6)),
    **{"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.tokens": VOCABULARY},
    **{"tokenizer.ggml.token_type": [3] * 3 + [1] * (len(VOCABULARY) - 3), "tokenizer.ggml.merges": ["Ġ Ġ"]},
    **{"tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.add_space_prefix": False},
    **{"tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.padding_token_id": 2},
    **{"tokenizer.ggml.unknown_token_id": 0, "tokenizer.chat_template": "{{ messages[0]['content'] }}"},
}
NAMES = {
    **{"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"},
    **{"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.o_proj": "attn_output"},
    **{f"self_attn.{one}_proj": f"attn_{one}" for one in "qkv"},
    **{f"mlp.{one}_proj": f"ffn_{one}" for one in ("gate", "up", "down")},
}


def in_pairs(published: Tensor, heads: int) -> Tensor:
    """Return the rows of a query or key matrix in llama.cpp's order: both halves of a head take turns."""
    width = len(published) // heads
    rows = [head * width + half + n for head in range(heads) for n in range(width // 2) for half in (0, width // 2)]
    return published[rows]


def written(model: torch.nn.Module) -> list[SimpleNamespace]:
    """Return the tensors of the public class as a reader gives them, the matrices halved as if that were their code."""
    tensors = []
    for name, parameter in model.named_parameters():
        place = name.removesuffix(".weight")
        layer = place.removeprefix("model.layers.").partition(".") if "layers" in place else None
        kind = NAMES[layer[2] if layer else place]
        values = parameter.detach()
        if kind in ("attn_q", "attn_k"):
            values = in_pairs(values, HEADS if kind == "attn_q" else KV_HEADS)
        name = f"blk.{layer[0]}.{kind}.weight" if layer else f"{kind}.weight"
        code = SimpleNamespace(name="F32" if values.dim() == 1 else "Q8_0" if kind == "token_embd" else "Q4_1")
        data = values.numpy() if values.dim() == 1 else values.numpy() / 2
        tensors.append(SimpleNamespace(name=name, data=data, tensor_type=code, n_elements=np.uint64(data.size)))
    return tensors


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stand in for the package that reads files, and return what it reads: fields and tensors."""
    given = SimpleNamespace(fields={}, tensors=[])
    put(given, FIELDS)
    package, quants = ModuleType("gguf"), ModuleType("gguf.quants")
    vars(package)["GGUFReader"] = lambda file: given
    vars(quants)["dequantize"] = lambda data, code: data if code.name == "F32" else data * 2
    monkeypatch.setitem(sys.modules, "gguf", package)
    monkeypatch.setitem(sys.modules, "gguf.quants", quants)
    return given


def put(reader: SimpleNamespace, fields: dict[str, Any]) -> None:
    """Give a reader these fields beside what it has."""
    reader.fields |= {name: SimpleNamespace(contents=lambda value=value: value) for name, value in fields.items()}


@pytest.mark.parametrize("tied", [True, False])
def test_a_file_becomes_the_checkpoint_that_it_was_made_from(
    tied: bool, reader: SimpleNamespace, tmp_path: Path
) -> None:
    """Guards every name, the order of rotary channels, shared heads, and a head of its own."""
    model = write(tmp_path / "own", "Llama", vocab_size=len(VOCABULARY), tie_word_embeddings=tied)
    reader.tensors = written(model)
    (tmp_path / "made").mkdir()
    assert gguf_file.convert(Path("file"), tmp_path / "made") == ["Q4_1", "Q8_0"]
    loaded = loader.load(
        **{"name": "mine", "family": "llama", "hub_id": None, "kind": "causal", "shift": 1, "max_length": 256},
        **{"block_length": None, "mask_token": None, "mask_id": None, "path": str(tmp_path / "made")},
        stop_tokens=["<|im_end|>"],
    )
    tokens_BT = tokens(2, 30, vocab_size=len(VOCABULARY))
    expected = model(tokens_BT).logits
    assert expected.std() > 0.3 and (loaded.model.spec.pad_id, loaded.model.spec.stop_ids) == (2, (2,))
    torch.testing.assert_close(loaded.model.forward(ForwardRequest(tokens_BT)), expected, atol=1e-5, rtol=0)
    config = json.loads((tmp_path / "made" / "config.json").read_text())
    assert (config["rms_norm_eps"], config["rope_theta"], config["tie_word_embeddings"]) == (1e-6, 10000.0, tied)


def test_the_tokenizer_cuts_digits_off_first(reader: SimpleNamespace, tmp_path: Path) -> None:
    """Guards against two spaces before a digit as two tokens, which the model has not seen."""
    assert gguf_file.convert(Path("file"), tmp_path) == []
    tokenizer = text.read(tmp_path)
    assert tokenizer.tokenize("a  12") == ["a", "ĠĠ", "1", "2"]
    assert tokenizer.tokenize("<|im_start|>  a") == ["<|im_start|>", "Ġ", "Ġ", "a"]
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token) == (*SPECIAL[1:], SPECIAL[0])
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == "Hi"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"general.architecture": "qwen2"}, "general.architecture='qwen2': the loader knows 'llama' only"),
        ({"llama.rope.scaling.type": "yarn"}, "llama.rope.scaling.type=yarn: the loader knows plain Llama only"),
        ({"llama.rope.dimension_count": 4}, "llama.rope.dimension_count=4: the loader knows 8 only"),
        ({"tokenizer.ggml.pre": "llama-bpe"}, "tokenizer.ggml.pre='llama-bpe': the loader knows 'smollm' only"),
        ({"tokenizer.ggml.add_bos_token": True}, "add_bos_token=True: the loader knows False only"),
    ],
)
def test_what_is_not_understood_is_refused(
    fields: dict[str, Any], message: str, reader: SimpleNamespace, tmp_path: Path
) -> None:
    """Guards against a file that would be read and computed otherwise than it says."""
    put(reader, fields)
    with pytest.raises(DataError, match=r"^file: ") as refused:
        gguf_file.convert(Path("file"), tmp_path)
    assert message in str(refused.value)


def test_a_missing_field_or_an_unknown_tensor_is_named(reader: SimpleNamespace, tmp_path: Path) -> None:
    """Guards files of kin that hold less, or more."""
    odd = SimpleNamespace(name="blk.0.attn_q.bias", data=np.zeros(4), tensor_type=SimpleNamespace(name="F32"))
    reader.tensors = [odd]
    with pytest.raises(DataError, match=r"^file: tensor blk\.0\.attn_q\.bias is not part of a Llama model$"):
        gguf_file.convert(Path("file"), tmp_path)
    reader.tensors = []
    del reader.fields["llama.context_length"]
    with pytest.raises(DataError, match=r"^file: llama\.context_length: is missing$"):
        gguf_file.convert(Path("file"), tmp_path)
