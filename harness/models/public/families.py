"""The families of published checkpoints: how their config.json reads, and how their modules are called.

Sources: LLaDA (arXiv:2502.09992) publishes its config in OLMo's words; Dream (arXiv:2508.15487), DiffuCoder
(arXiv:2506.20639) and Fast-dLLM v2 (arXiv:2509.26328) are Qwen2 with another attention mask, SDAR
(arXiv:2510.06303) is Qwen3.
"""

from collections.abc import Callable
from dataclasses import dataclass

from harness.models.public.fields import Fields
from harness.models.public.layout import LLADA, QWEN, Names
from harness.models.transformer import Attention, TransformerConfig


@dataclass(frozen=True, kw_only=True)
class Family:
    """How to read a checkpoint; `model_types` are the values that its config.json may give itself.

    `read` returns a shape with full attention and the positions that the file names.
    """

    model_types: tuple[str, ...]
    read: Callable[[Fields], TransformerConfig]
    names: Names


def read_llada(f: Fields) -> TransformerConfig:
    """Return the shape of LLaDA-8B and its kin; rotary angles are applied in float32."""
    f.require("block_type", "llama")
    f.require("block_group_size", 1, None)
    f.require("activation_type", "silu")
    f.require("layer_norm_type", "rms")
    f.require("rope", True)
    for switch in (
        *("alibi", "attention_layer_norm", "include_bias", "include_qkv_bias", "bias_for_layer_norm"),
        *("scale_logits", "input_emb_norm", "multi_query_attention"),
    ):
        f.require(switch, False, None)
    width, heads = f.take("d_model", int), f.take("n_heads", int)
    vocab_size = f.take("vocab_size", int)
    ratio = f.take("mlp_ratio", int, 4)
    return TransformerConfig(
        vocab_size=f.take("embedding_size", int, vocab_size),
        width=width,
        layers=f.take("n_layers", int),
        heads=heads,
        kv_heads=f.take("n_kv_heads", int, heads),
        head_width=width // heads,
        feed_forward_width=f.take("mlp_hidden_size", int, ratio * width),
        max_length=f.take("max_sequence_length", int),
        attention=Attention.FULL,
        rope_theta=f.take("rope_theta", float),
        rope_in_float32=f.take("rope_full_precision", bool, True),
        norm_eps=f.take("rms_norm_eps", float),
        tied_head=f.take("weight_tying", bool, False),
    )


def _rope_theta(f: Fields) -> float:
    """Return the base of the rotary angles, which is a field of its own or inside `rope_parameters`."""
    inside: dict[str, object] = {}
    for name in ("rope_parameters", "rope_scaling"):
        given = f.optional(name)
        if given is None:
            continue
        if not isinstance(given, dict) or given.get("rope_type", given.get("type", "default")) != "default":
            raise f.error(name, "the loader knows unscaled rotary positions only")
        inside |= given
    theta = inside.get("rope_theta")
    return float(theta) if isinstance(theta, int | float) else f.take("rope_theta", float)


def read_qwen(f: Fields, *, qkv_bias: bool, qk_norm: bool) -> TransformerConfig:
    """Return the shape of a dense Qwen2 (`qkv_bias`) or Qwen3 (`qk_norm`)."""
    f.require("hidden_act", "silu")
    for switch in ("use_sliding_window", "use_mrope", "mlp_bias"):
        f.require(switch, False, None)
    f.require("attention_bias", None, qkv_bias)
    kinds = f.optional("layer_types")
    if kinds is not None and {*kinds} != {"full_attention"}:
        raise f.error("layer_types", "the loader knows full_attention only")
    width, heads = f.take("hidden_size", int), f.take("num_attention_heads", int)
    return TransformerConfig(
        vocab_size=f.take("vocab_size", int),
        width=width,
        layers=f.take("num_hidden_layers", int),
        heads=heads,
        kv_heads=f.take("num_key_value_heads", int, heads),
        head_width=f.take("head_dim", int, width // heads),
        feed_forward_width=f.take("intermediate_size", int),
        max_length=f.take("max_position_embeddings", int),
        attention=Attention.FULL,
        rope_theta=_rope_theta(f),
        rope_in_float32=False,
        norm_eps=f.take("rms_norm_eps", float),
        qkv_bias=qkv_bias,
        qk_norm=qk_norm,
        tied_head=f.take("tie_word_embeddings", bool, False),
    )


def _qwen2(f: Fields) -> TransformerConfig:
    return read_qwen(f, qkv_bias=True, qk_norm=False)


def _qwen3(f: Fields) -> TransformerConfig:
    return read_qwen(f, qkv_bias=False, qk_norm=True)


FAMILIES: dict[str, Family] = {
    "llada": Family(model_types=("llada",), read=read_llada, names=LLADA),
    "dream": Family(model_types=("Dream", "dream"), read=_qwen2, names=QWEN),
    "fast_dllm_v2": Family(model_types=("Fast_dLLM_Qwen", "qwen2"), read=_qwen2, names=QWEN),
    "sdar": Family(model_types=("sdar", "qwen3"), read=_qwen3, names=QWEN),
}
