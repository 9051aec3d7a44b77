"""A store of many rows, made without decoding: settings, seeds and samples as a year of sweeps leaves them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice, product
from pathlib import Path

import numpy as np
import pyarrow as pa

from harness.results.packs import AT_MOST, write_pack
from harness.results.parts import Attempt, table_of
from harness.results.schemas import NAMES, SAMPLES, SCHEMAS
from harness.results.store import Store
from tests.results.factory import run_row

MODELS = tuple(f"model{at}" for at in range(4))
METHODS = ("llada", *(f"method{at}" for at in range(9)))
TASKS = tuple(f"task{at}" for at in range(10))
SAMPLES_PER_RUN = 500
_IDS = 16
_START = datetime(2025, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of the store: `number` tells its random numbers."""

    number: int
    model: str
    method: str
    task: str
    seed: int

    @property
    def attempt(self) -> Attempt:
        """Its only attempt."""
        setting = f"{self.model}-{self.method}-{self.task}-{self.seed}"
        return Attempt(setting_id=setting, number=1, run_id=f"{self.number:012x}", status="ok")


def runs(rows: int) -> Iterator[Run]:
    """Yield the runs of a store with so many rows of samples, seed after seed."""
    seeds = range(1 + rows // (SAMPLES_PER_RUN * len(MODELS) * len(METHODS) * len(TASKS)))
    every = product(seeds, MODELS, TASKS, METHODS)
    for number, (seed, model, task, method) in enumerate(islice(every, rows // SAMPLES_PER_RUN)):
        yield Run(number=number, model=model, method=method, task=task, seed=seed)


def fill(folder: Path, rows: int) -> None:
    """Write a compacted store with so many rows of samples; it takes minutes for millions."""
    store, waiting = Store(root=folder), runs(rows)
    store.prepare()
    while some := list(islice(waiting, AT_MOST)):
        by_attempt = {run.attempt: run for run in some}
        write_pack(store.folder, sorted(by_attempt), lambda attempt, table: _part(by_attempt[attempt], table))  # noqa: B023


def _part(run: Run, table: str) -> pa.Table:
    if table == "steps":
        return SCHEMAS["steps"].empty_table()
    samples = _samples(run)
    return samples if table == "samples" else _row(run, samples)


def _row(run: Run, samples: pa.Table) -> pa.Table:
    mean = {name: float(np.mean(samples[name].to_numpy(zero_copy_only=False))) for name in ("correct", "nfe")}
    name = {"setting_id": run.attempt.setting_id, "attempt": 1, "sample_rows": len(samples), "step_rows": 0}
    told = {"model": run.model, "method": run.method, "setting": run.method, "task": run.task, "seed": run.seed}
    numbers = {"n": len(samples), "accuracy": mean["correct"], "nfe": mean["nfe"], "tpf": 64 / mean["nfe"]}
    row = run_row(run.attempt.run_id, measure="counts") | name | told | numbers
    row |= {"created": _START + timedelta(minutes=run.number), "gen_length": 64, "config": f'{{"seed": {run.seed}}}'}
    return table_of("runs", [row])


def _samples(run: Run) -> pa.Table:
    n, chance = SAMPLES_PER_RUN, np.random.default_rng(run.number)
    nfe = chance.integers(8, 65, n) if run.method != "llada" else np.full(n, 64)
    values = {
        "setting_id": [run.attempt.setting_id] * n,
        "run_id": [run.attempt.run_id] * n,
        "attempt": np.ones(n, np.int32),
        "sample_id": [f"{run.task}-{at}" for at in range(n)],
        "repetition": np.zeros(n, np.int32),
        "prompt_sha256": [f"{run.task}{at:060}" for at in range(n)],
        "prompt_tokens": np.full(n, 32),
        "output_ids": pa.FixedSizeListArray.from_arrays(pa.array(chance.integers(0, 150, n * _IDS), pa.int32()), _IDS),
        "correct": chance.random(n) < 0.7,
        "nfe": nfe,
        "query_tokens": nfe * 96,
        "tokens_out": np.full(n, 64),
        "tokens_canvas": np.full(n, 64),
        "finish_reason": ["stop"] * n,
    }
    assert {*NAMES} <= {*values}
    columns = [
        pa.array(values[field.name]).cast(field.type) if field.name in values else pa.nulls(n, field.type)
        for field in SAMPLES
    ]
    return pa.table(columns, schema=SAMPLES)
