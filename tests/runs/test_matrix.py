"""Decoders, caches and kinds of models: what is shown is what runs."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from harness.cli import main
from harness.engine.model import LanguageModel, ModelKind
from harness.engine.policies import DiffusionMethod
from harness.models import random as random_models
from harness.runs.build import build_method
from harness.runs.catalogue import names, read
from harness.runs.config import compose
from harness.runs.decode_batch import decode_batch
from harness.runs.matrix import Combination, caches, combinations
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


@cache
def _model(kind: ModelKind) -> LanguageModel:
    block = 8 if kind is ModelKind.BLOCK_DIFFUSION else None
    loaded = random_models.load(
        name="random", kind=kind.value, seed=3, layers=2, max_length=64, block_length=block, dtype=torch.float64
    )
    return loaded.model


@cache
def _method(name: str, kind: ModelKind) -> DiffusionMethod:
    fitting = "random_mdm" if kind is ModelKind.MASKED_DIFFUSION else "tiny_block"
    blocks = ["method.block_length=8"] if "block_length" in read("method", name) else []
    method = build_method(compose([f"model={fitting}", f"method={name}", *blocks, f"gen_length={LENGTH}"]))
    assert isinstance(method, DiffusionMethod)
    return method


def _answers(one: Combination, size: int) -> list:
    method, made = replace(_method(one.method, one.kind), cache=caches()[one.cache]), []
    for first in range(0, len(PROMPTS), size):
        prompts = PROMPTS[first : first + size]
        part = decode_batch(
            _model(one.kind),
            method,
            prompts,
            seeds=range(first, first + len(prompts)),
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
