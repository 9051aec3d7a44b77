"""What two stores are equal in: everything but attempts, times, provenance and how the runs were asked for."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.results.schemas import RESULTS
from harness.results.store import Store

_OF_THE_MOMENT = {"attempt", "created", "wall_s", "peak_memory_bytes", "provenance", "dirty", "threads",
                  "device", "busy", "energy_joules"}  # fmt: skip
_ASKED = {"results_dir", "resume", "save_every_s", "on_error", "split", "name"}
_ORDER = ("run_id", "sample_id", "repetition", "step")


def content(root: Path | str, tables: Sequence[str] = RESULTS) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of the newest attempts, by table and in one order, without what differs between equal stores."""
    read = [Store(root=root).read(table) for table in tables]
    return {name: sorted(map(_lasting, rows.to_pylist()), key=_place) for name, rows in zip(tables, read, strict=True)}


def _lasting(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in row.items() if name not in _OF_THE_MOMENT}
    if "config" in kept:
        kept["config"] = {name: value for name, value in json.loads(kept["config"]).items() if name not in _ASKED}
    return kept


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in _ORDER)
