"""`decbench list systems`: of the forty systems and of others, what runs here under which name, and what is missing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

from harness.config.catalogue import names
from harness.errors import DataError, listed

_FILE = "systems.yaml"
_SHOWN = 6
"""Names of one kind that the table prints; the JSON has all."""

Parts = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class System:
    """A published system: `runs` and `lacks` are parts by kind; `number` is its place among the forty, or None."""

    name: str
    says: str
    number: int | None = None
    paper: str | None = None
    runs: Parts = field(default_factory=dict)
    lacks: Parts = field(default_factory=dict)
    note: str | None = None

    @property
    def heading(self) -> str:
        """Its number, name and what it is."""
        return f"{f'{self.number}. ' if self.number else ''}{self.name}: {self.says}"


@cache
def systems() -> tuple[System, ...]:
    """Return all systems, the forty first."""
    import yaml

    entries = yaml.safe_load(files("harness.commands").joinpath(_FILE).read_text("utf-8"))
    return tuple(map(system_of, entries))


def system_of(entry: Mapping[str, Any]) -> System:
    """Return the system of an entry of the file; raise DataError for one that says nothing."""
    if not (entry.get("runs") or entry.get("lacks")):
        raise DataError(f"{_FILE}: {entry.get('name')}: names neither what runs nor what it lacks")
    runs, lacks = ({kind: tuple(of) for kind, of in entry.get(key, {}).items()} for key in ("runs", "lacks"))
    told = {key: entry[key] for key in ("name", "number", "paper", "note") if key in entry}
    return System(**told, says=entry["is"], runs=runs, lacks=lacks)


def is_built(kind: str, name: str) -> bool:
    """Say whether a part exists: of a group of configs, of a slot of methods (`method/cache`), or a `command`."""
    if kind == "command":
        return find_spec(f"harness.commands.{name}") is not None
    if kind.startswith("method/"):
        from harness.config import options

        options.register()
        return name in options.names_of(kind)
    return name in names(kind)


def wrong_parts() -> list[str]:
    """Return what the entries say that is not so: parts that run and do not exist, or lack and do."""
    found = []
    for system in systems():
        for parts, exists in ((system.runs, True), (system.lacks, False)):
            pairs = [(kind, name) for kind, of in parts.items() for name in of]
            wrong = "does not exist" if exists else "exists"
            found += [f"{system.name}: {k} {n} {wrong}" for k, n in pairs if is_built(k, n) is not exists]
    return found


def entries() -> list[dict[str, object]]:
    """Return one JSON-able entry per system."""
    return [
        {
            "number": one.number,
            "name": one.name,
            "summary": one.says,
            "paper": one.paper,
            "runs": {kind: list(of) for kind, of in one.runs.items()},
            "lacks": {kind: list(of) for kind, of in one.lacks.items()},
            "note": one.note,
        }
        for one in systems()
    ]


def rows() -> list[tuple[str, str, str, str]]:
    """Return number, name with paper, what runs here and what does not, of every system."""
    return [
        (
            str(one.number or ""),
            f"{one.name}{f' ({one.paper})' if one.paper and one.paper != one.name else ''}: {one.says}",
            _told(one.runs) or "nothing",
            "; ".join(filter(None, [_told(one.lacks), one.note])),
        )
        for one in systems()
    ]


def markdown() -> str:
    """Return the table of systems as Markdown."""
    lines = ["| # | system | runs here as | not built |", "|---|---|---|---|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows())])


def _told(parts: Parts) -> str:
    return "; ".join(f"{kind} {_listed(of)}" for kind, of in parts.items())


def _listed(of: tuple[str, ...]) -> str:
    return listed([f"`{name}`" for name in of], _SHOWN)
