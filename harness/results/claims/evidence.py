"""What a store holds about the settings of claims: samples, one array per task, or what is missing.

Shapes: N samples, C columns of `metrics.COLUMNS`.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.results.claims.metrics import COLUMNS, Floats
from harness.results.parts import as_rows
from harness.results.scan import Scan
from harness.results.store import Store

CONDITIONS = ("device", "batch_size", "measure")
MADE = ("created", "git_commit", "packages_sha256")
_DIGITS = 12
_READ = ("sample_id", "repetition", "prompt_sha256", "prompt_tokens", "tokens_canvas", "output_ids")


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Why a setting has no samples to look at: parts that do not exist (`method deer`), or another reason."""

    reason: str = ""
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The samples of one setting on one task, repetitions averaged, ordered by sample; unknown numbers are NaN.

    `answers` are digests of the ids of the first repetition, `conditions` what times hang on beside the setting, and
    `made` when and by which code the run was made.
    """

    run_id: str
    setting_id: str
    task: str
    model: str
    conditions: Mapping[str, Any]
    made: Mapping[str, Any]
    samples: tuple[tuple[str, str], ...]
    values_NC: Floats
    answers: tuple[str, ...]


def collect(store: Store, setting_ids: Iterable[str]) -> dict[str, list[Cell]]:
    """Return the good runs of every setting that has any, the newest first."""
    scan, wanted = Scan(store.folder), set(setting_ids)
    found: dict[str, list[Cell]] = {}
    for attempt in reversed(scan.attempts):
        if attempt.setting_id not in wanted or not attempt.ok:
            continue
        run, samples = scan.run(attempt), scan.part(attempt, "samples")
        if run is not None and samples is not None and samples.num_rows:
            (row,) = as_rows(run)
            found.setdefault(attempt.setting_id, []).append(_cell(row, samples))
    return found


def _cell(run: Mapping[str, Any], samples: Any) -> Cell:
    stored = [name for name in COLUMNS if name in samples.column_names]
    rows = samples.select([*_READ, *stored]).to_pylist()
    by_sample: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (row["sample_id"], row["repetition"])):
        by_sample.setdefault((row["sample_id"], str(row["prompt_sha256"])), []).append(row)
    values = [np.mean([_values(row) for row in repeated], axis=0) for repeated in by_sample.values()]
    return Cell(
        run_id=run["run_id"],
        setting_id=run["setting_id"],
        task=run["task"],
        model=run["model"],
        conditions={key: run[key] for key in CONDITIONS},
        made={key: run[key] for key in MADE},
        samples=tuple(by_sample),
        values_NC=np.array(values),
        answers=tuple(_digest(repeated[0]["output_ids"]) for repeated in by_sample.values()),
    )


def _digest(ids: Sequence[int] | None) -> str:
    return hashlib.sha256(repr(list(ids or ())).encode()).hexdigest()[:_DIGITS]


def _values(row: Mapping[str, Any]) -> list[float]:
    positions = (row["prompt_tokens"] or 0) + (row["tokens_canvas"] or 0)
    full = None if row["query_tokens"] is None or not positions else row["query_tokens"] / positions
    known = {**row, "efe": full}
    return [np.nan if known[name] is None else float(known[name]) for name in COLUMNS]


def of_side(cells: Mapping[str, Sequence[Cell]], setting_ids: Sequence[str], *, timed: bool) -> list[Cell] | Missing:
    """Return the newest run of each setting, of those that were timed if asked, or how many settings lack one."""
    chosen = [next((one for one in cells.get(name, ()) if _fits(one, timed)), None) for name in setting_ids]
    lacking = sum(one is None for one in chosen)
    if not lacking:
        return [one for one in chosen if one is not None]
    what = "timed run (measure=timed)" if timed and any(name in cells for name in setting_ids) else "run"
    many = f" for {lacking} of {len(setting_ids)} settings" if len(setting_ids) > 1 else ""
    return Missing(reason=f"the store has no {what}{many}")


def _fits(cell: Cell, timed: bool) -> bool:
    return not timed or cell.conditions["measure"] == "timed"
