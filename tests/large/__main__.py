"""How long a large store takes to answer, as a page of markdown: `python -m tests.large [ROWS] [FOLDER]`.

ROWS are rows of samples (10 million unless told otherwise, minutes to write), in FOLDER (build/large). Every query is a
process of its own: its seconds are those of the query, without imports, its peak memory that of the process.
"""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path

from harness.commands import trace as trace_command
from harness.results.claims.evidence import collect
from harness.results.figures.definition import read_definition
from harness.results.figures.selected import Filters, select
from harness.results.gate.observed import observe
from harness.results.gate.verdicts import verdicts
from harness.results.html.page import Shown, page
from harness.results.scan import Scan
from harness.results.selection import matching
from harness.results.store import Store
from harness.results.tables import as_markdown, data
from tests.large.filled import Run, fill, runs

_ROWS = 10_000_000
_SETTINGS, _CLAIMED = 48, 200
_IMPORTED = ("pandas", "scipy.special", "duckdb", "jinja2", "plotly", "itables")
_TABLE = {"name": "large", "kind": "table", "y": ["accuracy", "nfe", "query_tokens"], "groups": ["model", "method"],
          "panels": "task"}  # fmt: skip


def listing(store: Store, rows: int) -> int:
    """Every run, as `decbench results list` names it."""
    return len(matching(Scan(store.folder), {}, ("model", "setting", "task", "n", "accuracy", "nfe")))


def gate(store: Store, rows: int) -> int:
    """The samples of 48 settings, read and compared with a baseline, as by `decbench gate`."""
    observed = observe(store, [run.attempt.run_id for run in _spread(rows, _SETTINGS)])
    found = verdicts({one.setting_id: one for one in observed}, observed)
    assert not any(one.red for one in found)
    return sum(len(one.answers) for one in observed)


def table(store: Store, rows: int) -> int:
    """`decbench tables` of a sweep (seed=0): methods and models by task, with what is not significantly worse."""
    return _table(store, {"seed": ["0"]})


def every_table(store: Store, rows: int) -> int:
    """`decbench tables` of all runs: every sample of the store, seeds averaged."""
    return _table(store, {})


def report(store: Store, rows: int) -> int:
    """`decbench report` of 200 runs (seed=0 model=model0,model1), the page with all of their samples."""
    filters = {"seed": {"0"}, "model": {"model0", "model1"}}
    return len(page(store, filters, trace_command.spelling, Shown()).html)


def claims(store: Store, rows: int) -> int:
    """The evidence of claims about 200 settings, as `decbench claims` reads it."""
    return len(collect(store, [run.attempt.setting_id for run in _spread(rows, _CLAIMED)]))


def trace(store: Store, rows: int) -> int:
    """`decbench trace` of one sample of a traced run."""
    run = next(run for run in runs(rows) if run.traced)
    with redirect_stdout(StringIO()) as told:
        trace_command.main([run.attempt.run_id, "7", "--json", f"results_dir={store.root}"])
    return len(told.getvalue())


def whole(store: Store, rows: int) -> int:
    """Mean calls by model, method and task over all samples, in DuckDB, which knows nothing of us."""
    import duckdb

    duckdb.sql("set memory_limit='600MB'")
    asked = duckdb.sql(
        f"select model, method, task, avg(s.nfe), avg(s.correct::int) from '{store.root}/samples/*.parquet' s "
        f"join '{store.root}/runs/*.parquet' using (run_id, attempt) group by all"
    )
    assert asked is not None
    return len(asked.fetchall())


QUERIES: Mapping[str, Callable[[Store, int], int]] = {
    one.__name__: one for one in (listing, gate, table, every_table, report, claims, trace, whole)
}


def _spread(rows: int, count: int) -> list[Run]:
    every = [*runs(rows)]
    return every[:: max(1, len(every) // count)][:count]


def _table(store: Store, filters: Filters) -> int:
    return len(as_markdown(data(select(store, read_definition(_TABLE, "large"), filters)), ""))


def main(rows: int, folder: Path) -> None:
    """Fill a store as far as it is not there, ask it, and print what that took."""
    fill(folder, rows)
    attempts = Store(root=folder).attempts()
    size = sum(file.stat().st_size for file in folder.rglob("*.parquet")) / 2**20
    sys.stdout.write(
        "# A large store\n\n"
        f"Made by `python -m tests.large {rows} {folder.name} > results/large_store.md`: a compacted store of {rows:,} "
        f"rows of samples in {len(attempts):,} runs, {size:,.0f} MiB, on {os.cpu_count()} cores. Every query is a "
        "process of its own, whose imports are not counted in its time and are in its memory.\n\n"
        "| query | what | seconds | of CPU | peak memory, MiB |\n|---|---|---:|---:|---:|\n"
    )
    for name, query in QUERIES.items():
        command = [sys.executable, "-m", "tests.large", str(rows), str(folder), name]
        asked = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        sys.stdout.write(f"| {name} | {(query.__doc__ or '').splitlines()[0]} | {asked} |\n")
        sys.stdout.flush()


def ask(name: str, rows: int, folder: Path) -> None:
    """Answer one query; print its seconds, those of CPU, and the peak memory of this process."""
    for module in _IMPORTED:
        import_module(module)
    started, used = time.perf_counter(), time.process_time()
    assert QUERIES[name](Store(root=folder), rows)
    seconds, used = time.perf_counter() - started, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    sys.stdout.write(f"{seconds:.2f} | {used:.2f} | {peak:,.0f}\n")


if __name__ == "__main__":
    _rows = int(sys.argv[1]) if len(sys.argv) > 1 else _ROWS
    _folder = Path(sys.argv[2] if len(sys.argv) > 2 else "build/large")
    if len(sys.argv) > 3:
        ask(sys.argv[3], _rows, _folder)
    else:
        main(_rows, _folder)
