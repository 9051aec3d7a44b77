"""A change of the engine changes no output and no counter: every decoder with every cache, and `decoders_tiny`.

Digests lie in results/gate/engine, a file per decoder and part. `pytest -m slow tests/e2e/test_engine_digests.py`
checks them, with `--update-golden` it writes them anew. Minutes; the smoke experiment is what runs on every change.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.config.build import build_method, build_task, load_model
from harness.config.catalogue import names, read
from harness.config.composition import compose
from harness.config.matrix import Combination, caches, combinations, decoders
from harness.engine.families import Method
from harness.engine.shared.model import ModelKind
from harness.engine.shared.randomness import sample_seed
from harness.engine.shared.records import Counts
from harness.models import random as random_models
from harness.models.pool import LoadedModel
from harness.results.canonical import canonical_json
from harness.results.gate.differences import smallest_decided
from harness.runs.decode_batch import Decoded, decode_batch
from harness.runs.measure import Measure, Measurement
from tests.caches.decoding import PROMPTS

FOLDER = Path(__file__).resolve().parents[2] / "results" / "gate" / "engine"
DECODERS = [name for name in names("method") if read("method", name)["family"] == "diffusion"]
DTYPES = {"float64": torch.float64, "float32": torch.float32}
EXPERIMENT = read("experiment", "decoders_tiny")
# The first of the experiment's samples, in its dtype: all of them would take as long as the experiment.
SAMPLES = 4
DTYPE = "float32"
OF_LOOPS = ("nfe_idle", "tokens_out", "tokens_canvas", "tokens_generated", "forced", "remasked")
RECORDED = (*(one.name for one in fields(Counts)), *OF_LOOPS)
"""The counters that the record has; columns that came later follow from others."""


@dataclass(frozen=True, kw_only=True)
class Digest:
    """Digests of outputs (with the steps that decided them) and of counters: of all rows, and of the sure ones.

    `near` are rows in which something hung on less than the dtype can decide: another machine may part there.
    """

    near: list[int]
    outputs: str
    counters: str
    sure: str


def digest_of(decoded: Decoded, dtype: str, near: Sequence[int] | None = None) -> Digest:
    """Return the digest of a batch; rows that count as near are those of the record, where there is one."""
    rows = [(one.tokens, one.decided_at) for one in decoded.generations]
    counters = [[each[name] for name in RECORDED] for each in decoded.counters(())]
    margins = [(one.token_margin, one.choice_margin) for one in decoded.generations]
    bound = smallest_decided(dtype)
    found = [at for at, each in enumerate(margins) if any(one is not None and one < bound for one in each)]
    near = found if near is None else near
    sure = [[rows[at], counters[at]] for at in range(len(rows)) if at not in near]
    return Digest(near=list(near), outputs=_digest(rows), counters=_digest(counters), sure=_digest(sure))


def _digest(value: object) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:12]


def differences(stored: Mapping[str, Any], found: Mapping[str, tuple[Decoded, str]]) -> list[str]:
    """Return what differs from the stored digests, beyond what rounding may change."""
    told = [f"{name}: is not in the record" for name in found.keys() - stored.keys()]
    told += [f"{name}: did not run" for name in stored.keys() - found.keys()]
    for name, (decoded, dtype) in found.items():
        if name in stored:
            base = Digest(**stored[name])
            now = digest_of(decoded, dtype, base.near)
            parts = [part for part in ("outputs", "counters") if getattr(now, part) != getattr(base, part)]
            # Equal outputs leave rounding nothing to excuse.
            if parts and (now.sure != base.sure or parts == ["counters"]):
                told.append(f"{name}: other {' and '.join(parts)}")
    return told


@cache
def _random(kind: ModelKind, dtype: str) -> LoadedModel:
    block = 8 if kind is ModelKind.BLOCK_DIFFUSION else None
    return random_models.load(
        name="random", kind=kind.value, seed=3, layers=2, width=32, heads=2, kv_heads=1, feed_forward_width=32,
        max_length=64, block_length=block, dtype=DTYPES[dtype],
    )  # fmt: skip


@cache
def _found() -> list[Combination]:
    return [one for one in combinations("cache") if one.reason is None]


def _with_caches(decoder: str) -> Iterator[tuple[str, Decoded, str]]:
    methods = {kind: method for name, kind, method in decoders() if name == decoder}
    for one in (one for one in _found() if one.row == decoder):
        for dtype in DTYPES:
            method = replace(methods[one.kind], cache=caches()[one.column])
            decoded = _decoded(_random(one.kind, dtype), method, PROMPTS[2::2], range(3), 8)
            yield f"{one.column} on {one.kind.value} in {dtype}", decoded, dtype


def _decoded(
    loaded: LoadedModel, method: Method, prompts: Sequence[list[int]], seeds: Sequence[int], length: int
) -> Decoded:
    counts = Measure(name=Measurement.COUNTS)
    return decode_batch(loaded.model, method, prompts, seeds=seeds, gen_length=length, measure=counts)


@cache
def _samples(task: str) -> Any:
    options = [f"task={task}", f"task.samples={EXPERIMENT['task']['samples']}"]
    return build_task(compose(options)).instances()[:SAMPLES]


@cache
def _embedded(name: str) -> LoadedModel:
    return load_model(compose([f"model={name}", f"device.dtype={DTYPE}"]))


def _of_the_experiment(decoder: str) -> Iterator[tuple[str, Decoded, str]]:
    length = EXPERIMENT["gen_length"]
    for point in (one.split() for one in EXPERIMENT["points"]):
        if f"method={decoder}" not in point:
            continue
        method = build_method(compose([*point, f"gen_length={length}"]))
        model = next((word.removeprefix("model=") for word in point if word.startswith("model=")), "tiny_mdm")
        loaded = _embedded(model)
        for task in EXPERIMENT["axes"]["task"]:
            samples = _samples(task)
            prompts = [loaded.tokenizer.encode_prompt(one.prompt) for one in samples]
            seeds = [sample_seed(0, task, one.id) for one in samples]
            yield f"{' '.join(point)} {task}", _decoded(loaded, method, prompts, seeds, length), DTYPE


PARTS = {"caches": _with_caches, "decoders_tiny": _of_the_experiment}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("decoder", DECODERS)
def test_outputs_and_counters_are_those_of_the_record(decoder: str, part: str, request: pytest.FixtureRequest):
    """Guards every decoder under a change that is to change nothing: of the loop, a cache, a kernel or a library."""
    file = FOLDER / part / f"{decoder}.json"
    found = {label: (decoded, dtype) for label, decoded, dtype in PARTS[part](decoder)}
    if request.config.getoption("--update-golden"):
        lines = [f"{json.dumps(label)}: {json.dumps(asdict(digest_of(*found[label])))}" for label in sorted(found)]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    assert differences(json.loads(file.read_text()), found) == []


@pytest.mark.parametrize("part", PARTS)
def test_every_decoder_has_a_record(part: str):
    """Guards against a new decoder without digests, and files of one that is gone."""
    assert sorted(one.stem for one in (FOLDER / part).glob("*.json")) == DECODERS


def test_rounding_is_excused_where_it_may_have_decided_and_nowhere_else():
    """Guards the comparison itself, on one batch with other answers, and other counters, put in."""
    method = build_method(compose(["model=random_mdm", "method=llada", "gen_length=8"]))
    loaded = _random(ModelKind.MASKED_DIFFUSION, "float64")
    made = _decoded(loaded, method, PROMPTS[:2], range(2), 8)
    other = replace(made, generations=[made.generations[0], replace(made.generations[1], tokens=(9,) * 8)])
    costly = replace(made, counts=[made.counts[0], replace(made.counts[1], nfe=99)])

    def told(near: list[int], now: Decoded) -> list[str]:
        return differences({"a": asdict(digest_of(made, "float64", near))}, {"a": (now, "float64")})

    assert told([], made) == told([1], other) == []
    assert told([], other) == told([0], other) == ["a: other outputs"]
    assert told([], costly) == told([1], costly) == ["a: other counters"]
