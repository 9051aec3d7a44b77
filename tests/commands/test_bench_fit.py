"""`decbench bench --fit`: what cannot be measured here, or written, is refused before the first call is timed."""

from pathlib import Path

import pytest
import torch

from harness.commands import bench_fit
from tests.conftest import RunDecbench


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["device=gpu"], "device=gpu: must be cpu or cuda"),
        (["device="], "device=: must be cpu or cuda"),
        (["device=meta"], "device=meta: must be cpu or cuda"),
        (["device=cuda:3"], "device=cuda:3: this machine has 2 CUDA devices; use device=cuda:1"),
        (["dtype=float3"], "dtype=float3: must be one of float32, "),
        (["dtype=int32"], "dtype=int32: must be one of float32, "),
        (["threads=9999"], "threads=9999: must be a whole number of at least 1, at most 1024"),
        (["rounds=0"], "rounds=0: must be a whole number of at least 1"),
        (["width=33"], "width=33: must be a multiple of 32, the width of a head"),
        (["width=1048576"], "width=1048576 layers=4 vocabulary=512: takes at least "),
        (["out=."], "out=.: is a folder; give a file in it, such as out.json"),
        (["out=/proc/x.json"], "out=/proc/x.json: cannot be written"),
        (["out="], "out=: names no file"),
        (["--figure", "/proc/zz"], "--figure=/proc/zz: cannot be written"),
        (["--figure="], "--figure=: names no folder"),
        (["thread=1"], "thread: no such key; did you mean threads?"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_it_is_tried(
    words: list[str], message: str, call_decbench: RunDecbench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Guards minutes of measuring whose numbers have nowhere to go, and torch's own words for what is no device."""
    monkeypatch.setattr(bench_fit, "measure", pytest.fail)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    done = call_decbench("bench", "--fit", *words)
    assert done.returncode == 2 and done.stderr.startswith(f"decbench bench: {message}"), done.stderr
    assert len(done.stderr.splitlines()) == 1 and not [*tmp_path.iterdir()]
