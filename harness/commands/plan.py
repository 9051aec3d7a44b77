"""`decbench plan`: what `run` with the same arguments would do, job by job; nothing is loaded or written."""

import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table

from harness.commands.console import console as output
from harness.config.job import Job, Refused
from harness.results.store import Store
from harness.runs import estimate
from harness.runs.plan import Plan, Planned, plan
from harness.runs.runner import setting
from harness.runs.sweep import expand

_HEADER = ("job", "model", "setting", "task", "state", "calls", "seconds", "basis")


def main(argv: Sequence[str], *, as_json: bool) -> int:
    """Print the jobs that the overrides describe, and what those that are new will cost.

    Returns 2, as `run` with the same arguments does, where a job that is refused keeps all from running, else 0.
    """
    planned = plan(expand(argv))
    entries = list(_entries(planned))
    if as_json:
        sys.stdout.write(json.dumps({"jobs": entries, "totals": _totals(entries)}) + "\n")
    else:
        _print(planned, entries)
    return 2 if planned.impossible else 0


def _entries(planned: Plan) -> Iterator[dict[str, Any]]:
    rows: dict[str, list[dict[str, Any]]] = {}
    for one in planned.jobs:
        entry: dict[str, Any] = {"job": one.number, "overrides": list(one.overrides), **_names(one)}
        if isinstance(one.job, Refused):
            yield entry | {"state": "refused", "reason": one.job.reason}
        elif one.stored is not None:
            yield entry | {"state": "stored"}
        else:
            root = one.job.plain["results_dir"]
            if root not in rows:
                rows[root] = _good_runs(root)
            expected = estimate.estimate(one.job, rows[root])
            yield entry | {"state": "new"} | vars(expected)


def _good_runs(root: str) -> list[dict[str, Any]]:
    stored = Store(root=root).read("runs", columns=estimate.COLUMNS).to_pylist()
    return [row for row in stored if row["status"] == "ok"]


def _names(one: Planned) -> dict[str, Any]:
    names = {"setting_id": one.job.setting_id, "run_id": one.job.run_id}
    if not isinstance(one.job, Job):
        return names | {"model": None, "setting": " ".join(one.told or one.overrides), "task": None}
    plain = one.job.plain
    model, task = plain["models"]["target"]["name"], plain["task"]["name"]
    return names | {"model": model, "setting": setting(plain, one.job.cfg.overrides), "task": task}


def _totals(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return how many jobs there are of each state, and the sums of what is known of the new ones."""
    states = [entry["state"] for entry in entries]
    totals: dict[str, Any] = {state: states.count(state) for state in ("stored", "new", "refused")}
    for what in ("calls", "seconds"):
        known = [entry[what] for entry in entries if entry.get(what) is not None]
        totals |= {what: sum(known), f"{what}_known": len(known)}
    return totals


def _print(planned: Plan, entries: Sequence[dict[str, Any]]) -> None:
    console = output()
    table = Table(*_HEADER, box=None, pad_edge=False)
    for column in ("job", "calls", "seconds"):
        table.columns[_HEADER.index(column)].justify = "right"
    for entry in entries:
        table.add_row(*_cells(entry))
    console.print(table, highlight=False)
    for line in _lines(planned, entries):
        console.print(line, highlight=False, soft_wrap=True)


def _cells(entry: dict[str, Any]) -> list[str]:
    calls, seconds = entry.get("calls"), entry.get("seconds")
    return [
        str(entry["job"]),
        entry["model"] or "",
        entry["setting"],
        entry["task"] or "",
        entry["state"],
        "" if calls is None else f"{calls:,.0f}",
        "" if seconds is None else f"{seconds:,.1f}",
        entry.get("basis") or entry.get("reason", ""),
    ]


def _lines(planned: Plan, entries: Sequence[dict[str, Any]]) -> Iterator[str]:
    totals = _totals(entries)
    new = totals["new"]
    yield f"{len(entries)} jobs: {totals['stored']} stored, {new} new, {totals['refused']} refused"
    if new:
        told = [f"{totals['calls']:,.0f} calls", f"{totals['seconds']:,.1f} s"]
        known = [totals["calls_known"], totals["seconds_known"]]
        parts = [f"{one} (known of {n} of {new})" for one, n in zip(told, known, strict=True) if n]
        yield f"expected of the new ones: {', '.join(parts) or 'nothing is known'}; loading is not included"
    if planned.impossible:
        yield "as it stands nothing runs; on_error=record leaves out what is refused"
