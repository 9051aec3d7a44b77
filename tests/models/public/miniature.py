"""Miniatures of published checkpoints: random weights in the published format, and transformers' own class beside.

The files are written from the public class (Llama, Qwen2, Qwen3), renamed to the published keys with patterns of
their own, so that a mistake in the loader's table cannot cancel out here.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

VOCABULARY, WIDTH, LAYERS, HEADS, WIDE = 280, 32, 3, 4, 56
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
LLADA_TOKENS = [
    *("<|startoftext|>", "<|endoftext|>", "<|mdm_mask|>"),
    *("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
]
QWEN_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|beginoftext|>", "<|role_end|>"]
LLADA_CHAT = (
    "{{ '<|startoftext|>' }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
QWEN_CHAT = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLADA_CONFIG: dict[str, Any] = {
    **{"model_type": "llada", "architectures": ["LLaDAModelLM"], "d_model": WIDTH, "n_layers": LAYERS},
    **{"n_heads": HEADS, "n_kv_heads": HEADS, "mlp_ratio": 4, "mlp_hidden_size": WIDE, "vocab_size": VOCABULARY},
    **{"embedding_size": VOCABULARY, "max_sequence_length": 4096, "rms_norm_eps": 1e-5, "rope_theta": 500000.0},
    **{"rope": True, "rope_full_precision": True, "block_type": "llama", "block_group_size": 1, "alibi": False},
    **{"activation_type": "silu", "layer_norm_type": "rms", "layer_norm_with_affine": True, "scale_logits": False},
    **{"attention_layer_norm": False, "attention_layer_norm_with_affine": True, "include_bias": False},
    **{"include_qkv_bias": False, "bias_for_layer_norm": False, "input_emb_norm": False, "weight_tying": False},
    **{"multi_query_attention": None, "use_cache": False, "flash_attention": False, "precision": "amp_bf16"},
}
LLADA_KEYS = {
    r"model\.embed_tokens\.": "model.transformer.wte.",
    r"model\.norm\.": "model.transformer.ln_f.",
    r"lm_head\.": "model.transformer.ff_out.",
    r"model\.layers\.(\d+)\.": r"model.transformer.blocks.\1.",
    r"self_attn\.o_proj": "attn_out",
    r"self_attn\.": "",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ff_norm",
    r"mlp\.gate_proj": "ff_proj",
    r"mlp\.up_proj": "up_proj",
    r"mlp\.down_proj": "ff_out",
}


LLADA2_KEYS = {
    "embed_tokens": "word_embeddings",
    r"self_attn\.o_proj": "attention.dense",
    r"self_attn\.q_norm": "attention.query_layernorm",
    r"self_attn\.k_norm": "attention.key_layernorm",
    "e_score_correction_bias": "expert_bias",
}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One published family: the class that computes the same, and how its files differ from that class's own.

    `mask` is the text of the mask token; `block` the block length of the attention, None: everything sees everything.
    `fused_qkv` names the one matrix of query, key and value inside a layer.
    """

    model: str
    oracle: str
    config: dict[str, Any]
    mask: str
    block: int | None = None
    keys: dict[str, str] = field(default_factory=dict)
    oracle_config: dict[str, Any] = field(default_factory=dict)
    slow_tokenizer: bool = False
    fused_qkv: str = ""


def _qwen(model_type: str, **changes: Any) -> dict[str, Any]:
    return {
        **{"model_type": model_type, "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS},
        **{"num_key_value_heads": 2, "intermediate_size": WIDE, "vocab_size": VOCABULARY, "hidden_act": "silu"},
        **{"max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "rope_scaling": None},
        **{"tie_word_embeddings": False, "use_sliding_window": False, "use_cache": True, **changes},
    }


KINDS = {
    "llada": Kind(
        model="llada_8b_instruct",
        oracle="Llama",
        config=LLADA_CONFIG,
        mask="<|mdm_mask|>",
        keys=LLADA_KEYS,
        oracle_config={"num_key_value_heads": HEADS, "rms_norm_eps": 1e-5, "rope_theta": 500000.0},
    ),
    "dream": Kind(
        model="dream_7b_instruct",
        oracle="Qwen2",
        config=_qwen("Dream", use_mrope=False, sliding_window=None),
        mask="<|mask|>",
        slow_tokenizer=True,
    ),
    "llada_moe": Kind(
        model="llada_moe_7b_instruct",
        oracle="Qwen3Moe",
        config=_qwen(
            "lladamoe",
            **{"num_key_value_heads": HEADS, "rms_norm_eps": 1e-5, "rope_theta": 50000, "intermediate_size": None},
            **{"dense_intermediate_size": WIDE, "expert_intermediate_size": 24, "num_experts": 8},
            **{"num_experts_per_tok": 3, "moe_layer_freq": [1, 0, 1], "norm_topk_prob": None, "qk_layernorm": True},
            **{"shared_expert_intermediate_size": None, "attention_bias": False, "max_position_embeddings": 8192},
        ),
        mask="<|mask|>",
        oracle_config={
            **{"num_key_value_heads": HEADS, "rms_norm_eps": 1e-5, "rope_theta": 50000.0, "head_dim": WIDTH // HEADS},
            **{"num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 24, "mlp_only_layers": [1]},
            **{"norm_topk_prob": False, "decoder_sparse_step": 1},
        },
    ),
    "llada2": Kind(
        model="llada2_mini",
        oracle="Glm4Moe",
        config=_qwen(
            "llada2_moe",
            **{"head_dim": 12, "rope_theta": 600000, "moe_intermediate_size": 24, "num_experts": 16, "n_group": 4},
            **{"num_experts_per_tok": 3, "topk_group": 2, "num_shared_experts": 1, "first_k_dense_replace": 1},
            **{"routed_scaling_factor": 2.5, "norm_topk_prob": True, "score_function": "sigmoid", "use_bias": False},
            **{"partial_rotary_factor": 0.5, "use_qk_norm": True, "moe_router_enable_expert_bias": True},
        ),
        mask="<|mask|>",
        block=32,
        keys=LLADA2_KEYS,
        oracle_config={
            **{"head_dim": 12, "rope_theta": 600000.0, "partial_rotary_factor": 0.5, "n_routed_experts": 16},
            **{"moe_intermediate_size": 24, "num_experts_per_tok": 3, "n_group": 4, "topk_group": 2},
            **{"n_shared_experts": 1, "first_k_dense_replace": 1, "routed_scaling_factor": 2.5},
            **{"norm_topk_prob": True, "use_qk_norm": True, "attention_bias": False},
        },
        fused_qkv="attention.query_key_value",
    ),
    "sdar": Kind(
        model="sdar_8b",
        oracle="Qwen3",
        config=_qwen("sdar", head_dim=12, attention_bias=False, fuse_cross_entropy=True),
        mask="<|MASK|>",
        block=4,
        oracle_config={"head_dim": 12},
    ),
    "fast_dllm_v2": Kind(
        model="fast_dllm_v2_1_5b",
        oracle="Qwen2",
        config=_qwen("Fast_dLLM_Qwen", bd_size=32, tie_word_embeddings=True, layer_types=["full_attention"] * LAYERS),
        mask="|<MASK>|",
        block=32,
        oracle_config={"tie_word_embeddings": True},
    ),
}


def oracle(kind: Kind, seed: int = 0) -> torch.nn.Module:
    """Return the public class with random weights, norms and biases included."""
    import transformers

    settings = {
        **{"vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS},
        **{"num_key_value_heads": 2, "intermediate_size": WIDE, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0},
        **{"max_position_embeddings": 4096, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None},
        **kind.oracle_config,
    }
    rope = {"rope_type": "default", "rope_theta": settings.pop("rope_theta")}
    if "partial_rotary_factor" in settings:
        rope["partial_rotary_factor"] = settings.pop("partial_rotary_factor")
    config = getattr(transformers, f"{kind.oracle}Config")(**settings, rope_parameters=rope)
    config.is_causal = False
    model = getattr(transformers, f"{kind.oracle}ForCausalLM")(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    choice = [(name, b) for name, b in model.named_buffers() if "correction_bias" in name]
    for name, weight in [*model.named_parameters(), *choice]:
        centre, spread = (1.0, 0.3) if "norm" in name else (0.0, 0.2)
        torch.nn.init.normal_(weight, centre, spread, generator=generator)
    return model


@torch.no_grad()
def oracle_logits(model: torch.nn.Module, kind: Kind, tokens_BT: Tensor) -> Tensor:
    """Return the logits of the public class under the attention of the family."""
    if kind.block is None:
        return model(tokens_BT).logits
    block_T = torch.arange(tokens_BT.shape[1]) // kind.block
    return model(tokens_BT, attention_mask=(block_T[None, :] <= block_T[:, None])[None, None]).logits


def published(kind: Kind, model: torch.nn.Module) -> dict[str, Tensor]:
    """Return the weights of the public class under the published keys."""
    tensors = {n: p.detach().clone() for n, p in model.state_dict().items()}
    if kind.config.get("tie_word_embeddings"):
        del tensors["lm_head.weight"]
    for name in [n for n in tensors if ".experts." in n]:
        stacked, place = tensors.pop(name), name.rpartition(".")[0]
        for number, tensor in enumerate(stacked):
            halves = tensor.chunk(2) if "gate_up" in name else [tensor]
            parts = ("gate_proj", "up_proj") if "gate_up" in name else ("down_proj",)
            for part, half in zip(parts, halves, strict=True):
                tensors[f"{place}.{number}.{part}.weight"] = half.clone()
    for layer in range(LAYERS if kind.fused_qkv else 0):
        three = [tensors.pop(f"model.layers.{layer}.self_attn.{p}_proj.weight") for p in "qkv"]
        tensors[f"model.layers.{layer}.{kind.fused_qkv}.weight"] = torch.cat(three)
    for pattern, new in kind.keys.items():
        tensors = {re.sub(pattern, new, name): tensor for name, tensor in tensors.items()}
    return tensors


def write_weights(folder: Path, tensors: dict[str, Tensor], shards: int = 2) -> None:
    """Write tensors to safetensors files with an index, or to the single file."""
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return
    names = [f"model-{n + 1:05}-of-{shards:05}.safetensors" for n in range(shards)]
    placed = {name: names[i % shards] for i, name in enumerate(sorted(tensors))}
    for file in names:
        save_file({n: t for n, t in tensors.items() if placed[n] == file}, folder / file)
    index = {"metadata": {"total_size": 0}, "weight_map": placed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def write_tokenizer(folder: Path, kind: Kind) -> None:
    """Write a byte-level tokenizer with the special tokens and the chat template of the family."""
    llada = kind.mask == "<|mdm_mask|>"
    special = LLADA_TOKENS if llada else [*QWEN_TOKENS, kind.mask]
    core = Tokenizer(models.BPE(vocab={b: i for i, b in enumerate(BYTES)}, merges=[]))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast" if llada else "DreamTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_own.OwnTokenizer", None]},
        "bos_token": "<|startoftext|>" if llada else "<|beginoftext|>",
        "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
        "chat_template": LLADA_CHAT if llada else QWEN_CHAT,
        "clean_up_tokenization_spaces": False,
    }
    if kind.slow_tokenizer:
        (folder / "vocab.json").write_text(json.dumps({b: i for i, b in enumerate(BYTES)}))
        (folder / "merges.txt").write_text("#version: 0.2\n")
        config["added_tokens_decoder"] = {
            str(core.token_to_id(t)): {"content": t, "special": True, "normalized": False, "lstrip": False}
            | {"rstrip": False, "single_word": False}
            for t in special
        }
    else:
        core.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def mask_id(kind: Kind) -> int:
    """Return the id that `write_tokenizer` gives the mask."""
    special = LLADA_TOKENS if kind.mask in LLADA_TOKENS else [*QWEN_TOKENS, kind.mask]
    return len(BYTES) + special.index(kind.mask)


def write(folder: Path, kind: Kind, *, shards: int = 2, **changes: Any) -> torch.nn.Module:
    """Write a whole checkpoint (`changes` go into its config.json); return the public class with its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    model = oracle(kind)
    (folder / "config.json").write_text(json.dumps(kind.config | changes))
    write_weights(folder, published(kind, model), shards)
    write_tokenizer(folder, kind)
    return model
