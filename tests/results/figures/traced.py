"""A small store of traced runs, with numbers that can be checked by hand."""

from pathlib import Path
from typing import Any

from harness.results.schemas import SAMPLES, STEPS, without_names
from harness.results.store import Store
from tests.results.factory import run_row, sample_rows


def step(sample: str, number: int, **values: Any) -> dict[str, Any]:
    """Return a row of the steps table."""
    return dict.fromkeys(STEPS.names) | {"sample_id": sample, "repetition": 0, "step": number} | values


def asked_again(root: Path) -> Store:
    """Store what `traced_store` does, and all of it a second time, with another seed."""
    store = traced_store(root)
    for run in store.read("runs").to_pylist():
        name = [run["run_id"]]
        samples, steps = (
            [{key: row[key] for key in without_names(schema)} for row in store.read(table, name).to_pylist()]
            for table, schema in (("samples", SAMPLES), ("steps", STEPS))
        )
        store.write(run | {"run_id": f"{name[0]}2", "setting_id": f"of_{name[0]}2", "seed": 1}, samples, steps)
    return store


def traced_store(root: Path) -> Store:
    """Store `left`, which commits 4 positions from left to right and reuses half, `two`, which commits two at a time,
    and `drafts`, an autoregressive run that accepts 2 and 0 of 3 drafted tokens.
    """
    store = Store(root=root)
    order = {"left": [0, 1, 2, 3], "two": [0, 1, 0, 1]}
    for name, decided in order.items():
        calls = 1 + max(decided)
        samples = [
            {**row, "decided_at": decided, "tokens_out": 4}
            for row in sample_rows(correct=[True, True], nfe=[calls, calls], latency_s=[0.1, 0.3])
        ]
        steps = [
            step(
                row["sample_id"],  # type: ignore[arg-type]
                at,
                n_committed=decided.count(at),
                positions=[p for p, when in enumerate(decided) if when == at],
                tokens=[token for token, when in zip((1, 2, 3, 0), decided, strict=True) if when == at],
                scores=[0.5 + 0.5 * at / calls] * decided.count(at),
                entropy=[1.0] * decided.count(at),
                token_margin=2.0,
                n_computed=4,
                n_reused=4 if name == "left" else 0,
                predicted=[1, 2, 3, 0] if at else [9, 9, 9, 9],
            )
            for row in samples
            for at in range(calls)
        ]
        values = {"method": name, "setting": name, "measure": "traced", "task": "copy"}
        store.write(run_row(name, samples, **values), samples, steps)
    samples = sample_rows(correct=[True], nfe=[2], latency_s=[0.1])
    steps = [step("s0", at, n_committed=n + 1, n_drafted=3, n_accepted=n) for at, n in enumerate((2, 0))]
    values = {"family": "autoregressive", "model": "causal", "method": "drafts", "setting": "drafts"}
    store.write(run_row("drafts", samples, measure="traced", **values), samples, steps)
    return store
