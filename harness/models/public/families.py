"""The families of published checkpoints: how their config.json reads, and how their modules are called.

Sources: LLaDA (arXiv:2502.09992) publishes its config in OLMo's words; Dream (arXiv:2508.15487), DiffuCoder
(arXiv:2506.20639) and Fast-dLLM v2 (arXiv:2509.26328) are Qwen2 with another attention mask, SDAR
(arXiv:2510.06303) is Qwen3. LLaDA-MoE (arXiv:2509.24389) is Qwen3 with experts, LLaDA2 (arXiv:2512.15745) has those
of Glm4Moe.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from harness.models.feed_forward import Experts, Router
from harness.models.public.fields import Fields
from harness.models.public.layout import LLADA, LLADA2, QWEN, Names
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


def read_qwen(f: Fields, *, qkv_bias: bool, qk_norm: bool, inner: str = "intermediate_size") -> TransformerConfig:
    """Return the shape of a dense Qwen2 (`qkv_bias`) or Qwen3 (`qk_norm`); `inner` names the feed-forward width."""
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
        feed_forward_width=f.take(inner, int),
        max_length=f.take("max_position_embeddings", int),
        attention=Attention.FULL,
        rope_theta=_rope_theta(f),
        rope_in_float32=False,
        norm_eps=f.take("rms_norm_eps", float),
        qkv_bias=qkv_bias,
        qk_norm=qk_norm,
        tied_head=f.take("tie_word_embeddings", bool, False),
    )


def read_llada_moe(f: Fields) -> TransformerConfig:
    """Return the shape of LLaDA-MoE: softmax over all experts, the weights of the chosen as they are."""
    f.require("qk_layernorm", True)
    f.require("moe_router_score_function", None, "softmax")
    for name in ("router_num_group", "router_topk_group", "moe_router_topk_scaling_factor"):
        f.require(name, None)
    f.require("shared_expert_intermediate_size", None, 0)
    f.require("moe_router_enable_expert_bias", None, False)
    f.require("partial_rotary_factor", None, 1, 1.0)
    dense = read_qwen(f, qkv_bias=False, qk_norm=True, inner="dense_intermediate_size")
    frequency = f.take("moe_layer_freq", list, [1] * dense.layers)
    if len(frequency) != dense.layers:
        raise f.error("moe_layer_freq", f"must have one entry for each of the {dense.layers} layers")
    experts = Experts(
        count=f.take("num_experts", int),
        active=f.take("num_experts_per_tok", int),
        width=f.take("expert_intermediate_size", int),
        router=Router.SOFTMAX,
        normalised=f.take("norm_topk_prob", bool, False),
        dense_layers=tuple(layer for layer, mixed in enumerate(frequency) if not mixed),
    )
    return replace(dense, experts=experts)


def read_llada2(f: Fields) -> TransformerConfig:
    """Return the shape of LLaDA2: sigmoid routing within groups, a shared expert, half of each head rotated."""
    f.require("score_function", None, "sigmoid")
    f.require("norm_topk_prob", True)
    for switch in ("use_qkv_bias", "use_bias", "norm_head"):
        f.require(switch, False, None)
    f.require("use_qk_norm", True, None)
    f.require("moe_router_enable_expert_bias", True, None)
    dense = read_qwen(f, qkv_bias=False, qk_norm=True)
    width = f.take("moe_intermediate_size", int)
    experts = Experts(
        count=f.take("num_experts", int),
        active=f.take("num_experts_per_tok", int),
        width=width,
        router=Router.SIGMOID,
        normalised=True,
        scale=f.take("routed_scaling_factor", float),
        shared_width=f.take("num_shared_experts", int, 0) * width,
        groups=f.take("n_group", int, 1),
        groups_kept=f.take("topk_group", int, 1),
        dense_layers=tuple(range(f.take("first_k_dense_replace", int, 0))),
    )
    rotated = f.take("partial_rotary_factor", float, 1.0)
    return replace(dense, experts=experts, rotary_width=int(dense.head_width * rotated))


def _qwen2(f: Fields) -> TransformerConfig:
    return read_qwen(f, qkv_bias=True, qk_norm=False)


def _qwen3(f: Fields) -> TransformerConfig:
    return read_qwen(f, qkv_bias=False, qk_norm=True)


FAMILIES: dict[str, Family] = {
    "llada": Family(model_types=("llada",), read=read_llada, names=LLADA),
    "dream": Family(model_types=("Dream", "dream"), read=_qwen2, names=QWEN),
    "fast_dllm_v2": Family(model_types=("Fast_dLLM_Qwen", "qwen2"), read=_qwen2, names=QWEN),
    # Its config.json calls itself llada, or lladamoe where it was corrected.
    "llada_moe": Family(model_types=("lladamoe", "llada"), read=read_llada_moe, names=QWEN),
    "llada2": Family(model_types=("llada2_moe",), read=read_llada2, names=LLADA2),
    "sdar": Family(model_types=("sdar", "qwen3"), read=_qwen3, names=QWEN),
}
