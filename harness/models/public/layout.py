"""Where every published tensor goes: module names of a checkpoint to rows of in-tree parameters.

The in-tree transformer fuses query, key and value, and gate and up projection; a published tensor is therefore some
rows of a parameter. A parameter with more than two dimensions counts its rows over all but the last.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from harness.models.transformer import TransformerConfig


@dataclass(frozen=True, kw_only=True)
class Part:
    """Rows [start, start + rows) of a parameter."""

    parameter: str
    start: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class Names:
    """The modules of a published checkpoint; `{i}` stands for the layer."""

    embedding: str
    norm: str
    head: str
    attention_norm: str
    query: str
    key: str
    value: str
    out: str
    feed_forward_norm: str
    gate: str
    up: str
    down: str
    query_norm: str = ""
    key_norm: str = ""


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
    gate="model.transformer.blocks.{i}.ff_proj",
    up="model.transformer.blocks.{i}.up_proj",
    down="model.transformer.blocks.{i}.ff_out",
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
    gate="model.layers.{i}.mlp.gate_proj",
    up="model.layers.{i}.mlp.up_proj",
    down="model.layers.{i}.mlp.down_proj",
    query_norm="model.layers.{i}.self_attn.q_norm",
    key_norm="model.layers.{i}.self_attn.k_norm",
)


def parts(config: TransformerConfig, names: Names) -> dict[str, Part]:
    """Return, for every tensor of a checkpoint, the rows that it fills; a tied head has no tensor."""
    tensors = [*_outside(config, names)]
    for layer in range(config.layers):
        tensors += _attention(config, names, layer)
        tensors += _feed_forward(config, names, layer)
    return dict(tensors)


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
    for kind in ("weight", "bias") if c.qkv_bias else ("weight",):
        for name, start, rows in fused:
            yield f"{name.format(i=layer)}.{kind}", Part(parameter=f"{inside}.qkv.{kind}", start=start, rows=rows)
    yield f"{names.out.format(i=layer)}.weight", Part(parameter=f"{inside}.out.weight", start=0, rows=c.width)


def _feed_forward(c: TransformerConfig, names: Names, layer: int) -> Iterator[tuple[str, Part]]:
    norm, inside, wide = f"blocks.{layer}.feed_forward_norm", f"blocks.{layer}.feed_forward", c.feed_forward_width
    for name, parameter, start, rows in (
        (names.feed_forward_norm, f"{norm}.weight", 0, c.width),
        (names.gate, f"{inside}.gate_up.weight", 0, wide),
        (names.up, f"{inside}.gate_up.weight", wide, wide),
        (names.down, f"{inside}.down.weight", 0, c.width),
    ):
        yield f"{name.format(i=layer)}.weight", Part(parameter=parameter, start=start, rows=rows)
