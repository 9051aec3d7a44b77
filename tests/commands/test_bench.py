"""`decbench bench` on shapes small enough for a CPU: what it loads, decodes, times and writes."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from harness.commands.bench import Options, main, measure, options
from harness.config.matrix import caches
from harness.errors import ConfigError
from harness.models.public import synthetic

SMALL = "shrink=28 device=cpu batches=1,2 prompt_length=6 gen_length=4 block_length=2".split()


def small(folder: Path, *changes: str) -> Options:
    return options([*SMALL, f"folder={folder / 'weights'}", f"out={folder / 'bench.json'}", *changes])


@pytest.mark.slow
def test_every_cache_is_measured(tmp_path: Path) -> None:
    """Guards the table: a cache that is left out, forwards that are not counted, weights left behind."""
    cells = list(measure(small(tmp_path, "models=dream_7b_instruct", "batches=2")))
    assert cells[0]["cache"] == "load" and cells[0]["weights_bytes"] > 2 * 152064 * 128 * 2
    refused = {cell["cache"]: cell["reason"] for cell in cells if cell["outcome"] == "refused"}
    assert set(refused) == {"block_causal", "sub_block", "dkv_greedy"} and "block" in refused["sub_block"]
    decoded = {(cell["cache"], cell["batch"]): cell for cell in cells if cell["outcome"] == "ok"}
    assert set(decoded) == {(cache, batch) for cache in set(caches()) - set(refused) for batch in (2,)}
    for (cache, batch), cell in decoded.items():
        assert cell["calls"] >= 4 and 0 < cell["model_s"] <= cell["wall_s"] and 0 <= cell["not_model"] < 1
        assert cell["peak_bytes"] > 0
        # One of them writes the next block beside its own.
        assert 0 < cell["query_tokens"] <= 4 * 10 * batch or cache == "shadow_block"
    assert decoded["none", 2]["query_tokens"] == 4 * 10 * 2
    assert 2 * 10 * 2 < decoded["dual", 2]["query_tokens"] < 4 * 10 * 2
    assert not (tmp_path / "weights" / "dream_7b_instruct").exists()


def test_the_command_prints_a_table_and_keeps_what_it_rests_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Guards the record of a run on somebody's large machine: numbers without the device mean nothing."""
    changes = [*SMALL, f"folder={tmp_path}", f"out={tmp_path / 'deep' / 'b.json'}", "dtype=float32", "graphs=on"]
    assert main([*changes, "models=llada_8b_instruct", "caches=none,dual"]) == 0
    record = json.loads((tmp_path / "deep" / "b.json").read_text())
    assert [cell["cache"] for cell in record["cells"]] == ["load", "none", "none", "dual", "dual"]
    assert [cell["batch"] for cell in record["cells"][1:]] == [1, 2, 1, 2]
    assert record["provenance"]["dtype"] == "float32" and record["options"]["gen_length"] == 4
    assert "llada_8b_instruct" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("models=llada_8b", "did you mean llada_8b_instruct"),
        ("caches=dul", "did you mean dual"),
        ("shrink=0", "shrink=0"),
        ("batches=1,x", "batches=1,x"),
        ("bach=1", "did you mean"),
        ("graphs=yes", "graphs=yes: must be one of auto, on, off"),
        ("gen_length=5000", "has 4096 positions"),
    ],
)
def test_what_cannot_be_is_refused_before_weights_are_written(change: str, message: str, tmp_path: Path) -> None:
    """Guards minutes of writing before a typing error is found."""
    with pytest.raises(ConfigError, match=message):
        list(measure(small(tmp_path, change)))
    assert not (tmp_path / "weights").exists()


def test_random_checkpoints_are_read_as_real_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards what is measured: all tensors of the published format, in shards, with the values that were written."""
    monkeypatch.setattr(synthetic, "_SHARD_BYTES", 1 << 19)
    shape = synthetic.shrunk(synthetic.SHAPES["dream_7b_instruct"], 28)
    shape = synthetic.replace(shape, vocab_size=300, max_length=32)
    files = synthetic.write(tmp_path, shape, "dream", dtype=torch.bfloat16)
    assert len(files) > 1
    stored = {name: tensor for file in files for name, tensor in load_file(file).items()}
    model = synthetic.read(files, shape, "dream", dtype=torch.bfloat16, device="cpu")
    assert len(stored) == 3 + 12 * shape.layers
    assert torch.equal(model.head.weight, stored["lm_head.weight"])
    assert model(torch.arange(8)[None]).isfinite().all()
