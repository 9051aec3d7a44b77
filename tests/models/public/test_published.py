"""Published checkpoints load strictly by key and compute what transformers' own classes compute."""

import json
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file

from harness.config.build import load_model
from harness.config.catalogue import names, read
from harness.config.composition import compose
from harness.engine.shared.model import ForwardRequest, ModelKind
from harness.errors import ConfigError, DataError
from harness.models.pool import LoadedModel
from harness.models.public.families import FAMILIES
from harness.models.public.layout import parts
from harness.models.public.loader import read_config
from harness.models.public.synthetic import SHAPES
from harness.models.transformer import Transformer
from tests.models.public import miniature
from tests.models.public.miniature import KINDS, Kind
from tests.models.shapes import tokens

PUBLISHED = [name for name in names("model") if "family" in read("model", name).get("loader", {})]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, torch.nn.Module]]:
    """Write one miniature of every family, with the public class that holds the same weights."""
    made = {}
    for name, kind in KINDS.items():
        folder = tmp_path_factory.mktemp(name)
        made[name] = folder, miniature.write(folder, kind)
    return made


def loaded(kind: Kind, folder: Path, *overrides: str) -> LoadedModel:
    """Load as the runner does."""
    return load_model(compose([f"model={kind.model}", f"model.path={folder}", *overrides]))


@pytest.mark.parametrize("family", KINDS)
def test_logits_equal_the_public_class(family: str, folders: dict) -> None:
    """Guards the whole table of keys, the switches of a family and its attention."""
    kind, (folder, oracle) = KINDS[family], folders[family]
    tokens_BT = tokens(2, 50, vocab_size=miniature.VOCABULARY)
    expected = miniature.oracle_logits(oracle, kind, tokens_BT)
    assert expected.std() > 0.5
    torch.testing.assert_close(
        loaded(kind, folder).model.forward(ForwardRequest(tokens_BT)), expected, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("family", KINDS)
def test_logits_through_the_store_equal_the_public_class(family: str, folders: dict) -> None:
    """Guards windows against stored keys and values, in the way block-causal and full models are decoded."""
    kind, (folder, oracle) = KINDS[family], folders[family]
    model, tokens_BT = loaded(kind, folder).model, tokens(2, 64, vocab_size=miniature.VOCABULARY)
    expected, store = miniature.oracle_logits(oracle, kind, tokens_BT), model.new_store(2, 64)
    width = kind.block or 64
    for start in range(0, 64, width):
        window = slice(start, start + width)
        places = torch.arange(start, start + width).expand(2, -1)
        logits = model.forward(ForwardRequest(tokens_BT[:, window], positions_BT=places, kv=store, end=start + width))
        torch.testing.assert_close(logits, expected[:, window], atol=1e-5, rtol=0)
    again = model.forward(
        ForwardRequest(tokens_BT[:, 20:24], positions_BT=torch.arange(20, 24).expand(2, -1), kv=store)
    )
    torch.testing.assert_close(again, expected[:, 20:24], atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", KINDS)
def test_the_spec_is_what_was_published(family: str, folders: dict) -> None:
    """Guards shift, kind and ids, which no decoder can check by itself."""
    kind, (folder, _) = KINDS[family], folders[family]
    got = loaded(kind, folder)
    spec, end = got.model.spec, len(miniature.BYTES)
    assert spec.mask_id == miniature.mask_id(kind)
    assert spec.shift == (family in ("dream", "fast_dllm_v2"))
    assert spec.block_length == kind.block
    assert spec.kind is (ModelKind.MASKED_DIFFUSION if kind.block is None else ModelKind.BLOCK_DIFFUSION)
    stops = {"llada": (end + 1, end + 5), "fast_dllm_v2": (end + 2,), "llada_moe": (end, end + 4), "llada2": (end,)}
    assert spec.stop_ids == stops.get(family, (end, end + 2))
    assert spec.pad_id == end + (family == "llada")
    biases = [b for name, b in folders[family][1].named_buffers() if "correction_bias" in name]
    assert got.parameters == sum(p.numel() for p in [*folders[family][1].parameters(), *biases])


def test_one_tensor_is_held_beside_the_model(folders: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards memory: a second copy of 16 GB does not fit where one does."""
    kind, (folder, _) = KINDS["llada"], folders["llada"]
    opened, held = safetensors.safe_open, []

    class Watching:
        def __init__(self, *arguments: Any, **named: Any) -> None:
            self.inner = opened(*arguments, **named)

        def __enter__(self) -> "Watching":
            self.inner.__enter__()
            return self

        def __exit__(self, *error: Any) -> None:
            self.inner.__exit__(*error)

        def keys(self) -> list[str]:
            return self.inner.keys()

        def get_tensor(self, name: str) -> torch.Tensor:
            assert all(tensor() is None for tensor in held)
            tensor = self.inner.get_tensor(name)
            held.append(weakref.ref(tensor))
            return tensor

    monkeypatch.setattr(safetensors, "safe_open", Watching)
    loaded(kind, folder, "seed=1", "model.max_length=2000")
    assert len(held) == 3 + 9 * miniature.LAYERS


def test_the_dtype_is_that_of_the_run(folders: dict) -> None:
    """Guards bfloat16 runs: weights are rounded once, rotary tables not at all."""
    kind, (folder, oracle) = KINDS["llada"], folders["llada"]
    transformer = loaded(kind, folder, "device.dtype=bfloat16").model.transformer  # type: ignore[attr-defined]
    assert {p.dtype for p in transformer.parameters()} == {torch.bfloat16}
    assert transformer.rotary.cos_SD.dtype is torch.float32
    assert torch.equal(transformer.head.weight, oracle.lm_head.weight.to(torch.bfloat16))


def test_the_bias_that_chooses_experts_is_not_rounded(folders: dict) -> None:
    """Guards bfloat16 runs of LLaDA2: a rounded bias sends tokens to other experts."""
    kind, (folder, oracle) = KINDS["llada2"], folders["llada2"]
    transformer = loaded(kind, folder, "device.dtype=bfloat16").model.transformer  # type: ignore[attr-defined]
    mixture = transformer.blocks[1].feed_forward
    assert mixture.router.weight.dtype is torch.bfloat16
    assert torch.equal(mixture.selection_bias, oracle.model.layers[1].mlp.gate.e_score_correction_bias)


@pytest.fixture
def nan_in_new_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have torch fill memory that it allocates, and the pool hold no model."""
    monkeypatch.setattr("harness.models.pool._HELD", {})
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("nan_in_new_memory")
@pytest.mark.parametrize("family", KINDS)
def test_no_memory_is_read_that_nobody_has_filled(family: str, folders: dict) -> None:
    """Guards against buffers that a checkpoint has nothing for, whose garbage differs from process to process."""
    assert torch.empty(3).isnan().all()
    model = loaded(KINDS[family], folders[family][0]).model
    assert model.forward(ForwardRequest(torch.arange(40)[None])).isfinite().all()


def test_a_single_file_and_a_tied_head_that_is_there_twice_load(tmp_path: Path) -> None:
    """Guards checkpoints without an index, and tied ones whose head is stored although it is the embedding."""
    kind = KINDS["fast_dllm_v2"]
    oracle = miniature.write(tmp_path, kind, shards=1)
    single = loaded(kind, tmp_path).model.forward(ForwardRequest(tokens(1, 9)))
    stored = miniature.published(kind, oracle)
    stored["lm_head.weight"] = stored["model.embed_tokens.weight"].clone()
    save_file(stored, tmp_path / "model.safetensors")
    assert torch.equal(
        loaded(kind, tmp_path, "model.max_length=64").model.forward(ForwardRequest(tokens(1, 9))), single
    )
    stored["lm_head.weight"][5, 5] += 1
    save_file(stored, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=r"lm_head\.weight differs from the embedding"):
        loaded(kind, tmp_path, "model.max_length=65")


DAMAGE: dict[str, Any] = {
    "is missing from the files": lambda t: t.pop("model.transformer.blocks.1.up_proj.weight"),
    "is not part of the model": lambda t: t.update({"model.transformer.blocks.1.rotary.weight": torch.ones(2)}),
    r"ff_out\.weight has shape": lambda t: t.update(
        {
            "model.transformer.ff_out.weight": t["model.transformer.blocks.0.ff_out.weight"],
            "model.transformer.blocks.0.ff_out.weight": t["model.transformer.ff_out.weight"],
        }
    ),
    "not a float; quantised": lambda t: t.update(
        {"model.transformer.ln_f.weight": torch.ones(miniature.WIDTH, dtype=torch.int8)}
    ),
    "not finite": lambda t: t["model.transformer.blocks.2.attn_norm.weight"].fill_(torch.nan),
}


@pytest.mark.parametrize("problem", DAMAGE)
def test_weights_that_do_not_fit_are_named(problem: str, tmp_path: Path) -> None:
    """Guards against a model that runs although a tensor is absent, unknown, swapped or damaged."""
    kind = KINDS["llada"]
    stored = miniature.published(kind, miniature.write(tmp_path, kind))
    DAMAGE[problem](stored)
    miniature.write_weights(tmp_path, {n: t.contiguous().clone() for n, t in stored.items()})
    with pytest.raises(DataError, match=rf"^{tmp_path}.*{problem}"):
        loaded(kind, tmp_path)


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    """Guards against the second of two versions of a tensor winning silently."""
    kind = KINDS["llada"]
    miniature.write(tmp_path, kind)
    first, second = sorted(tmp_path.glob("*.safetensors"))
    save_file(load_file(second) | dict([next(iter(load_file(first).items()))]), second)
    with pytest.raises(DataError, match="is in two files"):
        loaded(kind, tmp_path)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    """Guards an interrupted download."""
    kind = KINDS["llada"]
    miniature.write(tmp_path, kind, shards=1)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"model\.safetensors: not a readable safetensors file"):
        loaded(kind, tmp_path)


CONFIGS = {
    "llada_moe": [
        ({"moe_layer_freq": [1, 1]}, "one entry for each of the 3 layers"),
        ({"num_experts_per_tok": 9}, "active experts must be from 1 to 8"),
        ({"shared_expert_intermediate_size": 64}, "shared_expert_intermediate_size=64"),
    ],
    "llada2": [
        ({"n_group": 5}, "do not fall into 5 groups"),
        ({"score_function": "softmax"}, 'score_function="softmax"'),
        ({"use_qkv_bias": True}, "use_qkv_bias=true"),
    ],
    "llada": [
        ({"include_bias": True}, "include_bias=true"),
        ({"block_type": "sequential"}, 'block_type="sequential"'),
        ({"alibi": True}, "alibi=true"),
        ({"d_model": None}, "d_model=null: is missing"),
        ({"d_model": "32"}, 'd_model="32": must be of type int'),
        ({"n_kv_heads": 3}, "kv_heads"),
        ({"some_new_norm": True}, r"model.ignored_fields=\[some_new_norm\]"),
        ({"model_type": "gpt2"}, 'model_type="gpt2"'),
        ({"mask_token_id": 3}, "mask_token_id=3, but the tokenizer"),
        ({"pad_token_id": 258}, "pad and mask are the same token"),
        ({"pad_token_id": 300}, "token id 300 is outside"),
    ],
    "dream": [
        ({"use_sliding_window": True}, "use_sliding_window=true"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_scaling"),
        ({"hidden_act": "gelu"}, 'hidden_act="gelu"'),
        ({"layer_types": ["sliding_attention"] * 3}, "layer_types"),
    ],
}


@pytest.mark.parametrize(
    ("family", "changes", "message"), [(family, *case) for family, cases in CONFIGS.items() for case in cases]
)
def test_a_config_that_is_not_understood_is_refused(
    family: str, changes: dict[str, Any], message: str, folders: dict, tmp_path: Path
) -> None:
    """Guards against a checkpoint that loads by its keys and computes something else."""
    kind, (folder, _) = KINDS[family], folders[family]
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(kind.config | changes))
    with pytest.raises(DataError, match=message) as refused:
        loaded(kind, tmp_path)
    assert "\n" not in str(refused.value) and str(tmp_path) in str(refused.value)


def test_a_known_switch_can_be_waved_through(tmp_path: Path) -> None:
    """Guards a newer revision of a checkpoint against being locked out by a switch of training."""
    kind = KINDS["llada"]
    miniature.write(tmp_path, kind, some_new_loss=True)
    assert loaded(kind, tmp_path, "model.ignored_fields=[some_new_loss]").parameters > 0


def test_more_positions_than_published_are_refused(folders: dict) -> None:
    """Guards against rotary angles that the model never saw."""
    with pytest.raises(ConfigError, match=r"model\.max_length=9000: .* use model\.max_length=4096"):
        loaded(KINDS["llada"], folders["llada"][0], "model.max_length=9000")


def test_the_digest_changes_with_every_part(tmp_path: Path) -> None:
    """Guards resume: another tokenizer or template gives other answers, so it is another checkpoint."""
    kind, seen = KINDS["llada"], []
    miniature.write(tmp_path, kind)
    seen.append(loaded(kind, tmp_path, "model.max_length=100").checkpoint_sha256)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": "{{ 1 }}"}))
    seen.append(loaded(kind, tmp_path, "model.max_length=101").checkpoint_sha256)
    miniature.write_weights(tmp_path, miniature.published(kind, miniature.oracle(kind, seed=1)))
    seen.append(loaded(kind, tmp_path, "model.max_length=102").checkpoint_sha256)
    assert len(set(seen)) == 3


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_model_says_what_it_needs(name: str) -> None:
    """Guards the files of the group model: a license, a mask, and a name on the hub."""
    model = compose([f"model={name}"]).model
    assert model.name == name and model.license and model.hub_id.count("/") == 1
    assert model.loader.family in KINDS
    assert (model.kind == "block_diffusion") == (model.block_length is not None)


PUBLISHED_SIZES = {
    "llada": (
        8_015_581_184,
        {"d_model": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32, "mlp_hidden_size": 12288}
        | {"vocab_size": 126464, "embedding_size": 126464},
    ),
    "dream": (
        7_615_616_512,
        {"hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4}
        | {"intermediate_size": 18944, "vocab_size": 152064},
    ),
}


@pytest.mark.parametrize("family", PUBLISHED_SIZES)
def test_the_published_shape_has_the_published_number_of_parameters(family: str, tmp_path: Path) -> None:
    """Guards the readers on the real sizes, and that the tensors of a checkpoint fill the model exactly."""
    expected, sizes = PUBLISHED_SIZES[family]
    (tmp_path / "config.json").write_text(json.dumps(KINDS[family].config | sizes))
    config, _ = read_config(tmp_path, FAMILIES[family], ())
    with torch.device("meta"):
        model = Transformer(config)
    assert sum(p.numel() for p in model.parameters()) == expected
    assert SHAPES[KINDS[family].model] == config
    rows = {name: p.numel() // p.shape[-1] if p.dim() > 1 else p.numel() for name, p in model.named_parameters()}
    filled = dict.fromkeys(rows, 0)
    for part in parts(config, FAMILIES[family].names).values():
        filled[part.parameter] += part.rows
    assert filled == rows
    assert family != "llada" or len(parts(config, FAMILIES[family].names)) == 291
