"""Synthetic results with numbers small enough to check by hand."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from harness.results.metrics import summarize
from harness.results.parts import Row
from harness.results.schemas import RUNS, SAMPLES, SCHEMA_VERSION, without_names
from harness.results.store import Store

_START = datetime(2025, 1, 1, tzinfo=UTC)


def sample_rows(
    *,
    correct: Sequence[bool | None],
    nfe: Sequence[int],
    latency_s: Sequence[float],
    query_tokens: Sequence[int] | None = None,
) -> list[Row]:
    """Return one sample per answer: 4 response positions after 4 prompt tokens, 8 query tokens per call by default."""
    queries = query_tokens or [8 * calls for calls in nfe]
    return [
        dict.fromkeys(without_names(SAMPLES))
        | {
            "sample_id": f"s{index}",
            "repetition": 0,
            "prompt_sha256": f"p{index}",
            "prompt_tokens": 4,
        }
        | {"correct": right, "correct_strict": right, "nfe": calls, "query_tokens": query, "latency_s": seconds}
        | {"tokens_out": 4, "tokens_canvas": 4, "output_ids": [1, 2, 3, 0]}
        for index, (right, calls, seconds, query) in enumerate(zip(correct, nfe, latency_s, queries, strict=True))
    ]


def run_row(run_id: str, samples: Sequence[Row] = (), *, minutes: int = 0, **values: object) -> Row:
    """Return a run row of `llada` on `copy`, `values` replacing its columns."""
    return (
        dict.fromkeys(RUNS.names)
        | {"setting_id": f"of_{run_id}", "run_id": run_id, "status": "ok", "name": "synthetic"}
        | {"created": _START + timedelta(minutes=minutes)}
        | {
            "model": "tiny",
            "family": "diffusion",
            "method": "llada",
            "setting": "llada",
            "task": "copy",
            "template": "plain",
        }
        | {"seed": 0, "gen_length": 4, "batch_size": 1, "device": "cpu", "dtype": "float32", "measure": "timed"}
        | {"warnings": [], "config": "{}", "provenance": "{}", "schema_version": SCHEMA_VERSION}
        | (summarize(samples) if samples else {})
        | values
    )


def add_run(
    store: Store,
    run_id: str,
    *,
    correct: Sequence[bool | None] = (True, True),
    nfe: Sequence[int] = (4, 4),
    latency_s: Sequence[float] = (0.4, 0.4),
    query_tokens: Sequence[int] | None = None,
    unfinished: Sequence[int] = (),
    **values: object,
) -> None:
    """Store a run of `llada` on `copy` with its samples, `values` replacing columns of the run row."""
    samples = sample_rows(correct=correct, nfe=nfe, latency_s=latency_s, query_tokens=query_tokens)
    samples = [{**row, "finish_reason": "budget" if at in unfinished else "stop"} for at, row in enumerate(samples)]
    store.write(run_row(run_id, samples, **values), samples)  # type: ignore[arg-type]


def add_sweep(store: Store) -> list[str]:
    """Store a small sweep, return its run ids: baseline and `fast` on two tasks, `ar_greedy`, a failed run."""
    for task in ("copy", "sort"):
        add_run(store, f"base-{task}", task=task)
        add_run(store, f"fast-{task}", task=task, method="fast", setting="fast step=4", nfe=[1, 1],
                query_tokens=[16, 16], latency_s=[0.1, 0.1], correct=[True, task == "copy"])  # fmt: skip
        add_run(store, f"ar-{task}", task=task, model="causal", family="autoregressive", method="ar_greedy",
                setting="ar_greedy", nfe=[3, 3], query_tokens=[3, 3], latency_s=[0.2, 0.2])  # fmt: skip
    store.write(run_row("bad", status="failed", error="logits are NaN in sample s1", setting="fast step=9"))
    return store.read("runs")["run_id"].to_pylist()
