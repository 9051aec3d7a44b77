"""How far a sweep is, told by its store alone: what it asked for, what is there of it, and its last sign of life."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

from harness.results.parts import Attempt, as_rows
from harness.results.requests import read_requests, read_sign
from harness.results.scan import Scan
from harness.results.schemas import WAITING
from harness.results.store import Store
from harness.runs.process import has_ended
from harness.runs.unfinished import decoded_so_far

Row = Mapping[str, Any]

_SHOWN = ["status", "error", "n", "accuracy", "nfe", "tpf", "created", "sample_rows"]
_MISSED = 12
"""Signs of life after whose absence a process of another machine counts as stopped."""


class State(Enum):
    """`stopped`: some of it is missing and nobody is at it."""

    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A sweep as it stands: `answered` are its requests with the row of the run that answers each, in their order.

    `decoding` are requests of runs that have begun, with the number of decodings that are kept. `last` is when anything
    was last heard of it; `left_s` the seconds it will take if it goes on as it did, None where nothing tells.
    """

    sweep_id: str
    name: str | None
    state: State
    started: datetime
    last: datetime
    asked: Sequence[Row]
    answered: Sequence[tuple[Row, Row]]
    decoding: Sequence[tuple[Row, int]]
    left_s: float | None

    def count(self, status: str) -> int:
        """Return how many of its runs ended so."""
        return sum(row["status"] == status for _, row in self.answered)

    @property
    def left(self) -> int:
        """How many of its runs have no result yet."""
        return len(self.asked) - len(self.answered)


def sweeps(store: Store) -> list[list[Row]]:
    """Return the requests of every sweep, the sweep that started or ended last at the end."""
    found: dict[str, list[Row]] = {}
    for row in read_requests(store).rows:
        found.setdefault(str(row["sweep_id"]), []).append(row)
    return list(found.values())


def look(store: Store, asked: Sequence[Row], now: datetime | None = None) -> Watched:
    """Return how far the sweep of some requests is; `now` is the time of this machine."""
    now, scan, sweep_id = now or datetime.now(UTC), Scan(store.folder), str(asked[0]["sweep_id"])
    answers = {id(one): found for one in asked if (found := _answer(scan, one)) is not None}
    rows = _rows(scan, list(answers.values()))
    answered = [(one, rows[found]) for one in asked if (found := answers.get(id(one))) is not None and found in rows]
    sign = read_sign(store, sweep_id)
    waiting = [one for one in asked if id(one) not in answers]
    kept = [(one, decoded_so_far(store.folder, str(one["run_id"]))) for one in waiting]
    heard = [row["created"] for one, row in answered if not one["resumed"]]
    if sign is not None:
        heard.append(datetime.fromisoformat(sign["at"]))
    started = asked[0]["created"]
    last = max([started, *heard])
    state = _state(sign, now) if any(one["status"] == WAITING for one in asked) else State.DONE
    # One that was ended behind its last run has lost no more than its table.
    state = State.DONE if state is State.STOPPED and not waiting else state
    decoding = [(one, count) for one, count in kept if count]
    return Watched(
        sweep_id=sweep_id,
        name=asked[0]["name"],
        state=state,
        started=started,
        last=last,
        asked=asked,
        answered=answered,
        decoding=decoding,
        left_s=_left_s(answered, waiting, decoding, (last - started).total_seconds()),
    )


def _answer(scan: Scan, asked: Row) -> Attempt | None:
    """Return the attempt that answers a request: while it waits, one that came after all there were before."""
    number = asked["attempt"]
    fits = [one for one in scan.attempts if one.run_id == asked["run_id"]]
    if asked["status"] == WAITING:
        return max((one for one in fits if one.number > number), key=lambda one: (one.ok, one.number), default=None)
    return next((one for one in fits if one.number == number), None)


def _rows(scan: Scan, attempts: Sequence[Attempt]) -> dict[Attempt, Row]:
    rows = as_rows(scan.rows(attempts, _SHOWN))
    by_name = {(row["run_id"], row["attempt"]): row for row in rows}
    return {one: by_name[one.run_id, one.number] for one in attempts if (one.run_id, one.number) in by_name}


def _state(sign: Row | None, now: datetime) -> State:
    if sign is None or sign["ended"]:
        return State.STOPPED
    ended = has_ended(sign["process"])
    if ended is None:
        ended = now - datetime.fromisoformat(sign["at"]) > timedelta(seconds=_MISSED * sign["every_s"])
    return State.STOPPED if ended else State.RUNNING


def _left_s(
    answered: Sequence[tuple[Row, Row]],
    waiting: Sequence[Row],
    decoding: Sequence[tuple[Row, int]],
    spent: float,
) -> float | None:
    """Return what is left if decodings go on as they did since the start; None before the first are done."""
    made = [row["sample_rows"] or 0 for one, row in answered if not one["resumed"]]
    kept = sum(count for _, count in decoding)
    done = sum(made) + kept
    sizes = [one["decodings"] for one in waiting]
    if not done or None in sizes:
        return None if sizes else 0.0
    return max(0.0, (sum(sizes) - kept) * spent / done)
