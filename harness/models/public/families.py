"""The families of published checkpoints: how their config.json reads, and how their modules are called.

Sources: LLaDA (arXiv:2502.09992) publishes its config in OLMo's words; Dream (arXiv:2508.15487), DiffuCoder
(arXiv:2506.20639) and Fast-dLLM v2 (arXiv:2509.26328) are Qwen2 with another attention mask, SDAR
(arXiv:2510.06303) is Qwen3. LLaDA-MoE (arXiv:2509.24389) is Qwen3 with experts, LLaDA2 (arXiv:2512.15745) has those
of Glm4Moe. Llama, and SmolLM2 (arXiv:2502.02737) with it, is what all of them began as.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from harness.models.feed_forward import Experts, Router
from harness.models.public import harmless
from harness.models.public.fields import Fields
from harness.models.public.layout import LLADA, LLADA2, QWEN, Names
from harness.models.transformer import Attention, TransformerConfig


@dataclass(frozen=True, kw_only=True)
class Family:
    """How to read a checkpoint; `model_types` are the values that its config.json may give itself.

    `read` returns a shape with full attention and the positions that the file names. It follows the family's own
    code: a field that this code does not read, or reads at some values only, decides nothing here either. `harmless`
    are the fields that may have any value.
    """

    model_types: tuple[str, ...]
    read: Callable[[Fields], TransformerConfig]
    names: Names
    harmless: frozenset[str]


def read_llada(f: Fields) -> TransformerConfig:
    """Return the shape of LLaDA-8B and its kin; rotary angles are applied in float32."""
    f.require("block_type", "llama")
    f.require("block_group_size", 1, None)
    f.require("activation_type", "silu")
    f.require("layer_norm_type", "rms")
    f.require("rope", True)
    f.require("layer_norm_with_affine", True, None)
    for switch in (
        *("alibi", "attention_layer_norm", "include_bias", "include_qkv_bias", "bias_for_layer_norm"),
        *("scale_logits", "input_emb_norm", "multi_query_attention"),
    ):
        f.require(switch, False, None)
    width, heads = f.take("d_model", int), f.take("n_heads", int)
    vocab_size = f.take("vocab_size", int)
    ratio = f.take("mlp_ratio", int, 4)
    return TransformerConfig(
        vocab_size=f.take("embedding_size", int, null=vocab_size),
        width=width,
        layers=f.take("n_layers", int),
        heads=heads,
        kv_heads=f.take("n_kv_heads", int, heads),
        head_width=_share(f, "d_model", width, heads),
        feed_forward_width=f.take("mlp_hidden_size", int, ratio * width),
        max_length=f.take("max_sequence_length", int),
        attention=Attention.FULL,
        rope_theta=f.take("rope_theta", float),
        rope_in_float32=f.take("rope_full_precision", bool, True),
        norm_eps=f.take("rms_norm_eps", float),
        tied_head=f.take("weight_tying", bool),
    )


def _share(f: Fields, name: str, width: int, heads: int) -> int:
    """Return the channels of a head where the heads share those of the model, whose number is the field `name`."""
    if width % heads:
        raise f.error(name, f"must be a multiple of the {heads} heads")
    return width // heads


_ROPE_TYPE, _ROPE_NUMBERS = ("rope_type", "type"), ("rope_theta", "partial_rotary_factor")


def read_rope(f: Fields) -> dict[str, float]:
    """Return base and rotated part of rotary positions, which are fields of their own or inside `rope_parameters`."""
    found: dict[str, float] = {}
    for place in ("rope_parameters", "rope_scaling"):
        given = {name: value for name, value in f.take(place, dict, {}).items() if value is not None}
        if any(given.get(name, "default") != "default" for name in _ROPE_TYPE):
            raise f.error(place, "the loader knows unscaled rotary positions only")
        for name in given.keys() - {*_ROPE_TYPE}:
            if name not in _ROPE_NUMBERS:
                raise f.error(place, f"the loader does not know {name}")
            found[name] = f.checked(place, given[name], float)
    for name in _ROPE_NUMBERS:
        own = None if f.optional(name) is None else f.take(name, float)
        if own is not None and found.setdefault(name, own) != own:
            raise f.error(name, f"the file's rotary parameters say {found[name]}")
    if "rope_theta" not in found:
        raise f.error("rope_theta", "is missing")
    return found


def _head_width(f: Fields, *, fixed: bool = False) -> int:
    """Return the width of a head that shares the model's channels where `head_dim` does not say, or `fixed` always."""
    width, heads = f.take("hidden_size", int), f.take("num_attention_heads", int)
    if fixed and f.optional("head_dim") is not None:
        f.require("head_dim", _share(f, "hidden_size", width, heads))
    return f.take("head_dim", int) if f.optional("head_dim") is not None else _share(f, "hidden_size", width, heads)


def _read_qwen(
    f: Fields,
    *,
    head_width: int,
    inner: str = "intermediate_size",
    qkv_bias: bool = False,
    qk_norm: bool = False,
    partly_rotated: bool = False,
) -> TransformerConfig:
    """Return the shape of a dense Qwen2 (`qkv_bias`) or Qwen3 (`qk_norm`); `inner` names the feed-forward width."""
    f.require("hidden_act", "silu")
    for switch in ("use_sliding_window", "use_mrope", "mlp_bias"):
        f.require(switch, False, None)
    f.require("attention_bias", None, qkv_bias)
    if any(kind != "full_attention" for kind in f.take("layer_types", list, [])):
        raise f.error("layer_types", "the loader knows full_attention only")
    heads, rope = f.take("num_attention_heads", int), read_rope(f)
    rotated = rope.get("partial_rotary_factor", 1.0)
    if rotated > 1 or (rotated < 1 and not partly_rotated):
        raise f.error("partial_rotary_factor", "the family rotates whole heads" if rotated < 1 else "is above 1")
    return TransformerConfig(
        vocab_size=f.take("vocab_size", int),
        width=f.take("hidden_size", int),
        layers=f.take("num_hidden_layers", int),
        heads=heads,
        kv_heads=f.take("num_key_value_heads", int, null=heads),
        head_width=head_width,
        feed_forward_width=f.take(inner, int),
        max_length=f.take("max_position_embeddings", int),
        attention=Attention.FULL,
        rope_theta=rope["rope_theta"],
        rope_in_float32=False,
        norm_eps=f.take("rms_norm_eps", float),
        qkv_bias=qkv_bias,
        qk_norm=qk_norm,
        tied_head=f.take("tie_word_embeddings", bool, False),
        rotary_width=int(head_width * rotated) if partly_rotated else None,
    )


def read_dream(f: Fields) -> TransformerConfig:
    """Return the shape of Dream and DiffuCoder, whose heads share the model's channels."""
    return _read_qwen(f, head_width=_head_width(f, fixed=True), qkv_bias=True)


def read_llama(f: Fields) -> TransformerConfig:
    """Return the shape of Llama and its kin: no biases, no norms of queries and keys, unscaled rotary positions."""
    f.require("rope_interleaved", False, None)
    f.require("pretraining_tp", 1, None)
    return _read_qwen(f, head_width=_head_width(f))


def read_fast_dllm_v2(f: Fields) -> TransformerConfig:
    """Return the shape of Fast-dLLM v2."""
    return _read_qwen(f, head_width=_head_width(f), qkv_bias=True)


def read_sdar(f: Fields) -> TransformerConfig:
    """Return the shape of SDAR; its code knows a width of heads that no other field gives, so the file must say it."""
    return _read_qwen(f, head_width=f.take("head_dim", int), qk_norm=True)


def read_llada_moe(f: Fields) -> TransformerConfig:
    """Return the shape of LLaDA-MoE: softmax over all experts, the weights of the chosen as they are."""
    f.require("qk_layernorm", True)
    f.require("moe_router_score_function", None, "softmax")
    for name in ("router_num_group", "router_topk_group", "moe_router_topk_scaling_factor", "clip_qkv"):
        f.require(name, None)
    f.require("routed_scaling_factor", None, 1, 1.0)
    f.require("shared_expert_intermediate_size", None, 0)
    f.require("moe_router_enable_expert_bias", None, False)
    dense = _read_qwen(f, head_width=_head_width(f, fixed=True), inner="dense_intermediate_size", qk_norm=True)
    frequency = f.take("moe_layer_freq", list, [1] * dense.layers)
    if len(frequency) != dense.layers:
        raise f.error("moe_layer_freq", f"must have one entry for each of the {dense.layers} layers")
    if any(mixed not in (0, 1) for mixed in frequency):
        raise f.error("moe_layer_freq", "the loader knows 0 and 1 only")
    experts = Experts(
        count=f.take("num_experts", int),
        active=f.take("num_experts_per_tok", int),
        width=f.take("expert_intermediate_size", int),
        router=Router.SOFTMAX,
        normalised=False,
        dense_layers=tuple(layer for layer, mixed in enumerate(frequency) if not mixed),
    )
    return replace(dense, experts=experts)


def read_llada2(f: Fields) -> TransformerConfig:
    """Return the shape of LLaDA2: sigmoid routing within groups, a shared expert, half of each head rotated.

    The weight of an expert that is chosen alone is its score; those of several are divided by their sum.
    """
    f.require("score_function", None, "sigmoid")
    f.require("router_dtype", None, "fp32")
    for switch in ("use_qkv_bias", "use_bias", "norm_head", "norm_softmax", "rope_interleave"):
        f.require(switch, False, None)
    for switch in ("use_qk_norm", "moe_router_enable_expert_bias", "use_rmsnorm"):
        f.require(switch, True, None)
    f.require("num_nextn_predict_layers", None, 0)
    if read_rope(f).get("partial_rotary_factor") is None:
        raise f.error("partial_rotary_factor", "is missing")
    dense = _read_qwen(f, head_width=_head_width(f), qk_norm=True, partly_rotated=True)
    width, active = f.take("moe_intermediate_size", int), f.take("num_experts_per_tok", int)
    experts = Experts(
        count=f.take("num_experts", int),
        active=active,
        width=width,
        router=Router.SIGMOID,
        normalised=active > 1,
        scale=f.take("routed_scaling_factor", float),
        shared_width=f.take("num_shared_experts", int, 0, least=0) * width,
        groups=f.take("n_group", int),
        groups_kept=f.take("topk_group", int),
        dense_layers=tuple(range(f.take("first_k_dense_replace", int, 0, least=0))),
    )
    return replace(dense, experts=experts)


FAMILIES: dict[str, Family] = {
    "llada": Family(model_types=("llada",), read=read_llada, names=LLADA, harmless=harmless.LLADA),
    "dream": Family(model_types=("Dream", "dream"), read=read_dream, names=QWEN, harmless=harmless.QWEN),
    "fast_dllm_v2": Family(
        model_types=("Fast_dLLM_Qwen", "qwen2"), read=read_fast_dllm_v2, names=QWEN, harmless=harmless.QWEN
    ),
    "llama": Family(model_types=("llama",), read=read_llama, names=QWEN, harmless=harmless.LLAMA),
    # Its config.json calls itself llada, or lladamoe where it was corrected.
    "llada_moe": Family(
        model_types=("lladamoe", "llada"), read=read_llada_moe, names=QWEN, harmless=harmless.LLADA_MOE
    ),
    "llada2": Family(model_types=("llada2_moe",), read=read_llada2, names=LLADA2, harmless=harmless.LLADA2),
    "sdar": Family(model_types=("sdar", "qwen3"), read=read_sdar, names=QWEN, harmless=harmless.QWEN),
}
