"""A store of many rows, made without decoding: settings, seeds and samples as a year of sweeps leaves them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from harness.results.packs import AT_MOST, write_pack
from harness.results.parts import Attempt, table_of
from harness.results.schemas import SCHEMAS
from harness.results.store import Store
from tests.results.factory import run_row

MODELS = tuple(f"model{at}" for at in range(4))
METHODS = ("llada", *(f"method{at}" for at in range(9)))
TASKS = tuple(f"task{at}" for at in range(10))
SAMPLES_PER_RUN = 500
_IDS, _STEPS, _TRACED = 16, 8, 40
_TEXTS = pa.array([f"the {at}th of the answers that are told, in as many words" for at in range(4096)])
# As long as what is resolved and kept of a run.
_CONFIG = {"models": {"target": {"tokenizer": "symbols"}}, "knobs": {f"knob_{at}": at for at in range(350)}}
_PROVENANCE = json.dumps({f"package_{at}": f"1.{at}.0" for at in range(45)})
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
    def traced(self) -> bool:
        """Whether its steps were taken down, as of every fortieth."""
        return self.number % _TRACED == _TRACED - 1

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
    """Write a compacted store with so many rows of samples, or what of it is missing: minutes for millions."""
    store, waiting = Store(root=folder), runs(rows)
    store.prepare()
    stored = {*store.attempts()}
    while some := list(islice(waiting, AT_MOST)):
        by_attempt = {run.attempt: run for run in some}
        if stored.issuperset(by_attempt):
            continue
        write_pack(store.folder, sorted(by_attempt), lambda attempt, table: _part(by_attempt[attempt], table))  # noqa: B023


def _part(run: Run, table: str) -> pa.Table:
    if table == "steps":
        return _steps(run) if run.traced else SCHEMAS["steps"].empty_table()
    samples = _samples(run)
    return samples if table == "samples" else _row(run, samples)


def _row(run: Run, samples: pa.Table) -> pa.Table:
    mean = {name: float(np.mean(samples[name].to_numpy(zero_copy_only=False))) for name in ("correct", "nfe")}
    name = {"setting_id": run.attempt.setting_id, "attempt": 1, "sample_rows": len(samples)}
    name["step_rows"] = _STEPS * len(samples) if run.traced else 0
    told = {"model": run.model, "method": run.method, "setting": run.method, "task": run.task, "seed": run.seed}
    numbers = {"n": len(samples), "accuracy": mean["correct"], "nfe": mean["nfe"], "tpf": _IDS / mean["nfe"]}
    made = {"created": _START + timedelta(minutes=run.number), "gen_length": _IDS, "provenance": _PROVENANCE}
    made |= {"config": json.dumps(_CONFIG | {"seed": run.seed, "method": run.method})}
    row = run_row(run.attempt.run_id, measure="traced" if run.traced else "counts")
    return table_of("runs", [{**row, **name, **told, **numbers, **made}])


def _samples(run: Run) -> pa.Table:
    n, chance = SAMPLES_PER_RUN, np.random.default_rng(run.number)
    nfe = chance.integers(1, _IDS + 1, n) if run.method != "llada" else np.full(n, _IDS)
    values = {
        "sample_id": [f"{run.task}-{at}" for at in range(n)],
        "repetition": np.zeros(n, np.int32),
        "seed": chance.integers(0, 2**63, n),
        "prompt_sha256": [f"{run.task}{at:060}" for at in range(n)],
        "prompt_tokens": np.full(n, 32),
        "output_ids": _lists(chance.integers(0, 150, (n, _IDS))),
        "output_text": _TEXTS.take(chance.integers(0, len(_TEXTS), n)),
        "correct": chance.random(n) < 0.7,
        "decided_at": _lists(chance.integers(0, nfe[:, None], (n, _IDS))),
        "nfe": nfe,
        "query_tokens": nfe * (32 + _IDS),
        "tokens_out": np.full(n, _IDS),
        "tokens_canvas": np.full(n, _IDS),
        "tokens_generated": np.full(n, _IDS),
        "token_margin": chance.random(n),
        "choice_margin": chance.random(n),
        "finish_reason": ["stop"] * n,
    }
    return _named(run, "samples", n, values)


def _steps(run: Run) -> pa.Table:
    n, each = SAMPLES_PER_RUN, _IDS // _STEPS
    rows, step = n * _STEPS, np.tile(np.arange(_STEPS), n)
    values = {
        "sample_id": np.repeat([f"{run.task}-{at}" for at in range(n)], _STEPS),
        "repetition": np.zeros(rows, np.int32),
        "step": step,
        "n_open": _IDS - each * step,
        "n_committed": np.full(rows, each),
        "positions": _lists(each * step[:, None] + np.arange(each)),
        "tokens": _lists(np.random.default_rng(run.number).integers(0, 150, (rows, each))),
        "scores": _lists(np.full((rows, each), 0.5)),
        "predicted": _lists(np.random.default_rng(run.number).integers(0, 150, (rows, _IDS))),
        "n_computed": np.full(rows, 32 + _IDS),
    }
    return _named(run, "steps", rows, values)


def _lists(values_NK: Any) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values_NK.ravel()), values_NK.shape[1])


def _named(run: Run, table: str, rows: int, values: Mapping[str, Any]) -> pa.Table:
    names = {"setting_id": run.attempt.setting_id, "run_id": run.attempt.run_id, "attempt": run.attempt.number}
    known = {**values, **{name: [value] * rows for name, value in names.items()}}
    columns = [
        pa.array(known[field.name]).cast(field.type) if field.name in known else pa.nulls(rows, field.type)
        for field in SCHEMAS[table]
    ]
    return pa.table(columns, schema=SCHEMAS[table])
