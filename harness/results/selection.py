"""Which stored runs somebody means: filters over columns, and names shortened to what tells them apart."""

import difflib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa

from harness.errors import ConfigError, listed
from harness.results.canonical import canonical_setting
from harness.results.parts import Attempt, as_rows
from harness.results.scan import Scan
from harness.results.schemas import RUNS
from harness.results.store import newest_of

_SHOWN = 5
_CONFIG = "config."


def parse_filters(words: Iterable[str]) -> dict[str, set[str]]:
    """Return the values that each column may have, of words `column=value,value`; raise ConfigError for others."""
    filters: dict[str, set[str]] = {}
    for word in words:
        column, equals, values = word.partition("=")
        if not equals or not values:
            raise ConfigError(f"{word}: is no filter; filters look like column=value, or column=value,value")
        require_column(column, word)
        # What people name may hold a comma.
        filters.setdefault(column, set()).update(values.split(","), [values] if column == "name" else ())
    return filters


def require_column(column: str, where: str) -> None:
    """Raise ConfigError, with the nearest one, for what is neither a column of runs nor a `config.` place in one."""
    if column not in RUNS.names and not column.startswith(_CONFIG):
        close = difflib.get_close_matches(column, RUNS.names, n=1)
        hint = f"did you mean {close[0]}?" if close else "columns of runs are listed by: decbench results show RUN"
        raise ConfigError(f"{where}: runs have no column {column}; {hint}")


def stored_columns(columns: Iterable[str]) -> list[str]:
    """Return the columns of runs that hold the values of others, such as `config.method.threshold`."""
    return list(dict.fromkeys("config" if column.startswith(_CONFIG) else column for column in columns))


def value_of(row: Mapping[str, Any], column: str) -> Any:
    """Return what a run has in a column; `config.a.b` is a place in its configuration, None where it has none."""
    if not column.startswith(_CONFIG):
        return row[column]
    place = _parsed(row["config"])
    for key in column.split(".")[1:]:
        place = place.get(key) if isinstance(place, dict) else None
    return place


def require_places(rows: Collection[Mapping[str, Any]], columns: Iterable[str], where: str) -> None:
    """Raise ConfigError, with the nearest one, for a `config.` place that none of some runs has."""
    for column in columns:
        if not rows or not column.startswith(_CONFIG) or any(value_of(row, column) is not None for row in rows):
            continue
        known = {place for row in rows for place in _places(_parsed(row["config"]), "config")}
        if column not in known:
            close = difflib.get_close_matches(column, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "decbench results show RUN shows a configuration"
            raise ConfigError(f"{where}: these runs have no {column}; {hint}")


def _places(value: Any, place: str) -> Iterator[str]:
    yield place
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _places(inner, f"{place}.{key}")


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Any:
    return json.loads(text)


def matching(
    scan: Scan,
    filters: Mapping[str, Collection[str]],
    columns: Sequence[str],
    *,
    every_attempt: bool = False,
    names: Mapping[str, Collection[str]] | None = None,
) -> list[dict[str, Any]]:
    """Return some columns of the runs that pass all filters, in the order in which they were made.

    They are the newest attempts of every run, or all of them. `names` are further names of runs, by `run_id`: those of
    sweeps that took a stored run.
    """
    attempts = scan.attempts if every_attempt else newest_of(scan.attempts, filters.get("run_id"))
    wanted = stored_columns([*columns, "status", "created", "setting_id", "run_id", "attempt", *filters])
    stored = scan.rows(attempts, wanted)
    passing = stored.take(_passing(stored, filters, names or {})) if filters else stored
    return sorted(as_rows(passing), key=lambda row: (row["created"], row["setting_id"], row["attempt"]))


def _passing(
    stored: pa.Table, filters: Mapping[str, Collection[str]], names: Mapping[str, Collection[str]]
) -> pa.Array:
    """Return the places of rows that pass all filters; nothing else of the others becomes a plain value."""
    rows = as_rows(stored.select(stored_columns(["run_id", *filters])))
    passing = [all(_passes(row, key, allowed, names) for key, allowed in filters.items()) for row in rows]
    return pa.array([at for at, passes in enumerate(passing) if passes], pa.int64())


def _passes(
    row: Mapping[str, Any], column: str, allowed: Collection[str], names: Mapping[str, Collection[str]]
) -> bool:
    if column == "name" and {*allowed} & {*names.get(row["run_id"], ())}:
        return True
    value = value_of(row, column)
    if column == "name" and value is not None:
        return value in allowed
    return any(_equals(value, text) for text in allowed)


def why_none(scan: Scan, filters: Mapping[str, Collection[str]], names: Mapping[str, Collection[str]]) -> Iterator[str]:
    """Say of filters that no run passes which of them none passes alone, and what comes near or is there."""
    rows = as_rows(scan.rows(scan.attempts, stored_columns(["run_id", *filters]))) if filters else []
    for column, allowed in filters.items():
        if not rows or any(_passes(row, column, allowed, names) for row in rows):
            continue
        values = [value_of(row, column) for row in rows]
        values += [name for several in names.values() for name in several] if column == "name" else []
        known = sorted({"null" if value is None else str(value) for value in values})
        begun = [one for one in known if one.startswith(tuple(allowed))]
        near = [close for text in sorted(allowed) for close in difflib.get_close_matches(text, known, n=1)]
        close = listed(begun or near, _SHOWN)
        told = f"did you mean {close}?" if close else f"runs have {listed(known, _SHOWN)}"
        yield f"{column}={','.join(sorted(allowed))}: no run has it; {told}"


def _equals(value: object, text: str) -> bool:
    if value is None or isinstance(value, bool):
        return text.lower() == ("null" if value is None else str(value).lower())
    if isinstance(value, float | int):
        try:
            return float(text) == value
        except ValueError:
            return False
    return canonical_setting(text) == canonical_setting(str(value))


def attempt_of(attempts: Collection[Attempt], name: str) -> Attempt:
    """Return the newest attempt, a good one where there is one, of the run whose `run_id` begins with `name`.

    Raises ConfigError, with the nearest names, where that is none or several.
    """
    known = sorted({one.run_id for one in attempts})
    found = [one for one in known if one == name] or [one for one in known if one.startswith(name)]
    if not known:
        raise ConfigError(f"{name}: no runs are stored here; choose another store: results_dir=PATH")
    if not name or not found:
        close = difflib.get_close_matches(name, known, n=_SHOWN, cutoff=0.3) or known[:_SHOWN]
        raise ConfigError(f"{name}: no such run; nearest: {', '.join(close)}; all: decbench results list")
    if len(found) > 1:
        raise ConfigError(f"{name}: begins the names of several runs, {listed(found, _SHOWN)}; write more")
    return newest_of(attempts, found)[0]
