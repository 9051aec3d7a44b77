"""A published config.json decides what the family's own code makes of it, and holds nothing that nobody has read."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.config.build import load_model
from harness.config.composition import compose
from harness.engine.shared.model import ForwardRequest
from harness.errors import DataError
from harness.models.feed_forward import MixtureOfExperts
from harness.models.public.families import FAMILIES
from harness.models.public.loader import read_config
from harness.models.transformer import TransformerConfig
from tests.models.public import miniature
from tests.models.public.miniature import KINDS
from tests.models.shapes import tokens

WRITTEN_BY_TRANSFORMERS = {
    **{"architectures": ["ModelLM"], "auto_map": {"AutoConfig": "configuration.Config"}, "torch_dtype": "bfloat16"},
    **{"transformers_version": "4.46.3", "bos_token_id": 1, "eos_token_id": [1, 2], "use_cache": False},
    **{"initializer_range": 0.02, "attention_dropout": 0.1, "_name_or_path": "here", "is_encoder_decoder": False},
}
ALSO_PUBLISHED: dict[str, dict[str, Any]] = {
    "llada": {
        **{"alibi_bias_max": 8.0, "attention_dropout": 0.0, "embedding_dropout": 0.0, "residual_dropout": 0.0},
        **{"init_cutoff_factor": None, "init_device": "meta", "init_fn": "mitchell", "init_std": 0.02},
        **{"eos_token_id": 126081, "mask_token_id": 126336, "pad_token_id": 126081},
    },
    "dream": {
        **{"max_window_layers": 28, "mask_token_id": 151666, "pad_token_id": 151643, "attention_dropout": 0.0},
    },
    "llada_moe": {
        "clip_qkv": None,
        "routed_scaling_factor": 1,
        "router_aux_loss_coef": 0.01,
        "partial_rotary_factor": 1,
    },
    "llada2": {
        **{"embedding_dropout": 0.0, "output_dropout": 0.0, "max_window_layers": 28, "sliding_window": 4096},
        **{"rotary_dim": 64, "router_dtype": "fp32", "use_rmsnorm": True, "norm_head": False, "norm_softmax": False},
        **{"moe_shared_expert_intermediate_size": 512, "output_router_logits": False, "use_qkv_bias": False},
    },
    "sdar": {"max_window_layers": 36, "sliding_window": None, "block_size": 4, "mask_token_id": 151669},
    "fast_dllm_v2": {"max_window_layers": 28, "sliding_window": 32768, "attention_dropout": 0.0},
}


def config_of(folder: Path, family: str, *ignored: str, without: str = "", **changes: Any) -> TransformerConfig:
    """Return the shape that a miniature's config.json, changed, is read as."""
    values = KINDS[family].config | changes
    values.pop(without, None)
    (folder / "config.json").write_text(json.dumps(values))
    return read_config(folder, FAMILIES[family], ignored)[0]


@pytest.mark.parametrize("family", KINDS)
def test_everything_that_was_published_is_known(family: str, tmp_path: Path) -> None:
    """Guards the public checkpoints against being locked out by what their files say about training and bookkeeping."""
    plain = config_of(tmp_path, family)
    assert config_of(tmp_path, family, **WRITTEN_BY_TRANSFORMERS, max_new_tokens=20) == plain
    assert config_of(tmp_path, family, **ALSO_PUBLISHED[family]) == plain


def routed_plainly(mixture: MixtureOfExperts, x_NC: Tensor, family: str) -> Tensor:
    """Compute a mixture token by token in the words of the family's paper, its shared expert left out."""
    out_NC, K = torch.zeros_like(x_NC), mixture.experts.active
    for n, x_C in enumerate(x_NC):
        score_E = mixture.router.weight @ x_C
        if family == "llada_moe":
            weights = score_E.exp() / score_E.exp().sum()
            chosen = sorted(range(len(weights)), key=lambda e: -float(weights[e]))[:K]
        else:
            weights = 1 / (1 + (-score_E).exp())
            choice = (weights + mixture.selection_bias).tolist()
            size = len(choice) // mixture.experts.groups
            groups = [range(g * size, (g + 1) * size) for g in range(mixture.experts.groups)]
            groups.sort(key=lambda group: -sum(sorted((choice[e] for e in group), reverse=True)[:2]))
            open_ = [e for group in groups[: mixture.experts.groups_kept] for e in group]
            chosen = sorted(open_, key=lambda e: -choice[e])[:K]
            weights = weights * 2.5 / (weights[chosen].sum() if K > 1 else 1)
        for e in chosen:
            gate, up = (mixture.gate_up[e] @ x_C).chunk(2)
            out_NC[n] += weights[e] * (mixture.down[e] @ (gate / (1 + (-gate).exp()) * up))
    return out_NC


@pytest.mark.parametrize("active", [1, 3])
@pytest.mark.parametrize("says", [True, False, None])
@pytest.mark.parametrize("family", ["llada_moe", "llada2"])
def test_chosen_experts_weigh_what_the_own_code_gives_them(
    family: str, says: bool | None, active: int, tmp_path: Path
) -> None:
    """Guards `norm_topk_prob`, which neither family's code reads, and experts that are chosen alone."""
    changes = {"norm_topk_prob": says, "num_experts_per_tok": active, "num_shared_experts": 0}
    config = config_of(tmp_path, family, *(["num_shared_experts"] * (family == "llada_moe")), **changes)
    assert config.experts is not None
    # Processors round sums of float32 differently.
    mixture, generator = MixtureOfExperts(config.width, config.experts).double(), torch.Generator().manual_seed(3)
    for parameter in mixture.parameters():
        torch.nn.init.normal_(parameter, 0, 0.5, generator=generator).requires_grad_(False)
    x_NC = torch.randn(7, config.width, generator=generator, dtype=torch.float64)
    expected = routed_plainly(mixture, x_NC, family)
    assert expected.std() > 0.5
    torch.testing.assert_close(mixture(x_NC), expected, atol=1e-5, rtol=1e-5)


OWN_ROUTING = {
    "llada_moe": ({"norm_topk_prob": True}, {"norm_topk_prob": False}),
    "llada2": ({"num_experts_per_tok": 1}, {"num_experts_per_tok": 1, "norm_topk_prob": False}),
}


@pytest.mark.parametrize("family", OWN_ROUTING)
def test_logits_follow_the_own_code_where_the_config_says_otherwise(family: str, tmp_path: Path) -> None:
    """Guards whole checkpoints of the two: they were decoded with weights that their code never computes."""
    changes, computed = OWN_ROUTING[family]
    kind = replace(KINDS[family], oracle_config=KINDS[family].oracle_config | computed)
    oracle, tokens_BT = miniature.write(tmp_path, kind, **changes), tokens(2, 50, vocab_size=miniature.VOCABULARY)
    model = load_model(compose([f"model={kind.model}", f"model.path={tmp_path}"])).model
    expected = miniature.oracle_logits(oracle, kind, tokens_BT)
    torch.testing.assert_close(model.forward(ForwardRequest(tokens_BT)), expected, atol=1e-5, rtol=0)


UNKNOWN: dict[str, Any] = {
    **{"logit_scale": 0.5, "residual_multiplier": 1, "final_logit_softcapping": 30.0, "use_conv": True},
    **{"use_final_norm": False, "norm_position": "post", "quantization_config": {"bits": 4}, "windows": [1, 2]},
}


@pytest.mark.parametrize("family", KINDS)
@pytest.mark.parametrize("name", UNKNOWN)
def test_a_field_that_nobody_knows_is_refused_by_name(name: str, family: str, tmp_path: Path) -> None:
    """Guards against a variant whose code reads a field that ours passes over."""
    with pytest.raises(DataError) as refused:
        config_of(tmp_path, family, **{name: UNKNOWN[name]})
    message = str(refused.value)
    assert message.startswith(f"{tmp_path}/config.json: {name}={json.dumps(UNKNOWN[name])}: not known")
    assert message.endswith(f"model.ignored_fields=[{name}]") and "\n" not in message
    assert config_of(tmp_path, family, name, **{name: UNKNOWN[name]}) == config_of(tmp_path, family)


def test_all_fields_that_nobody_knows_are_named_at_once(tmp_path: Path) -> None:
    """Guards the user against one refusal after the other."""
    with pytest.raises(DataError, match=r"a=1, b=true: not known .* model\.ignored_fields=\[a,b\]$"):
        config_of(tmp_path, "dream", a=1, b=True, c=None)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("llada", {"rope_theta": 0}, "rope_theta=0: must be a finite number above 0"),
    ("dream", {"rope_theta": float("nan")}, "rope_theta=NaN: must be a finite number above 0"),
    ("dream", {"rope_theta": True}, "rope_theta=true: must be of type float"),
    ("sdar", {"rms_norm_eps": float("inf")}, "rms_norm_eps=Infinity: must be a finite number above 0"),
    ("llada2", {"routed_scaling_factor": -2.5}, "routed_scaling_factor=-2.5: must be a finite number above 0"),
    ("dream", {"num_attention_heads": 0}, "num_attention_heads=0: must be at least 1"),
    ("llada", {"n_heads": 3}, "d_model=32: must be a multiple of the 3 heads"),
    ("dream", {"head_dim": 12}, "head_dim=12: the loader knows 8 only"),
    ("llada_moe", {"head_dim": 12}, "head_dim=12: the loader knows 8 only"),
    ("dream", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5: the family rotates whole heads"),
    ("llada2", {"partial_rotary_factor": 1.5}, "partial_rotary_factor=1.5: is above 1"),
    ("dream", {"rope_parameters": {"rope_theta": 0}}, "rope_parameters=.*: must be a finite number above 0"),
    ("dream", {"rope_parameters": {"rope_theta": 5.0}}, r"rope_theta=1000000\.0: the file's rotary .* say 5\.0"),
    ("dream", {"rope_scaling": {"type": "default", "factor": 4.0}}, "rope_scaling=.*: the loader does not know factor"),
    (
        "dream",
        {"rope_scaling": {"rope_type": "default", "type": "yarn"}},
        "rope_scaling=.*: the loader knows unscaled rotary positions only",
    ),
    ("dream", {"rope_scaling": "yarn"}, 'rope_scaling="yarn": must be of type dict'),
    ("dream", {"layer_types": [["full_attention"]]}, "layer_types=.*: the loader knows full_attention only"),
    ("dream", {"is_decoder": True}, "is_decoder=true"),
    ("llada", {"layer_norm_with_affine": False}, "layer_norm_with_affine=false"),
    ("llada_moe", {"clip_qkv": 8.0}, "clip_qkv=8.0"),
    ("llada_moe", {"routed_scaling_factor": 2.5}, "routed_scaling_factor=2.5"),
    ("llada_moe", {"moe_layer_freq": [1, 2, 1]}, "moe_layer_freq=.*: the loader knows 0 and 1 only"),
    ("llada2", {"use_rmsnorm": False}, "use_rmsnorm=false"),
    ("llada2", {"rope_interleave": True}, "rope_interleave=true"),
    ("llada2", {"num_nextn_predict_layers": 1}, "num_nextn_predict_layers=1"),
]


@pytest.mark.parametrize(("family", "changes", "message"), REFUSED)
def test_a_value_that_the_module_does_not_compute_is_refused(
    family: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Guards against NaN logits, a traceback, and shapes that the family's own code would not build."""
    with pytest.raises(DataError, match=rf"^{tmp_path}/config\.json: {message}"):
        config_of(tmp_path, family, **changes)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        *(("llada", "weight_tying"), ("llada", "embedding_size"), ("sdar", "head_dim"), ("llada2", "n_group")),
        *(("llada2", "topk_group"), ("llada2", "partial_rotary_factor"), ("dream", "num_key_value_heads")),
    ],
)
def test_a_field_is_asked_for_where_the_own_code_has_a_default_of_its_size(
    family: str, name: str, tmp_path: Path
) -> None:
    """Guards an incomplete file against a default that is not that of the family's code (tied head, 8 groups, ...)."""
    with pytest.raises(DataError, match=f"{name}: is missing"):
        config_of(tmp_path, family, without=name)


def test_null_key_value_heads_are_as_many_as_heads(tmp_path: Path) -> None:
    """Guards the one reading of null that the families share."""
    assert config_of(tmp_path, "dream", num_key_value_heads=None).kv_heads == miniature.HEADS


def test_rotary_parameters_are_read_inside_and_outside(tmp_path: Path) -> None:
    """Guards files that newer libraries saved again, with one dictionary for the rotary positions."""
    inside = {"rope_type": "default", "rope_theta": 5000, "partial_rotary_factor": 0.5}
    config = config_of(tmp_path, "llada2", without="rope_theta", rope_parameters=inside)
    assert config.rope_theta == 5000 and config.rotary_width == config.head_width // 2


def test_an_ignored_field_counts_as_absent(tmp_path: Path) -> None:
    """Guards the override where a value is refused, and against ignoring what the shape is made of."""
    plain = config_of(tmp_path, "dream")
    assert config_of(tmp_path, "dream", "use_sliding_window", use_sliding_window=True) == plain
    with pytest.raises(DataError, match="rope_theta: is missing"):
        config_of(tmp_path, "dream", "rope_theta")


LOADED: list[tuple[str, dict[str, Any], str]] = [
    ("fast_dllm_v2", {"bd_size": 16}, "bd_size=16: is not model.block_length=32"),
    ("sdar", {"block_size": 32}, "block_size=32: is not model.block_length=4"),
    ("dream", {"block_size": 32}, "block_size=32: is not model.block_length=None"),
    ("dream", {"mask_token_id": "x"}, 'mask_token_id="x": must be of type int'),
    ("dream", {"pad_token_id": -1}, "pad_token_id=-1: must be at least 0"),
]


@pytest.mark.parametrize(("family", "changes", "message"), LOADED)
def test_what_the_loader_itself_reads_is_checked(
    family: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Guards blocks of another length than the checkpoint was trained for, and ids that are none."""
    kind = KINDS[family]
    miniature.write(tmp_path, kind, **changes)
    with pytest.raises(DataError, match=rf"^{tmp_path}/config\.json: {message}"):
        load_model(compose([f"model={kind.model}", f"model.path={tmp_path}"]))
