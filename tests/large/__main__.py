"""How long a large store takes to answer: `python -m tests.large [ROWS] [FOLDER]`, a markdown table.

ROWS are rows of samples (10 million unless told otherwise, minutes to write), in FOLDER (build/large). Every query is a
process of its own: its seconds are those of the query, without imports, its peak memory that of the process.
"""

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from harness.results.comparison import compare, load
from harness.results.figures.definition import Definition, read_definition
from harness.results.figures.selected import select
from harness.results.gate.observed import observe
from harness.results.scan import Scan
from harness.results.selection import matching
from harness.results.store import Store
from harness.results.tables import as_markdown, data
from tests.large.filled import fill, runs

_ROWS = 10_000_000
_SETTINGS, _REPORTED = 48, 200


def gate(store: Store, rows: int) -> int:
    """Look at the samples of 48 settings, as `decbench gate` does."""
    wanted = [run.attempt.run_id for run in runs(rows)][:: max(1, rows // 500 // _SETTINGS)][:_SETTINGS]
    return sum(len(one.answers) for one in observe(store, wanted))


def table(store: Store, rows: int) -> int:
    """Make the table of all methods and models on one task and seed, with what is not significantly worse."""
    definition = {"kind": "table", "y": ["accuracy", "nfe"], "groups": ["model", "method"], "panels": "task"}
    selected = select(store, _definition(definition), {"task": ["task0"], "seed": ["0"]})
    return len(as_markdown(data(selected), ""))


def report(store: Store, rows: int) -> int:
    """Compare 200 runs with their baselines: intervals, lost and gained answers, as a leaderboard shows them."""
    wanted = [run.attempt.run_id for run in runs(rows)][:_REPORTED]
    return len(compare(load(store, wanted), per_task=True))


def listing(store: Store, rows: int) -> int:
    """List every run, as `decbench results list` does."""
    return len(matching(Scan(store.folder), {}, ("model", "setting", "task", "n", "accuracy", "nfe")))


def whole(store: Store, rows: int) -> int:
    """Count calls by model, method and task over all samples, in DuckDB."""
    import duckdb

    duckdb.sql("set memory_limit='600MB'")
    return len(
        duckdb.sql(
            f"select model, method, task, avg(s.nfe), avg(s.correct::int) from '{store.root}/samples/*.parquet' s "
            f"join '{store.root}/runs/*.parquet' using (run_id, attempt) group by all"
        ).fetchall()
    )


QUERIES: Mapping[str, Callable[[Store, int], int]] = {
    one.__name__: one for one in (gate, table, report, listing, whole)
}


def _definition(option: Mapping[str, object]) -> Definition:
    return read_definition({"name": "large", **option}, "large")


def main(rows: int, folder: Path) -> None:
    """Fill a store that is not there, ask it, and print what that took."""
    if not folder.is_dir():
        fill(folder, rows)
    attempts = Store(root=folder).attempts()
    size = sum(file.stat().st_size for file in folder.rglob("*.parquet")) / 2**20
    sys.stdout.write(f"{rows:,} rows of samples in {len(attempts):,} runs, {size:,.0f} MiB\n\n")
    sys.stdout.write("| query | what | seconds | peak memory, MiB |\n|---|---|---:|---:|\n")
    for name, query in QUERIES.items():
        command = [sys.executable, "-m", "tests.large", str(rows), str(folder), name]
        asked = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        sys.stdout.write(f"| {name} | {(query.__doc__ or '').splitlines()[0]} | {asked} |\n")


def ask(name: str, rows: int, folder: Path) -> None:
    """Answer one query; print its seconds and the peak memory of this process."""
    started = time.perf_counter()
    assert QUERIES[name](Store(root=folder), rows)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    sys.stdout.write(f"{seconds:.2f} | {peak:,.0f}\n")


if __name__ == "__main__":
    _rows = int(sys.argv[1]) if len(sys.argv) > 1 else _ROWS
    _folder = Path(sys.argv[2] if len(sys.argv) > 2 else "build/large")
    if len(sys.argv) > 3:
        ask(sys.argv[3], _rows, _folder)
    else:
        main(_rows, _folder)
