"""A sweep tells others what it will do, that it is at it, and what became of it: by the table of requests."""

import logging
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Self

from harness.config.job import Job
from harness.results.requests import new_sweep, remove_sign, write_requests, write_sign
from harness.results.schemas import WAITING
from harness.results.store import Store
from harness.runs.plan import Plan, Planned
from harness.runs.process import this_process
from harness.runs.runner import RunRecord

_LOG = logging.getLogger(__name__)

EVERY_S = 5.0
"""Seconds between two signs of life."""


class Announcement:
    """The requests of a plan that is carried out within this context.

    Where all is stored already nothing is announced: such a sweep ends at once, and its store may be one to read only.
    """

    def __init__(self, plan: Plan, store: Store) -> None:
        self._plan, self._store, self._id = plan, store, new_sweep()
        self._labels = _labels(plan)
        self._ended = threading.Event()
        self._beating: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._plan.require_possible()
        if self._plan.waiting:
            last = _last_attempts(self._store)
            write_requests(self._store, self._id, [self._waiting(one, last) for one in self._plan.jobs])
            self._sign()
            self._beating = threading.Thread(target=self._beat, daemon=True)
            self._beating.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._beating is None:
            return
        self._ended.set()
        self._beating.join()
        if kind is None:
            remove_sign(self._store, self._id)
        else:
            self._sign(ended=kind.__name__)

    def answer(self, records: Sequence[RunRecord]) -> None:
        """Store what became of the requests. Raises DataError where the store cannot be written."""
        columns = ("setting_id", "run_id", "attempt", "status")
        rows = [
            self._told(one) | {name: record.row[name] for name in columns} | {"resumed": record.resumed}
            for one, record in zip(self._plan.jobs, records, strict=True)
        ]
        write_requests(self._store, self._id, rows)

    def _told(self, one: Planned) -> dict[str, Any]:
        decodings = None
        if isinstance(one.job, Job) and (samples := one.job.plain["task"].get("samples")):
            decodings = samples * one.job.plain["measure"].get("repetitions", 1)
        made = {"name": self._plan.base.name, "created": datetime.now(UTC)}
        return made | {"label": self._labels[one.number], "decodings": decodings}

    def _waiting(self, one: Planned, last: Mapping[str, int]) -> dict[str, Any]:
        told = self._told(one) | {"setting_id": one.job.setting_id, "run_id": one.job.run_id}
        if one.stored is not None:
            return told | {"attempt": one.stored["attempt"], "status": "ok", "resumed": True}
        return told | {"attempt": last.get(one.job.setting_id, 0), "status": WAITING, "resumed": False}

    def _beat(self) -> None:
        while not self._ended.wait(EVERY_S):
            self._sign()

    def _sign(self, ended: str | None = None) -> None:
        told = {"process": this_process(), "at": datetime.now(UTC).isoformat(), "every_s": EVERY_S, "ended": ended}
        try:
            write_sign(self._store, self._id, told)
        except OSError as error:
            # Nobody sees that the sweep is alive; it is all the same.
            _LOG.info("no sign of life could be written: %s", error)


def _labels(plan: Plan) -> dict[int, str]:
    """Return what a reader knows every job by: where several would be called alike, with what sets them apart."""
    labels = {one.number: one.label for one in plan.jobs}
    alike = Counter(labels.values())
    apart = {one.number: f" ({' '.join(one.told)})" for one in plan.jobs if one.told and alike[labels[one.number]] > 1}
    return {number: label + apart.get(number, "") for number, label in labels.items()}


def _last_attempts(store: Store) -> dict[str, int]:
    """Return the number of the last attempt at every setting."""
    return {one.setting_id: one.number for one in sorted(store.attempts(), key=lambda one: one.number)}
