"""`decbench bench` on shapes small enough for a CPU: what it loads, decodes, times and writes."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from harness.commands import bench
from harness.commands.bench import Options, main, measure, options
from harness.config.matrix import caches
from harness.errors import ConfigError
from harness.models.public import synthetic
from tests.conftest import RunDecbench

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
        ("caches=", "caches=: names nothing to measure"),
        ("models=", "models=: names nothing to measure"),
        ("batches=", "batches=: names nothing to measure"),
        ("batches=0", "batches=0: must be a whole number of at least 1, at most 65536"),
        ("batches=-1", "batches=-1: must be a whole number"),
        ("batches=1000000000", "batches=1000000000: must be a whole number"),
        ("prompt_length=-1", "prompt_length=-1: must be a whole number"),
        ("prompt_length=0", "prompt_length=0: must be a whole number"),
        ("gen_length=5000", "gen_length=5000: model llada_8b_instruct has 4096 positions"),
        (
            "prompt_length=5000",
            "prompt_length=5000: model llada_8b_instruct has 4096 .*; use at most 4092 with gen_len",
        ),
        ("block_length=7", "block_length=7: must divide gen_length=4"),
        ("device=gpu", "device=gpu: must be cpu or cuda"),
        ("device=", "device=: must be cpu or cuda"),
        ("device=mps", "device=mps: must be cpu or cuda"),
        ("device=meta", "device=meta: must be cpu or cuda"),
        ("dtype=float3", "dtype=float3: must be one of float32, "),
        ("dtype=", "dtype=: must be one of float32, "),
        ("dtype=int8", "dtype=int8: must be one of float32, "),
    ],
)
def test_what_cannot_be_is_refused_before_weights_are_written(change: str, message: str, tmp_path: Path) -> None:
    """Guards minutes of writing before a typing error is found."""
    with pytest.raises(ConfigError, match=f"^{message}" if "=" in message else message):
        small(tmp_path, change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("folder=/proc/x", "folder=/proc/x: cannot be written"),
        ("folder=", "folder=: names no folder"),
        ("folder=b.json", "folder=b.json: cannot be written"),
        ("out=.", "out=.: is a folder; give a file in it, such as out.json"),
        ("out=/proc/x", "out=/proc/x: cannot be written"),
        ("out=b.json/x", "out=b.json/x: cannot be written"),
        ("device=cuda", "device=cuda: this machine has no usable CUDA device; use device=cpu"),
        (
            "batches=65536",
            "batches=65536 model llada_8b_instruct: takes at least 33.3 GB of memory, this machine has 17.2",
        ),
    ],
)
def test_what_this_machine_has_not_is_refused_before_weights_are_written(
    change: str, message: str, tmp_path: Path, call_decbench: RunDecbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards minutes of work that ends nowhere, and folders made for what is refused."""
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 1 << 12, "SC_PHYS_PAGES": 1 << 22}.__getitem__)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(bench, "measure", pytest.fail)
    (tmp_path / "b.json").touch()
    done = call_decbench("bench", *SMALL, "models=llada_8b_instruct", "folder=w", "out=deep/b.json", change)
    assert done.returncode == 2 and done.stderr.startswith(f"decbench bench: {message}"), done.stderr
    assert len(done.stderr.splitlines()) == 1 and [one.name for one in tmp_path.iterdir()] == ["b.json"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--target"], "--target: no such option; did you mean --targets?"),
        (["--fit", "--targets"], "--fit --targets: each measures something else; leave one out"),
        (["--fit", "--json"], "--json: no such option"),
        (["--figure", "f"], "--figure: no such option; did you mean --fit?"),
        (["statistics", "x"], "x: nothing of bench statistics can be chosen; leave it out"),
    ],
)
def test_what_is_not_measured_ends_in_one_line(words: list[str], message: str, call_decbench: RunDecbench) -> None:
    """Guards mistyped options, which are not keys, and two measurements of which one would be left out."""
    done = call_decbench("bench", *words)
    assert done.returncode == 2 and done.stderr.startswith(f"decbench bench: {message}"), done.stderr


def loaded(o: Options, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Path], dict[str, Any]]:
    """Load a miniature of the first model of some options; return where its weights were written, and the cell."""
    written: list[Path] = []
    write = synthetic.write
    monkeypatch.setattr(
        synthetic, "write", lambda folder, *rest, **kw: written.append(folder) or write(folder, *rest, **kw)
    )
    shape = synthetic.shrunk(synthetic.SHAPES[o.models[0]], o.shrink)
    return written, bench._load(o.models[0], synthetic.replace(shape, vocab_size=300, max_length=32), o)[1]


def test_what_lies_in_the_folder_is_never_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards a user's own checkpoint, in a folder of the model's name, and the room that random weights take."""
    mine = tmp_path / "weights" / "llada_8b_instruct" / "model-00001.safetensors"
    mine.parent.mkdir(parents=True)
    mine.write_text("precious")
    written, cell = loaded(small(tmp_path, "models=llada_8b_instruct"), monkeypatch)
    assert cell["weights_bytes"] > 0 and written and not written[0].exists()
    assert mine.read_text() == "precious" and [*(tmp_path / "weights").rglob("*")] == [mine.parent, mine]


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"), torch.OutOfMemoryError()]
)
def test_a_batch_without_memory_is_a_cell(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards the other cells from the one that any allocator could not serve."""

    def refuse(*_: object) -> dict[str, Any]:
        raise error

    monkeypatch.setattr(bench, "_load", lambda *_: (None, {"cache": "load"}))
    monkeypatch.setattr(bench, "_decode", refuse)
    cells = measure(small(tmp_path, "models=llada_8b_instruct", "caches=none"))
    assert [cell.get("outcome") for cell in cells] == [None, "out of memory", "out of memory"]


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
