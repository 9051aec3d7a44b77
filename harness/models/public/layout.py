"""Where every published tensor goes: module names of a checkpoint to rows of in-tree parameters.

The in-tree transformer fuses query, key and value, and gate and up projection; a published tensor is therefore some
rows of a parameter. A parameter with more than two dimensions counts its rows over all but the last.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from harness.models.feed_forward import Experts, Router
from harness.models.transformer import TransformerConfig


@dataclass(frozen=True, kw_only=True)
class Part:
    """Rows [start, start + rows) of a parameter."""

    parameter: str
    start: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class Names:
    """The modules of a published checkpoint; `{i}` stands for the layer, `{e}` for the expert.

    `gate`, `up` and `down` are inside of `feed_forward`, `expert` or `shared`. `qkv` takes the place of query, key and
    value where they are one matrix, their rows in that order.
    """

    embedding: str
    norm: str
    head: str
    attention_norm: str
    query: str
    key: str
    value: str
    out: str
    feed_forward_norm: str
    feed_forward: str
    gate: str
    up: str
    down: str
    query_norm: str = ""
    key_norm: str = ""
    qkv: str = ""
    router: str = ""
    expert: str = ""
    shared: str = ""


LLADA = Names(
    embedding="model.transformer.wte",
    norm="model.transformer.ln_f",
    head="model.transformer.ff_out",
    attention_norm="model.transformer.blocks.{i}.attn_norm",
    query="model.transformer.blocks.{i}.q_proj",
    key="model.transformer.blocks.{i}.k_proj",
    value="model.transformer.blocks.{i}.v_proj",
    out="model.transformer.blocks.{i}.attn_out",
    feed_forward_norm="model.transformer.blocks.{i}.ff_norm",
    feed_forward="model.transformer.blocks.{i}",
    gate="ff_proj",
    up="up_proj",
    down="ff_out",
)

QWEN = Names(
    embedding="model.embed_tokens",
    norm="model.norm",
    head="lm_head",
    attention_norm="model.layers.{i}.input_layernorm",
    query="model.layers.{i}.self_attn.q_proj",
    key="model.layers.{i}.self_attn.k_proj",
    value="model.layers.{i}.self_attn.v_proj",
    out="model.layers.{i}.self_attn.o_proj",
    feed_forward_norm="model.layers.{i}.post_attention_layernorm",
    feed_forward="model.layers.{i}.mlp",
    gate="gate_proj",
    up="up_proj",
    down="down_proj",
    query_norm="model.layers.{i}.self_attn.q_norm",
    key_norm="model.layers.{i}.self_attn.k_norm",
    router="model.layers.{i}.mlp.gate",
    expert="model.layers.{i}.mlp.experts.{e}",
    shared="model.layers.{i}.mlp.shared_experts",
)

LLADA2 = replace(
    QWEN,
    embedding="model.word_embeddings",
    qkv="model.layers.{i}.attention.query_key_value",
    out="model.layers.{i}.attention.dense",
    query_norm="model.layers.{i}.attention.query_layernorm",
    key_norm="model.layers.{i}.attention.key_layernorm",
)


def parts(config: TransformerConfig, names: Names) -> dict[str, Part]:
    """Return, for every tensor of a checkpoint, the rows that it fills; a tied head has no tensor."""
    tensors = [*_outside(config, names)]
    for layer in range(config.layers):
        tensors += layer_parts(config, names, layer)
    return dict(tensors)


def layer_parts(config: TransformerConfig, names: Names, layer: int) -> Iterator[tuple[str, Part]]:
    """Yield the tensors of one layer, each with the rows that it fills."""
    yield from _attention(config, names, layer)
    yield from _feed_forward(config, names, layer)


def _outside(c: TransformerConfig, names: Names) -> Iterator[tuple[str, Part]]:
    yield f"{names.embedding}.weight", Part(parameter="embedding.weight", start=0, rows=c.vocab_size)
    yield f"{names.norm}.weight", Part(parameter="norm.weight", start=0, rows=c.width)
    if not c.tied_head:
        yield f"{names.head}.weight", Part(parameter="head.weight", start=0, rows=c.vocab_size)


def _attention(c: TransformerConfig, names: Names, layer: int) -> Iterator[tuple[str, Part]]:
    inside = f"blocks.{layer}.attention"
    queries, keys = c.heads * c.head_width, c.kv_heads * c.head_width
    norms = [(names.attention_norm, f"blocks.{layer}.attention_norm", c.width)]
    if c.qk_norm:
        norms += [(names.query_norm, f"{inside}.query_norm", c.head_width)]
        norms += [(names.key_norm, f"{inside}.key_norm", c.head_width)]
    for name, module, rows in norms:
        yield f"{name.format(i=layer)}.weight", Part(parameter=f"{module}.weight", start=0, rows=rows)
    fused = [(names.query, 0, queries), (names.key, queries, keys), (names.value, queries + keys, keys)]
    if names.qkv:
        fused = [(names.qkv, 0, queries + 2 * keys)]
    for kind in ("weight", "bias") if c.qkv_bias else ("weight",):
        for name, start, rows in fused:
            yield f"{name.format(i=layer)}.{kind}", Part(parameter=f"{inside}.qkv.{kind}", start=start, rows=rows)
    yield f"{names.out.format(i=layer)}.weight", Part(parameter=f"{inside}.out.weight", start=0, rows=c.width)


def _feed_forward(c: TransformerConfig, names: Names, layer: int) -> Iterator[tuple[str, Part]]:
    inside, norm = f"blocks.{layer}.feed_forward", f"blocks.{layer}.feed_forward_norm.weight"
    yield f"{names.feed_forward_norm.format(i=layer)}.weight", Part(parameter=norm, start=0, rows=c.width)
    if c.experts is None or layer in c.experts.dense_layers:
        module = names.feed_forward.format(i=layer)
        yield from _swiglu(c, names, module, (f"{inside}.gate_up.weight", f"{inside}.down.weight"))
    else:
        yield from _mixture(c, c.experts, names, layer)


def _mixture(c: TransformerConfig, experts: Experts, names: Names, layer: int) -> Iterator[tuple[str, Part]]:
    inside, router = f"blocks.{layer}.feed_forward", names.router.format(i=layer)
    yield f"{router}.weight", Part(parameter=f"{inside}.router.weight", start=0, rows=experts.count)
    if experts.router is Router.SIGMOID:
        yield f"{router}.expert_bias", Part(parameter=f"{inside}.selection_bias", start=0, rows=experts.count)
    for e in range(experts.count):
        module = names.expert.format(i=layer, e=e)
        yield from _swiglu(c, names, module, (f"{inside}.gate_up", f"{inside}.down"), experts.width, e)
    if experts.shared_width:
        module, ours = names.shared.format(i=layer), f"{inside}.shared"
        fused = (f"{ours}.gate_up.weight", f"{ours}.down.weight")
        yield from _swiglu(c, names, module, fused, experts.shared_width)


def _swiglu(
    c: TransformerConfig, names: Names, module: str, fused: tuple[str, str], inner: int | None = None, nth: int = 0
) -> Iterator[tuple[str, Part]]:
    """Yield the three matrices of one SwiGLU, the `nth` of those that the parameters of `fused` hold."""
    inner, (gate_up, down) = c.feed_forward_width if inner is None else inner, fused
    first = nth * 2 * inner
    yield f"{module}.{names.gate}.weight", Part(parameter=gate_up, start=first, rows=inner)
    yield f"{module}.{names.up}.weight", Part(parameter=gate_up, start=first + inner, rows=inner)
    yield f"{module}.{names.down}.weight", Part(parameter=down, start=nth * c.width, rows=c.width)
