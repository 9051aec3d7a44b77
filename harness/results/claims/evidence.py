"""What a store holds about the settings of claims: samples, one array per task, or what is missing.

Shapes: M rows, N samples, C columns of `metrics.COLUMNS`.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from harness.results.claims.metrics import COLUMNS, Floats
from harness.results.parts import as_rows
from harness.results.scan import Scan
from harness.results.schemas import SAMPLES
from harness.results.store import Store

CONDITIONS = ("device", "batch_size", "batching", "measure")
MADE = ("created", "git_commit", "packages_sha256")
_DIGITS = 12
_POSITIONS = ("prompt_tokens", "tokens_canvas")
_READ = ("sample_id", "repetition", "prompt_sha256", "output_ids", *_POSITIONS,
         *(one for one in COLUMNS if one in SAMPLES.names))  # fmt: skip


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
    attempts = [one for one in reversed(scan.attempts) if one.setting_id in wanted and one.ok]
    rows = as_rows(scan.rows(attempts, ("task", "model", *CONDITIONS, *MADE)))
    runs = {(row["run_id"], row["attempt"]): row for row in rows}
    cells = {}
    for one, samples in scan.parts(attempts, "samples", _READ):
        if samples.num_rows and (run := runs.get((one.run_id, one.number))) is not None:
            cells[one] = _cell(run, samples)
    found: dict[str, list[Cell]] = {}
    for one in attempts:
        if one in cells:
            found.setdefault(one.setting_id, []).append(cells[one])
    return found


def _cell(run: Mapping[str, Any], samples: pa.Table) -> Cell:
    in_order = samples.sort_by([("sample_id", "ascending"), ("repetition", "ascending")])
    names = zip(in_order["sample_id"].to_pylist(), map(str, in_order["prompt_sha256"].to_pylist()), strict=True)
    places: dict[tuple[str, str], list[int]] = {}
    for at, name in enumerate(names):
        places.setdefault(name, []).append(at)
    firsts = in_order["output_ids"].take(pa.array([repeated[0] for repeated in places.values()]))
    return Cell(
        run_id=run["run_id"],
        setting_id=run["setting_id"],
        task=run["task"],
        model=run["model"],
        conditions={key: run[key] for key in CONDITIONS},
        made={key: run[key] for key in MADE},
        samples=tuple(places),
        values_NC=_means(_values(in_order), [*places.values()]),
        answers=tuple(map(_digest, firsts.to_pylist())),
    )


def _means(values_MC: Floats, places: Sequence[Sequence[int]]) -> Floats:
    """Return the means of the rows of each sample."""
    if len(places) == len(values_MC):
        return values_MC
    return np.array([np.mean(values_MC[repeated], axis=0) for repeated in places])


def _digest(ids: Sequence[int] | None) -> str:
    return hashlib.sha256(repr(list(ids or ())).encode()).hexdigest()[:_DIGITS]


def _values(rows: pa.Table) -> Floats:
    """Return the numbers of rows, [M, C]; what is not known is nan."""
    known = {name: rows[name].cast(pa.float64()).to_numpy() for name in rows.column_names if name in COLUMNS}
    prompt_M, canvas_M = (rows[name].cast(pa.float64()).fill_null(0).to_numpy() for name in _POSITIONS)
    positions_M = np.where(prompt_M + canvas_M == 0, np.nan, prompt_M + canvas_M)
    known["efe"] = known["query_tokens"] / positions_M
    return np.stack([known[name] for name in COLUMNS], axis=1)


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
