"""Quantised Llama checkpoints in GGUF, as llama.cpp writes them, turned into a published folder of safetensors.

GGUF is described in ggml's docs/gguf.md. llama.cpp's converter reorders the rows of query and key matrices, since it
rotates neighbouring channels where the published model rotates halves; that is undone here. A tokenizer is stored as
vocabulary, merges and the name of how text is cut before them.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.errors import DataError
from harness.models import hub
from harness.models.public.layout import QWEN

_ROWS = {"attn_q": "attention.head_count", "attn_k": "attention.head_count_kv"}
"""Tensors whose rows are reordered, with the field that counts their heads."""

_MODULES = {
    "token_embd": QWEN.embedding,
    "output_norm": QWEN.norm,
    "output": QWEN.head,
    "attn_norm": QWEN.attention_norm,
    "attn_q": QWEN.query,
    "attn_k": QWEN.key,
    "attn_v": QWEN.value,
    "attn_output": QWEN.out,
    "ffn_norm": QWEN.feed_forward_norm,
    "ffn_gate": f"{QWEN.feed_forward}.{QWEN.gate}",
    "ffn_up": f"{QWEN.feed_forward}.{QWEN.up}",
    "ffn_down": f"{QWEN.feed_forward}.{QWEN.down}",
}
_KNOWN = {
    *("block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size"),
    *("attention.head_count", "attention.head_count_kv", "attention.layer_norm_rms_epsilon"),
    *("rope.freq_base", "rope.dimension_count"),
}
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_SPECIAL = 3
"""The type of tokens that are no text (`LLAMA_TOKEN_TYPE_CONTROL`)."""


class Metadata:
    """The fields of a file that is a Llama model, by name."""

    def __init__(self, file: Path, reader: Any) -> None:
        """Raise DataError naming the file for another architecture, or a field that nothing here would heed."""
        self.file, self._fields = file, reader.fields
        self.require("general.architecture", "llama")
        for name in (n for n in self._fields if n.startswith("llama.")):
            if name.removeprefix("llama.") not in _KNOWN:
                raise DataError(f"{file}: {name}={self.take(name)}: the loader knows plain Llama only")
        width, heads = self.shape("embedding_length"), self.shape("attention.head_count")
        self.require("llama.rope.dimension_count", width // heads)

    def take(self, name: str) -> Any:
        """Return the value of a field; raise DataError where it is missing."""
        if name not in self._fields:
            raise DataError(f"{self.file}: {name}: is missing")
        return self._fields[name].contents()

    def shape(self, name: str) -> Any:
        """Return a field of the architecture, a number of 32 bits as the decimal that it is the nearest to."""
        value = self.take(f"llama.{name}")
        return float(f"{value:.7g}") if isinstance(value, float) else value

    def require(self, name: str, allowed: object) -> None:
        """Raise DataError unless a field has the one value that is understood."""
        if (value := self.take(name)) != allowed:
            raise DataError(f"{self.file}: {name}={value!r}: the loader knows {allowed!r} only")


def convert(file: Path, folder: Path) -> list[str]:
    """Write config.json, model.safetensors (float32) and tokenizer of a GGUF file into a folder that is there.

    Return the quantised types of its weights, that of most weights first.
    Raise DataError naming the file for one that is no GGUF file or no plain Llama model.
    """
    from gguf import GGUFReader  # pyright: ignore[reportMissingImports] (nothing installs this extra by itself)
    from safetensors.torch import save_file

    try:
        reader = GGUFReader(file)
    except (ValueError, IndexError) as error:
        raise DataError(f"{file}: not a readable GGUF file ({error}); get it again") from None
    metadata = Metadata(file, reader)
    tensors = dict(_tensors(metadata, reader))
    save_file(tensors, folder / hub.WEIGHTS)
    config = _config(metadata, tied=f"{QWEN.head}.weight" not in tensors)
    (folder / hub.CONFIG).write_text(json.dumps(config, indent=1))
    _write_tokenizer(metadata, folder)
    sizes = Counter[str]()
    for one in reader.tensors:
        sizes[one.tensor_type.name] += int(one.n_elements)
    return [name for name, _ in sizes.most_common() if name not in _FLOATS]


def _config(m: Metadata, *, tied: bool) -> dict[str, object]:
    """Return the config in the words of the published family."""
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": m.shape("vocab_size"),
        "hidden_size": m.shape("embedding_length"),
        "intermediate_size": m.shape("feed_forward_length"),
        "num_hidden_layers": m.shape("block_count"),
        "num_attention_heads": m.shape("attention.head_count"),
        "num_key_value_heads": m.shape("attention.head_count_kv"),
        "max_position_embeddings": m.shape("context_length"),
        "rms_norm_eps": m.shape("attention.layer_norm_rms_epsilon"),
        "rope_theta": m.shape("rope.freq_base"),
        "hidden_act": "silu",
        "tie_word_embeddings": tied,
        "pad_token_id": m.take("tokenizer.ggml.padding_token_id"),
        "eos_token_id": m.take("tokenizer.ggml.eos_token_id"),
    }


def _tensors(m: Metadata, reader: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield tensors in float32 under their published names."""
    from gguf.quants import dequantize  # pyright: ignore[reportMissingImports]

    for one in reader.tensors:
        layer, kind = _place(one.name)
        if kind not in _MODULES:
            raise DataError(f"{m.file}: tensor {one.name} is not part of a Llama model")
        values = torch.tensor(dequantize(one.data, one.tensor_type), dtype=torch.float32)
        if kind in _ROWS:
            values = published_rows(values, m.shape(_ROWS[kind]))
        yield f"{_MODULES[kind].format(i=layer)}.weight", values.contiguous()


def _place(name: str) -> tuple[str, str]:
    """Return the layer, empty outside of layers, and the kind of a tensor such as `blk.3.attn_q.weight`."""
    parts = name.removesuffix(".weight").split(".")
    return (parts[1], parts[2]) if parts[0] == "blk" and len(parts) == 3 else ("", ".".join(parts))


def published_rows(values: Tensor, heads: int) -> Tensor:
    """Return rows [heads * D, width] whose channels to rotate are halves of a head, from neighbouring ones."""
    pairs = values.unflatten(0, (heads, -1, 2))
    return pairs.transpose(1, 2).flatten(0, 2)


def _write_tokenizer(m: Metadata, folder: Path) -> None:
    """Write a byte-level BPE tokenizer with its chat template.

    `smollm` cuts every digit off before the pattern of GPT-2 is applied (llama.cpp: LLAMA_VOCAB_PRE_TYPE_SMOLLM);
    transformers' own reader of GGUF does not, and takes two spaces before a digit for other tokens.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    m.require("tokenizer.ggml.model", "gpt2")
    m.require("tokenizer.ggml.pre", "smollm")
    for added in ("add_bos_token", "add_space_prefix"):
        m.require(f"tokenizer.ggml.{added}", False)
    tokens, kinds = m.take("tokenizer.ggml.tokens"), m.take("tokenizer.ggml.token_type")
    merges = [tuple(pair.split(" ")) for pair in m.take("tokenizer.ggml.merges")]
    core = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    digits, words = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.pre_tokenizer, core.decoder = pre_tokenizers.Sequence([digits, words]), decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _SPECIAL]
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    named = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
    ids = {f"{ours}_token": m.take(f"tokenizer.ggml.{theirs}_token_id") for ours, theirs in named.items()}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_max_length=m.shape("context_length"),
        **{name: tokens[number] for name, number in ids.items()},
    )
    tokenizer.chat_template = m.take("tokenizer.chat_template")
    tokenizer.save_pretrained(folder)
