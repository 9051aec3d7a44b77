"""DiffusionGemma through transformers: its own sampler's tokens, counted call by call."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from harness.commands import doctor
from harness.config.composition import compose
from harness.engine.own_sampler import OwnSamplerMethod, decode
from harness.engine.shared.records import Ledger
from harness.errors import ConfigError, DataError
from harness.models.diffusion_gemma import DiffusionGemma, load
from harness.results.store import Store
from harness.runs.runner import run
from methods.diffusion.diffusion_gemma import EntropyBound
from tests.models.public import miniature
from tests.models.public.miniature import KINDS

V, EOS, CANVAS = miniature.VOCABULARY, 257, 8
PROMPTS = [[3, 5, 1], [7, 2, 8, 2, 8, 4]]
SAMPLER = EntropyBound(max_denoising_steps=5, entropy_bound=3.0)


def write(folder: Path, canvas_length: int = CANVAS) -> None:
    """Write a checkpoint with random weights as transformers does."""
    layers = {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
    config = transformers.DiffusionGemmaConfig(
        text_config={"vocab_size": V, "hidden_size": 32, "intermediate_size": 56, "global_head_dim": 8, **layers}
        | {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 16, "max_position_embeddings": 4096}
        | {"layer_types": ["sliding_attention", "full_attention"], "pad_token_id": EOS, "eos_token_id": EOS}
        | {"bos_token_id": 256, "sliding_window": 4},
        vision_config={"hidden_size": 16, "intermediate_size": 16, **layers, "num_hidden_layers": 1},
        canvas_length=canvas_length,
        image_token_id=279,
        boi_token_id=278,
        eoi_token_id=277,
    )
    model = transformers.DiffusionGemmaForBlockDiffusion(config)
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if "norm" not in name and "scale" not in name:
            torch.nn.init.normal_(weight, 0.0, 0.4, generator=generator)
    model.save_pretrained(folder)
    miniature.write_tokenizer(folder, KINDS["llada"])


def loaded(folder: Path, **changes: Any) -> DiffusionGemma:
    arguments: dict[str, Any] = {"name": "mine", "hub_id": None, "max_length": 64, "block_length": CANVAS}
    model = load(**arguments | {"path": str(folder)} | changes).model
    assert isinstance(model, DiffusionGemma)
    return model


def test_tokens_and_calls_are_those_of_the_class(tmp_path: Path) -> None:
    """Guards parameters that do not arrive, draws that depend on other rows, and calls that nobody counts."""
    write(tmp_path)
    model, ledger = loaded(tmp_path), Ledger()
    own = transformers.DiffusionGemmaForBlockDiffusion.from_pretrained(tmp_path)
    config = transformers.models.diffusion_gemma.generation_diffusion_gemma.EntropyBoundSamplerConfig(entropy_bound=3.0)
    method = OwnSamplerMethod(sampler=SAMPLER)
    made = decode(model, method, PROMPTS, gen_length=2 * CANVAS, seeds=[11, 12], ledger=ledger)
    for prompt, seed, one, counts in zip(PROMPTS, [11, 12], made, ledger.counts([0, 1]), strict=True):
        torch.manual_seed(seed)
        given = {"max_new_tokens": 2 * CANVAS, "max_denoising_steps": 5, "sampler_config": config}
        expected = own.generate(torch.tensor([prompt]), **given)
        assert one.tokens == tuple(expected.sequences[0, len(prompt) :].tolist())
        canvases, steps = len(one.tokens) // CANVAS, counts.nfe - counts.nfe_cache
        assert (counts.nfe_prefill, counts.prefill_tokens, counts.nfe_cache) == (1, len(prompt), canvases - 1)
        assert canvases <= steps <= 5 * canvases and one.tokens_generated == steps * CANVAS
        assert counts.head_tokens == steps * CANVAS
        assert counts.query_tokens == len(prompt) + (steps + canvases - 1) * CANVAS
        assert one.decided_at[-1] == steps - 1 and one.decided_at[0] < steps
        assert (one.idle, one.forced, one.remasked) == (0, 0, 0)
    assert len({one.tokens for one in made}) == 2
    again = decode(model, method, PROMPTS[1:], gen_length=2 * CANVAS, seeds=[12], ledger=Ledger())
    assert again[0].tokens == made[1].tokens


def test_the_whole_street(tmp_path: Path) -> None:
    """Guards the model's file and the method's, from chat turns to a stored answer."""
    write(tmp_path / "mini")
    small = ["model.block_length=8", "model.max_length=4096", "gen_length=16", "method.max_denoising_steps=2"]
    named = ["model=diffusion_gemma_26b", f"model.path={tmp_path / 'mini'}", "method=diffusion_gemma", *small]
    task = ["task=list_sort", "task.renderer=chat", "task.template=own-1", "task.samples=2"]
    assert run(compose([*named, *task, f"results_dir={tmp_path / 'store'}", "measure=timed"])).status == "ok"
    for row in Store(root=tmp_path / "store").read("samples").to_pylist():
        assert row["nfe_prefill"] == 1 and 1 <= row["nfe"] <= 5 and row["ttft_s"] > 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=diffusion_gemma", "gen_length=300"], "canvases of 256 positions; use gen_length=512"),
        (["method=threshold"], "it runs on"),
        (["method=diffusion_gemma", "method.t_max=0.1"], r"method\.t_max=0\.1"),
        (["method=diffusion_gemma", "method.entropy_bound=0"], r"method\.entropy_bound=0"),
    ],
)
def test_what_does_not_fit_is_refused(overrides: list[str], message: str) -> None:
    """Guards against half canvases, and masked-diffusion decoders on a model without a mask."""
    from harness.config.compatibility import check

    with pytest.raises(ConfigError, match=message):
        check(compose(["model=diffusion_gemma_26b", "task=gsm8k", *overrides]))


def test_an_older_transformers_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the versions between the lower bound and the first with the class."""
    write(tmp_path)
    monkeypatch.setattr("harness.models.diffusion_gemma.version", lambda _: "5.22.0.dev0")
    with pytest.raises(ConfigError, match=r"has no .*: pip install 'transformers>=5\.23'"):
        loaded(tmp_path)
    found = doctor._model("diffusion_gemma_26b")
    assert (found.available, found.remedy) == (False, "pip install 'transformers>=5.23'")


def test_another_canvas_is_refused(tmp_path: Path) -> None:
    """Guards a checkpoint of another block length under this model's name."""
    write(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"canvas_length": 4}))
    with pytest.raises(DataError, match="canvas_length=4, not 8"):
        loaded(tmp_path)
