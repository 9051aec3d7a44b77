"""A stored run, run again from what is stored of it: nothing of today's options goes in, and nothing is written."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.config.job import Job, resolve
from harness.config.source_digest import Code, differences
from harness.config.stored import restored
from harness.errors import DataError
from harness.results.canonical import canonical_json
from harness.results.parts import Attempt, as_rows, table_of
from harness.results.reproduction import Parting, Rows, partings
from harness.results.scan import Scan
from harness.results.schemas import NAMES
from harness.runs import provenance
from harness.runs.device import DeviceState
from harness.runs.part_of_task import PartOfTask
from harness.runs.progress import Progress
from harness.runs.runner import street_of
from harness.runs.unfinished import KeepsNothing

Row = Mapping[str, Any]

_MACHINE = ("cpu_model", "gpu_name", "driver", "cuda", "cudnn", "threads", "tf32", "checkpoint_sha256")
"""What of provenance can move a number and is no part of every run's name."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What became of a run that was run again: `decoded` decodings, how some `part`, and what is not as it was.

    `changed` are the parts of the run's name and of its machine that differ: modules, versions, hardware, checkpoint.
    """

    run_id: str
    now: str
    decoded: int
    changed: tuple[str, ...]
    parted: tuple[Parting, ...]

    @property
    def differing(self) -> tuple[Parting, ...]:
        """Those that rounding does not explain."""
        return tuple(one for one in self.parted if not one.tie)


def verify(scan: Scan, attempt: Attempt, progress: Progress, *, samples: int | None = None) -> Verification:
    """Decode again what an attempt has decoded, or its first `samples` in whole batches, and compare.

    Raises DataError for an attempt that has no rows to compare with, and ConfigError, DataError or MissingDependency
    where it cannot be run here.
    """
    run, stored = _stored(scan, attempt)
    job = resolve(restored(json.loads(run["config"])))
    job.require_grading()
    again, now = _decoded(job, run, progress, samples)
    names = {(row["sample_id"], row["repetition"]) for row in again.samples}
    compared = stored if samples is None else stored.among(names)
    return Verification(
        run_id=run["run_id"],
        now=job.run_id,
        decoded=len(names),
        changed=tuple(_changed(run, job, now)),
        parted=tuple(partings(run, compared, again, whole=samples is None)),
    )


def _stored(scan: Scan, attempt: Attempt) -> tuple[Row, Rows]:
    tables = [scan.part(attempt, table) for table in ("runs", "samples", "steps")]
    if not attempt.ok:
        raise DataError(f"{attempt.run_id}: is {attempt.status}, so that there is nothing to compare; run it again")
    runs, samples, steps = (None if one is None else as_rows(one) for one in tables)
    if not runs or samples is None or steps is None:
        raise DataError(f"{attempt.run_id}: its rows cannot be read; run it again, or: decbench results delete")
    return runs[0], Rows(samples=samples, steps=steps)


def _decoded(job: Job, run: Row, progress: Progress, samples: int | None) -> tuple[Rows, dict[str, object]]:
    """Return the rows of decoding, as a store would hold them, and what they rest on."""
    street, switches = street_of(job, progress)
    if samples is not None:
        # Rows of other batches would be computed in other shapes, which rounds otherwise.
        whole = -(-samples // street.room.rows) * street.room.rows
        first: Any = PartOfTask(whole=job.task, samples=job.task.instances()[:whole])
        street = replace(street, task=first)
    walked = street.walk(KeepsNothing())
    named = {name: run[name] for name in NAMES}

    def stored(kind: str, made: Sequence[Row]) -> list[Row]:
        return table_of(kind, [{**row, **named} for row in made]).to_pylist()

    rows = Rows(samples=stored("samples", walked.samples), steps=stored("steps", walked.steps))
    return rows, _machine(street.loaded.checkpoint_sha256, str(street.loaded.model.device), switches)


def _machine(checkpoint: str | None, device: str, switches: DeviceState) -> dict[str, object]:
    return provenance.collect(device, switches=switches.to_dict()) | {"checkpoint_sha256": checkpoint}


def _changed(run: Row, job: Job, now: Mapping[str, object]) -> Iterator[str]:
    """Yield what of a run's name and machine is not as it was stored."""
    made, told = (json.loads(run[column] or "{}") for column in ("produced_by", "provenance"))
    old = Code(modules=made.pop("modules", job.code.modules), versions=made.pop("versions", job.code.versions))
    yield from differences(old, job.code)
    pairs = [(name, value, json.loads(canonical_json(job.producer.get(name)))) for name, value in made.items()]
    pairs += [(name, told[name], now.get(name)) for name in _MACHINE if name in told]
    for name, before, after in pairs:
        if before != after:
            yield f"{name} {_short(before)} -> {_short(after)}"
    if run["setting_id"] != job.setting_id:
        why = "the task's data, the checkpoint, or a field of a class"
        yield f"setting {run['setting_id']} -> {job.setting_id} ({why})"


def _short(value: object) -> str:
    return canonical_json(value).strip('"')[:60]
