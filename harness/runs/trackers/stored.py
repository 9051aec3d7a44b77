"""Reports of what lies in a store: those that live runs make, for every attempt and every sweep that asked for it."""

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from harness.results.parts import Attempt, as_rows
from harness.results.requests import read_requests
from harness.results.scan import Scan
from harness.results.schemas import WAITING
from harness.results.selection import matching
from harness.results.store import Store
from harness.runs.trackers.report import Picture, Report, id_of, report_of

_TOLD = ("ok", "failed")
"""Runs that were refused are no attempts at anything."""

Filters = Mapping[str, Collection[str]]


def asked(store: Store, scan: Scan, filters: Filters) -> list[tuple[Attempt, str | None]]:
    """Return every attempt that passes the filters with the names of the sweeps it is reported to, its own first."""
    requests = read_requests(store)
    rows = matching(scan, filters, ("name", "run_id"), every_attempt=True, names=requests.names())
    own = {(row["run_id"], row["attempt"]): row["name"] for row in rows if row["status"] in _TOLD}
    answered = [row for row in requests.rows if row["name"] and row["status"] != WAITING]
    others = [((row["run_id"], row["attempt"]), str(row["name"])) for row in answered]
    attempts: dict[tuple[object, object], Attempt] = {(one.run_id, one.number): one for one in scan.attempts}
    pairs = [(attempts[key], name) for key, name in own.items()]
    pairs += [(attempts[key], name) for key, name in others if key in own]
    return list(dict.fromkeys(pairs))


def reports(
    scan: Scan, pairs: Collection[tuple[Attempt, str | None]], was_told: Callable[[str], bool]
) -> Iterator[Report]:
    """Yield the reports of attempts to sweeps that were not made, by their ids.

    One whose rows cannot be read is passed over, with a warning.
    """
    for attempt, name in pairs:
        run = scan.run(attempt)
        if run is None or was_told(id_of(row := as_rows(run)[0], name)):
            continue
        if (samples := scan.part(attempt, "samples")) is not None:
            yield report_of(row, samples.to_pylist(), name)


def pictures(root: Path, names: Collection[str]) -> list[Picture]:
    """Return the pictures of sweeps, where they were drawn."""
    files = [(name, root / "figures" / f"{name}.png") for name in names]
    return [Picture(sweep=name, file=file) for name, file in files if file.is_file()]
