"""What every method promises, because it is listed in `conf/method`."""

from functools import cache

import pytest
import torch

from harness.engine.generation import Generation
from harness.models import random as random_models
from harness.models.pool import LoadedModel
from harness.runs.build import build_method
from harness.runs.catalogue import names, read
from harness.runs.config import compose
from harness.runs.decode_batch import Decoded, decode_batch
from harness.runs.measure import Measure, Measurement

METHODS = names("method")
LENGTH = 16
PROMPTS = [[2, 30 + i, *range(76, 76 + i), 4] for i in range(1, 9)]


@cache
def model(kind: str) -> LoadedModel:
    """Make a random-weight model in float64, where a batch cannot change an answer by rounding."""
    block = 8 if kind == "block_diffusion" else None
    return random_models.load(
        name="random", kind=kind, seed=3, max_length=64, block_length=block, dtype=torch.float64, device="cpu"
    )


def decoded(method: str, rows: list[int], seed: int = 0) -> Decoded:
    """Decode some of the prompts together."""
    kind = read("method", method)["models"][0]
    cfg = compose([f"model={'random_mdm' if kind != 'causal' else 'tiny_ar'}", f"method={method}"])
    return decode_batch(
        model(kind).model,
        build_method(cfg),
        [PROMPTS[row] for row in rows],
        seeds=[1000 * seed + row for row in rows],
        gen_length=LENGTH,
        measure=Measure(name=Measurement.COUNTS),
    )


def answers(made: Decoded) -> list[tuple]:
    """Return everything of the generations but their number in the batch, and their counts."""

    def plain(one: Generation) -> tuple:
        return (one.tokens, one.decided_at, one.idle, one.forced, one.remasked, one.tokens_generated)

    return [(plain(one), counts) for one, counts in zip(made.generations, made.counts, strict=True)]


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_answers(method: str):
    """Guards against a global generator or state that outlives a generation."""
    rows = list(range(8))
    assert answers(decoded(method, rows)) == answers(decoded(method, rows))


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_a_row_does_not_depend_on_the_others(method: str, size: int):
    """Guards answers, steps and counts of ragged prompts against the composition of the batch."""
    together = answers(decoded(method, list(range(8))))
    parts = [answers(decoded(method, list(range(first, min(first + size, 8))))) for first in range(0, 8, size)]
    assert [one for part in parts for one in part] == together


@pytest.mark.parametrize("method", METHODS)
def test_every_position_is_decided_by_a_real_token(method: str):
    """Guards against masks in answers, and calls that are not counted or not needed."""
    made = decoded(method, list(range(8)))
    loaded = model(read("method", method)["models"][0])
    for one, counts in zip(made.generations, made.counts, strict=True):
        assert loaded.model.spec.mask_id not in one.tokens
        assert 1 <= counts.nfe + counts.nfe_prefill <= LENGTH
        assert len(one.tokens) <= LENGTH
        assert min(one.decided_at) >= 0
