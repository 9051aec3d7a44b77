"""Decoders, caches and kinds of models: what is shown is what runs."""

from functools import cache
from pathlib import Path

import pytest
import torch

from harness.cli import main
from harness.engine.model import ModelKind
from harness.models import random as random_models
from harness.models.pool import LoadedModel
from harness.runs.build import build_method
from harness.runs.catalogue import names, read
from harness.runs.config import compose
from harness.runs.decode_batch import decode_batch
from harness.runs.matrix import Combination, combinations
from harness.runs.measure import Measure, Measurement

SHOWN = Path(__file__).resolve().parents[2] / "results" / "compatibility.md"
PROMPTS = [[2, 30 + i, *range(76, 76 + i), 4] for i in range(1, 9)]
LENGTH = 16


@cache
def found() -> list[Combination]:
    """Find all combinations once."""
    return combinations()


def test_the_matrix_that_is_shown_is_the_one_that_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Guards the document against a policy that has come to refuse, or to allow, something else."""
    monkeypatch.setattr("harness.runs.matrix.combinations", found)
    assert main(["list", "compatibility"]) == 0
    assert capsys.readouterr().out == SHOWN.read_text()


def test_every_decoder_runs_with_some_cache():
    """Guards against reasons that refuse too much: without a cache, or with its own, every decoder runs."""
    runs = {(one.method, one.kind) for one in found() if one.reason is None}
    assert runs == {(one.method, one.kind) for one in found()}


def _model(kind: ModelKind) -> LoadedModel:
    block = 8 if kind is ModelKind.BLOCK_DIFFUSION else None
    return random_models.load(
        name="random", kind=kind.value, seed=3, max_length=64, block_length=block, dtype=torch.float64, device="cpu"
    )


def _answers(one: Combination, size: int) -> list:
    model = _model(one.kind).model
    fitting = "random_mdm" if one.kind is ModelKind.MASKED_DIFFUSION else "tiny_block"
    blocks = ["method.block_length=8"] if "block_length" in read("method", one.method) else []
    overrides = [f"model={fitting}", f"method={one.method}", f"method/cache={one.cache}", *blocks]
    method = build_method(compose([*overrides, f"gen_length={LENGTH}"]))
    made = []
    for first in range(0, 8, size):
        part = decode_batch(
            model,
            method,
            PROMPTS[first : first + size],
            seeds=range(first, min(first + size, 8)),
            gen_length=LENGTH,
            measure=Measure(name=Measurement.COUNTS),
        )
        made += [
            (row.tokens, row.decided_at, counts) for row, counts in zip(part.generations, part.counts, strict=True)
        ]
    return made


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("method", [name for name in names("method") if read("method", name)["family"] == "diffusion"])
def test_a_row_is_the_same_in_every_batch(method: str):
    """Guards every combination that is not refused: it ends, and batches of 1, 3 and 8 give each row one answer."""
    for one in found():
        if one.method == method and one.reason is None:
            assert _answers(one, 1) == _answers(one, 3) == _answers(one, 8), one
