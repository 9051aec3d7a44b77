"""A store of older columns is brought to the present ones, and nothing is guessed."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.results.migration import migrate
from harness.results.schemas import RUNS, SAMPLES, STEPS
from harness.results.store import Store
from tests.results.interruption import interrupt

NEW = {
    *("setting_id", "attempt", "produced_by", "sample_rows", "step_rows", "git_commit", "dirty", "packages_sha256"),
    *("lock_sha256", "driver", "attention_kernel", "threads", "throttled", "forward_s", "rest_s", "token_margin"),
    *("energy_joules", "busy"),
    *("choice_margin", "reader", "entropy", "edited", "drafted", "n_computed", "n_reused"),
}
YOUNGER = {1: {"protocol", "sandbox_tier", "extracted", "extraction", "measures", "predicted"}, 2: set()}
START = datetime(2025, 1, 1, tzinfo=UTC)


def write(folder: Path, table: str, name: str, version: int, rows: list[dict[str, Any]]) -> None:
    """Write a file as version 1 or 2 wrote it."""
    schema = {"runs": RUNS, "samples": SAMPLES, "steps": STEPS}[table]
    gone = NEW | YOUNGER[version] | ({"remasked", "repetition"} if table == "steps" else set())
    fields = [field for field in schema if field.name not in gone]
    fields += [pa.field("min_margin", pa.float32())] if table == "steps" else []
    old = pa.schema(fields, metadata={"table": table, "schema_version": str(version)})
    (folder / table).mkdir(parents=True, exist_ok=True)
    full = [dict.fromkeys(old.names) | row for row in rows]
    pq.write_table(pa.Table.from_pylist(full, schema=old), folder / table / name)


def old_run(folder: Path, run_id: str, version: int, *, minutes: int = 0, prefill: int = 0, status: str = "ok") -> None:
    """Store a run of two samples."""
    created = START + timedelta(minutes=minutes)
    name = f"{run_id}-{created:%Y%m%dT%H%M%S%f}-abc{minutes:03d}.parquet"
    row = {"run_id": run_id, "status": status, "created": created, "schema_version": version, "measure": "traced"}
    row |= {"nfe": 4.0, "nfe_prefill": float(prefill), "tpf": 1.0, "accuracy": 0.5, "warnings": [], "name": "old"}
    if status == "ok":
        samples = [
            {"run_id": run_id, "sample_id": f"s{at}", "repetition": 0, "nfe": 4, "nfe_prefill": prefill, "seed": 7}
            for at in range(2)
        ]
        write(folder, "samples", name, version, samples)
        steps = [{"run_id": run_id, "sample_id": "s0", "step": 0, "tokens": [5], "min_margin": 0.5}]
        write(folder, "steps", name, version, steps)
    write(folder, "runs", name, version, [row])


@pytest.mark.parametrize("version", [1, 2])
def test_old_files_become_present_ones(tmp_path: Path, version: int):
    """Guards old results: what was recorded is kept, two attempts of a run too, and old files lie apart."""
    old_run(tmp_path, "a", version, minutes=1)
    old_run(tmp_path, "a", version, minutes=0)
    old_run(tmp_path, "f", version, status="failed")
    done = migrate(store := Store(root=tmp_path))
    assert (done.runs, done.unreadable) == (3, [])
    assert [(one.run_id, one.number, one.status) for one in store.attempts()] == [
        ("a", 1, "ok"), ("a", 2, "ok"), ("f", 1, "failed"),
    ]  # fmt: skip
    row = store.read("runs", ["a"]).to_pylist()[0]
    assert (row["created"], row["accuracy"], row["nfe"]) == (START + timedelta(minutes=1), 0.5, 4.0)
    assert (row["setting_id"], row["warnings"]) == (f"v{version}-a", [f"migrated from columns of version {version}"])
    assert store.completed("a") and store.read("samples", ["a"])["seed"].to_pylist() == [7, 7]
    assert store.read("steps", ["a"]).select(["tokens", "repetition"]).to_pylist() == [{"tokens": [5], "repetition": 0}]
    assert len([*(tmp_path / "migrated" / "runs").iterdir()]) == 3
    assert migrate(store).runs == 0 and len(store.attempts()) == 3


def test_what_cannot_be_filled_is_said(tmp_path: Path):
    """Guards against numbers of another rule: calls of a causal model were counted without the prompt's."""
    old_run(tmp_path, "d", 2, prefill=0)
    old_run(tmp_path, "c", 2, prefill=1)
    done = migrate(store := Store(root=tmp_path))
    told = {row["run_id"]: (row["nfe"], row["tpf"], row["accuracy"]) for row in store.read("runs").to_pylist()}
    assert told == {"d": (4.0, 1.0, 0.5), "c": (None, None, 0.5)}
    assert done.unfilled["runs.nfe"] == done.unfilled["samples.query_tokens"]
    assert "prompt's call" in done.unfilled["runs.nfe"]
    assert done.unfilled["samples.token_margin"] == done.unfilled["steps.n_computed"] == "was not recorded"
    assert "not taken over" in done.unfilled["steps.min_margin"] and "runs.produced_by" in done.unfilled
    assert not {"runs.setting_id", "samples.attempt", "runs.accuracy"} & done.unfilled.keys()


def test_a_migration_can_be_interrupted_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards old results against a kill: the next migration ends it, and no attempt is there twice."""
    for minutes in range(2):
        old_run(tmp_path, "a", 2, minutes=minutes)
    store = Store(root=tmp_path)
    for at in range(30):
        with monkeypatch.context() as patch:
            interrupt(patch, at, ("write", "move"))
            try:
                migrate(store)
            except KeyboardInterrupt:
                continue
            break
    assert at > 2 and [one.number for one in store.attempts()] == [1, 2]
    assert [len([*(tmp_path / table).glob("*.parquet")]) for table in ("runs", "samples", "steps")] == [2, 2, 2]


@pytest.mark.parametrize("table", ["runs", "samples"])
def test_what_cannot_be_read_stays(tmp_path: Path, table: str):
    """Guards a broken old file against being dropped: it is named and left."""
    old_run(tmp_path, "a", 2)
    old_run(tmp_path, "b", 2)
    (torn,) = (tmp_path / table).glob("a-*")
    torn.write_bytes(b"PAR1")
    done = migrate(Store(root=tmp_path))
    assert done.runs == 1 and len(done.unreadable) == 1 and str(torn) in done.unreadable[0] and torn.exists()
