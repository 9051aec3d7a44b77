"""The transformer computes what the public model classes and the published equations say."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.engine.shared.model import ForwardRequest, Layer
from harness.errors import ConfigError
from harness.models.transformer import Attention, Transformer
from tests.models.shapes import config, random_model, tokens

BLOCK = 4
ATTENTION = {
    "causal": {"attention": Attention.CAUSAL},
    "full": {"attention": Attention.FULL},
    "block": {"attention": Attention.BLOCK_CAUSAL, "block_length": BLOCK},
}
FAMILIES = {
    "Llama": {"norm_eps": 1e-5, "rope_theta": 500000.0},
    "Llama tied": {"norm_eps": 1e-5, "tied_head": True},
    "Qwen2": {"norm_eps": 1e-6, "rope_theta": 1e6, "qkv_bias": True},
    "Qwen3": {"norm_eps": 1e-6, "rope_theta": 1e6, "qk_norm": True, "head_width": 12},
}


def public_weights(model: Transformer) -> dict[str, Tensor]:
    """Return the weights under the names of the public classes, fused matrices taken apart."""
    c, ours = model.config, model.state_dict()
    rows = [n * c.head_width for n in (c.heads, c.kv_heads, c.kv_heads)]
    renamed = {"embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
    theirs = {f"{renamed[n]}.weight": ours[f"{n}.weight"] for n in renamed if f"{n}.weight" in ours}
    parts = {
        "attention_norm": ("input_layernorm",),
        "feed_forward_norm": ("post_attention_layernorm",),
        "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "attention.out": ("self_attn.o_proj",),
        "attention.query_norm": ("self_attn.q_norm",),
        "attention.key_norm": ("self_attn.k_norm",),
        "feed_forward.gate_up": ("mlp.gate_proj", "mlp.up_proj"),
        "feed_forward.down": ("mlp.down_proj",),
    }
    for name, value in ours.items():
        if not name.startswith("blocks"):
            continue
        _, layer, rest = name.split(".", 2)
        module, kind = rest.rsplit(".", 1)
        targets = parts[module]
        sizes = rows if len(targets) == 3 else [len(value) // len(targets)] * len(targets)
        for target, piece in zip(targets, value.split(sizes), strict=True):
            theirs[f"model.layers.{layer}.{target}.{kind}"] = piece
    return theirs


def public_model(model: Transformer, family: str) -> torch.nn.Module:
    """Return the public class of the same shape with the same weights."""
    import transformers

    c, name = model.config, family.split()[0]
    shape = getattr(transformers, f"{name}Config")(
        vocab_size=c.vocab_size,
        hidden_size=c.width,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        num_key_value_heads=c.kv_heads,
        head_dim=c.head_width,
        intermediate_size=c.feed_forward_width,
        max_position_embeddings=c.max_length,
        rms_norm_eps=c.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
        tie_word_embeddings=c.tied_head,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    theirs = getattr(transformers, f"{name}ForCausalLM")(shape).eval()
    missing, unexpected = theirs.load_state_dict(public_weights(model), strict=False)
    assert not unexpected
    assert set(missing) <= ({"lm_head.weight"} if c.tied_head else set())
    return theirs


@torch.no_grad()
def public_logits(theirs: torch.nn.Module, attention: str, tokens_BT: Tensor) -> Tensor:
    """Run the public class with the given attention (block-causal through a 4-D mask)."""
    theirs.config.is_causal = attention != "full"
    block_T = torch.arange(tokens_BT.shape[1]) // BLOCK
    mask = (block_T[None, :] <= block_T[:, None])[None, None] if attention == "block" else None
    return theirs(tokens_BT, attention_mask=mask).logits


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_the_public_classes(family: str, attention: str) -> None:
    """Guards the mapping of every switch: a swapped half of a fused matrix, another eps, another mask."""
    model, tokens_BT = random_model(**FAMILIES[family], **ATTENTION[attention]), tokens(2, 18)
    expected = public_logits(public_model(model, family), attention, tokens_BT)
    assert expected.std() > 0.5
    torch.testing.assert_close(model(tokens_BT), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_bits_equal_the_public_classes(family: str, tmp_path: Path) -> None:
    """Guards the order of casts in norm and rotation, and the tables against being rounded with the weights."""
    model = random_model(**FAMILIES[family], rope_in_float32=False)
    public_model(model, family).save_pretrained(tmp_path)
    import transformers

    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    tokens_BT = tokens(2, 33)
    assert torch.equal(model.to(torch.bfloat16)(tokens_BT), public_logits(theirs, "full", tokens_BT))


def test_float32_rotation_is_a_switch_of_low_precision_only() -> None:
    """Guards against rotating Dream in float32 or LLaDA in bfloat16: the switch must change these bits."""
    one, other = (random_model(rope_in_float32=f, dtype=torch.bfloat16) for f in (True, False))
    assert not torch.equal(one(tokens(1, 33)), other(tokens(1, 33)))
    assert torch.equal(one.float()(tokens(1, 33)), other.float()(tokens(1, 33)))


def numpy_logits(model: Transformer, tokens_T: np.ndarray) -> np.ndarray:
    """Compute one row's logits in float64 from the published equations and nothing else."""
    c = model.config
    w = {name: value.double().numpy() for name, value in model.state_dict().items()}
    position_T = np.arange(len(tokens_T))
    angle = position_T[:, None] * c.rope_theta ** (-np.arange(0, c.head_width, 2) / c.head_width)
    turn = np.exp(1j * angle)[:, None, :]
    group_T = position_T // (c.block_length or 1)
    seen_TS = np.full((len(tokens_T),) * 2, True)
    if c.attention is not Attention.FULL:
        seen_TS = group_T[None, :] <= group_T[:, None]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + c.norm_eps) * w[name + ".weight"]

    def rope(u_THD: np.ndarray) -> np.ndarray:
        real, imaginary = np.split(u_THD, 2, -1)
        turned = (real + 1j * imaginary) * turn
        return np.concatenate([turned.real, turned.imag], -1)

    x = w["embedding.weight"][tokens_T]
    for i in range(c.layers):
        b = f"blocks.{i}."
        h = norm(x, b + "attention_norm") @ w[b + "attention.qkv.weight"].T + w[b + "attention.qkv.bias"]
        q, k, v = np.split(h.reshape(len(x), -1, c.head_width), [c.heads, c.heads + c.kv_heads], 1)
        q, k = rope(norm(q, b + "attention.query_norm")), rope(norm(k, b + "attention.key_norm"))
        heads = []
        for n in range(c.heads):
            m = n // (c.heads // c.kv_heads)
            score = np.where(seen_TS, q[:, n] @ k[:, m].T / np.sqrt(c.head_width), -np.inf)
            weight = np.exp(score - score.max(-1, keepdims=True))
            heads.append(weight / weight.sum(-1, keepdims=True) @ v[:, m])
        x = x + np.concatenate(heads, -1) @ w[b + "attention.out.weight"].T
        gate, up = np.split(norm(x, b + "feed_forward_norm") @ w[b + "feed_forward.gate_up.weight"].T, 2, -1)
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[b + "feed_forward.down.weight"].T
    return norm(x, "norm") @ w["head.weight"].T


@pytest.mark.parametrize("attention", ATTENTION)
def test_logits_equal_the_equations(attention: str) -> None:
    """Guards against an error that our module and the public classes share."""
    model = random_model(dtype=torch.float64, qkv_bias=True, qk_norm=True, **ATTENTION[attention])
    tokens_BT = tokens(1, 18)
    expected = numpy_logits(model, tokens_BT[0].numpy())
    np.testing.assert_allclose(model(tokens_BT)[0].numpy(), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("place", [0, 6, 15])
def test_a_token_reaches_exactly_the_positions_that_see_it(attention: str, place: int) -> None:
    """Guards the mask of each kind: one leaking position makes a benchmark meaningless."""
    model, before_BT = random_model(**ATTENTION[attention]), tokens(1, 16)
    after_BT = before_BT.clone()
    after_BT[0, place] = (after_BT[0, place] + 1) % 48
    changed_T = (model(before_BT) != model(after_BT)).any(-1)[0]
    first = {"causal": place, "full": 0, "block": place // BLOCK * BLOCK}[attention]
    assert torch.equal(changed_T, torch.arange(16) >= first)


def test_bfloat16_tables_stay_float32() -> None:
    """Guards against the largest error of a conversion: angles rounded with the weights."""
    model = random_model(dtype=torch.bfloat16)
    assert torch.equal(model.rotary.cos_SD, random_model().rotary.cos_SD)
    assert model.rotary.cos_SD.dtype is torch.float32


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"heads": 3}, "kv_heads"),
        ({"width": 0}, "width"),
        ({"layers": "4"}, "layers"),
        ({"head_width": 7}, "head_width"),
        ({"block_length": 4}, "block_length"),
        ({"attention": Attention.BLOCK_CAUSAL}, "block_length"),
        ({"attention": Attention.BLOCK_CAUSAL, "block_length": 0}, "block_length"),
    ],
)
def test_impossible_shapes_are_refused_by_name(changes: dict[str, object], key: str) -> None:
    """Guards against a shape error deep inside a matrix product."""
    with pytest.raises(ConfigError, match=key):
        config(**changes)


def test_attention_can_be_looked_at() -> None:
    """Guards the probabilities shown against those that the fused kernel uses, with and without a mask."""
    model, tokens_BT = random_model(dtype=torch.float64, heads=4, kv_heads=2), tokens(2, 9)
    layer, seen = model.blocks[0].attention, {}
    logits = model.logits(ForwardRequest(tokens_BT, observe=lambda number, mean_BTS: seen.update({number: mean_BTS})))
    torch.testing.assert_close(logits, model(tokens_BT), atol=0, rtol=0)
    assert sorted(seen) == list(range(model.config.layers))
    uniform = torch.zeros(1, 9, 4, 32, dtype=torch.float64), torch.zeros(1, 9, 2, 32, dtype=torch.float64)
    torch.testing.assert_close(layer.probabilities(*uniform, None, True)[0, 3, :4], torch.full((4,), 0.25).double())
    for attention_BTS in seen.values():
        torch.testing.assert_close(attention_BTS.sum(-1), torch.ones(2, 9, dtype=torch.float64))


class Everything:
    """A plan that runs every layer for the positions from `first` on, and values by a projection of their own."""

    def __init__(self, first: int) -> None:
        self.first, self.layer_tokens_B = first, torch.zeros(2, dtype=torch.int64)

    def __call__(self, index: int, layer: Layer, x_BLC: Tensor) -> Tensor:
        first, L = self.first, x_BLC.shape[1]
        positions_BL = torch.arange(L).expand(2, L)
        _, k, _ = layer.project(x_BLC, positions_BL)
        q, own, _ = layer.project(x_BLC[:, first:], positions_BL[:, first:])
        torch.testing.assert_close(own, k[:, first:], atol=1e-12, rtol=0)
        v = layer.values(x_BLC)
        attention_BTS = layer.attention(q, k, positions_BL[:, first:])
        torch.testing.assert_close(attention_BTS.sum(-1), torch.ones(2, L - first, dtype=torch.float64))
        x_BTC = x_BLC[:, first:] + layer.attend(q, k, v, positions_BL[:, first:])
        return torch.cat([x_BLC[:, :first], x_BTC + layer.feed_forward(x_BTC)], 1)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("attention", ATTENTION)
def test_a_plan_can_do_what_the_model_does(attention: str, padded: bool) -> None:
    """Guards the parts of a layer, biases, masks and structure against the ordinary pass."""
    model = random_model(dtype=torch.float64, qkv_bias=True, qk_norm=True, **ATTENTION[attention])
    tokens_BT = tokens(2, 9)
    visible_BTS = (torch.arange(9) < torch.tensor([[9], [7]]))[:, None] if padded else None
    planned = model.logits(ForwardRequest(tokens_BT, visible_BTS=visible_BTS, plan=Everything(0)))
    plain = model.logits(ForwardRequest(tokens_BT, visible_BTS=visible_BTS))
    torch.testing.assert_close(planned, plain, atol=1e-11, rtol=0)


@pytest.mark.parametrize("attention", ATTENTION)
def test_a_plan_can_run_a_part_of_the_positions(attention: str) -> None:
    """Guards the masks of queries that are not the whole row, on one layer, where nothing else is missing."""
    model, tokens_BT = random_model(dtype=torch.float64, layers=1, **ATTENTION[attention]), tokens(2, 9)
    planned = model.logits(ForwardRequest(tokens_BT, plan=Everything(5)))
    torch.testing.assert_close(planned[:, 5:], model(tokens_BT)[:, 5:], atol=1e-11, rtol=0)
