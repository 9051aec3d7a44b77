"""What can be drawn: columns of runs, what follows from them, and how a reader knows them."""

import difflib
import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from harness.errors import ConfigError
from harness.results.parallelism import PARTS
from harness.results.schemas import RUNS, SAMPLES, shown
from harness.results.selection import require_column, value_of

REUSED = "reused_share"
"""Of a traced run: the share of visible positions that came from caches, however old, instead of being computed."""

VARIANT = "variant"
"""The method with the parts that were put in place of its own, without its knobs."""

DERIVED = (REUSED, VARIANT)

_TIMES = {"latency_s", "latency_p50_s", "latency_p90_s", "latency_p95_s", "latency_p99_s", "ttft_s",
          "forward_s", "draft_s", "rest_s", "tps", "cpu_s"}  # fmt: skip
_MEMORY = "peak_memory_bytes"
MEASURED_ON = _TIMES | {_MEMORY}
"""Columns whose values compare only where device and batch size are equal."""

_FIRST, _LAST = (RUNS.names.index(one) for one in ("accuracy", _MEMORY))
OUTCOMES = {*RUNS.names[_FIRST : _LAST + 1], REUSED}
"""Columns that a run finds out; by all others it is told what to do."""

MORE_IS_BETTER = {"accuracy", "accuracy_strict", "tpf", "tps", "correct", "accepted_length", "acceptance_rate"}

_LABELS = {
    "accuracy": "accuracy, %",
    "nfe": "model calls per sample",
    "tpf": "tokens per call",
    "tps": "tokens per second",
    "query_tokens": "query tokens per sample",
    "efe": "equivalent full forwards",
    "layer_loads": "layers loaded per sample",
    "accepted_length": "tokens per round",
    "gen_length": "answer length, tokens",
    "prompt_tokens": "prompt length, tokens",
    "batch_size": "batch size",
    "latency_s": "seconds per sample",
    _MEMORY: "peak memory, MB",
    REUSED: "positions from caches, %",
}
_SCALES = {"accuracy": 100.0, "accuracy_strict": 100.0, _MEMORY: 1e-6, REUSED: 100.0}


def check_column(column: str, where: str, *, of_samples: bool = False) -> None:
    """Raise ConfigError, with the nearest one, for a column that runs (or their samples) do not have."""
    if column in DERIVED or (of_samples and column in SAMPLES.names):
        return
    if of_samples:
        close = difflib.get_close_matches(column, SAMPLES.names, n=1)
        if close:
            raise ConfigError(f"{where}: samples have no column {column}; did you mean {close[0]}?")
    require_column(column, where)


def check_number(column: str, where: str) -> None:
    """Raise ConfigError for a column of samples that holds no numbers; what runs hold is seen when they are read."""
    if column in SAMPLES.names and column not in RUNS.names:
        kind = SAMPLES.field(column).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            raise ConfigError(f"{where}: {column}: holds {kind}, no numbers; draw a column of numbers")


def label(column: str) -> str:
    """Return what stands at an axis."""
    if column in _LABELS:
        return _LABELS[column]
    for schema in (RUNS, SAMPLES):
        if column in schema.names:
            unit = (schema.field(column).metadata or {}).get(b"unit", b"").decode()
            return f"{column.removesuffix('_s').replace('_', ' ')}{', ' if unit else ''}{unit}"
    return column.rpartition(".")[2].replace("_", " ")


def scale(column: str) -> float:
    """Return what values of a column are multiplied by where they are drawn."""
    return _SCALES.get(column, 1.0)


def text_of(row: Mapping[str, Any], column: str) -> str:
    """Return what a run is called by a column."""
    if column == VARIANT:
        parts = [word for word in row["setting"].split() if word.split("=")[0] in PARTS]
        return " ".join([row["method"], *parts])
    value = shown(column, value_of(row, column))
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def number_of(row: Mapping[str, Any], column: str, where: str) -> float | None:
    """Return the number that a run has in a column, None where it has none; raise ConfigError for what is no number."""
    value = value_of(row, column)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{where}: {column}: {str(value)[:40]}: is no number; draw a column of numbers")
    return float(value)
