"""A figure is data: which runs, what is drawn over what, and what tells them apart. One YAML file each."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from harness.errors import ConfigError
from harness.results.figures.columns import VARIANT, check_column, check_number
from harness.results.figures.style import COLUMN_INCHES
from harness.results.selection import require_column

_WIDTHS = (2.0, 20.0)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A way to draw: keys that it needs and takes, those that hold one column, and columns that it draws anyhow.

    `of_samples` says that columns of samples may be drawn, `of_steps` that it draws what traced runs alone have.
    """

    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    single: tuple[str, ...] = ()
    implied: tuple[str, ...] = ()
    of_samples: bool = False
    of_steps: bool = False


TABLE = "table"
_PARALLELISM = ("tpf", "accuracy")

KINDS = {
    "scatter": Kind(needs=("x", "y"), takes=("panels", "log", "front", "theory", "join")),
    "two_axes": Kind(needs=("x", "y"), takes=("panels", "log"), single=("x",)),
    "lines": Kind(needs=("x", "y"), takes=("log",), single=("x",), of_samples=True),
    "box": Kind(needs=("y",), takes=("panels", "log"), of_samples=True),
    "area": Kind(takes=("panels",), implied=_PARALLELISM),
    "bars": Kind(implied=_PARALLELISM),
    "radar": Kind(implied=_PARALLELISM),
    "order_map": Kind(),
    "progress": Kind(of_steps=True),
    "convergence": Kind(takes=("panels",), of_steps=True),
    "per_call": Kind(of_steps=True),
    TABLE: Kind(needs=("y",), takes=("panels",)),
}
"""What can be drawn; each is a module of this package with `data` and `draw`, but tables (`harness.results.tables`)."""

_ALWAYS = ("kind", "name", "summary", "runs", "groups", "width")


@dataclass(frozen=True, kw_only=True)
class Definition:
    """What a figure shows.

    `runs` are filters, column to values; `groups` the columns that tell what gets a colour and marker of its own;
    `panels` the column that tells what gets a panel. `log` names the axes with a logarithmic scale, `front` marks what
    no other point beats in both, `join` draws a line through the points of a group, `theory` adds what an ideal sampler
    reaches on list tasks. `width` is in inches.
    """

    kind: str
    name: str = "figure"
    summary: str = ""
    runs: Mapping[str, frozenset[str]] = field(default_factory=dict)
    x: tuple[str, ...] = ()
    y: tuple[str, ...] = ()
    groups: tuple[str, ...] = ("model", VARIANT)
    panels: str | None = None
    log: tuple[str, ...] = ()
    front: bool = False
    theory: bool = False
    join: bool = True
    width: float = COLUMN_INCHES

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that the figure looks at."""
        panels = (self.panels,) if self.panels else ()
        return tuple(dict.fromkeys([*self.x, *self.y, *KINDS[self.kind].implied, *self.groups, *panels]))


def read_definition(option: object, where: str) -> Definition:
    """Return the definition that a mapping gives; raise ConfigError for what is wrong with it, naming `where`."""
    if not isinstance(option, Mapping):
        raise ConfigError(f"{where}: holds no figure; a figure is a mapping with kind, runs, x, y and groups")
    known = [one.name for one in fields(Definition)]
    for key in option:
        if key not in known:
            raise ConfigError(f"{where}: {key}: a figure has no such key; {_nearest(str(key), known)}")
    kind = option.get("kind")
    if kind not in KINDS:
        raise ConfigError(f"{where}: kind: {kind}: nothing is drawn like this; {_nearest(str(kind), list(KINDS))}")
    _check_keys(option, KINDS[kind], where)
    values = {key: _READERS[key](value, f"{where}: {key}") for key, value in option.items()}
    definition = Definition(**values)
    _check_columns(definition, where)
    return definition


def _check_keys(option: Mapping[str, Any], kind: Kind, where: str) -> None:
    for key in kind.needs:
        if key not in option:
            raise ConfigError(f"{where}: lacks {key}, which kind: {option['kind']} draws")
    taken = (*_ALWAYS, *kind.needs, *kind.takes)
    for key in option:
        if key not in taken:
            raise ConfigError(f"{where}: {key}: kind: {option['kind']} has no use for it; leave it out")
    for key in kind.single:
        if len(given := _texts(option[key], f"{where}: {key}")) != 1:
            raise ConfigError(f"{where}: {key}: {', '.join(given) or 'none'}: kind: {option['kind']} takes one column")
    if option["kind"] == "two_axes" and len(_texts(option["y"], f"{where}: y")) != 2:
        raise ConfigError(f"{where}: y: two columns are drawn over x, such as [accuracy, nfe]")


def _check_columns(definition: Definition, where: str) -> None:
    of_samples = KINDS[definition.kind].of_samples
    for key in ("x", "y"):
        for column in getattr(definition, key):
            check_column(column, f"{where}: {key}", of_samples=of_samples)
            check_number(column, f"{where}: {key}")
    for column in definition.groups:
        check_column(column, f"{where}: groups")
    if definition.panels is not None:
        check_column(definition.panels, f"{where}: panels")
    for column in definition.runs:
        require_column(column, f"{where}: runs")
    for axis in definition.log:
        if axis not in ("x", "y"):
            raise ConfigError(f"{where}: log: {axis}: is no axis; name x, y or both")


def _nearest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{where}: {value}: must be a word or a text")
    return value


def _file_name(value: object, where: str) -> str:
    if "/" in (name := _text(value, where)):
        raise ConfigError(f"{where}: {name}: must be the name of a file, without its folder: --output FOLDER")
    return name


def _maybe_text(value: object, where: str) -> str | None:
    return None if value is None else _text(value, where)


def _texts(value: object, where: str) -> tuple[str, ...]:
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return tuple(_text(one, where) for one in values)


def _flag(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{where}: {value}: must be true or false")
    return value


def _width(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not _WIDTHS[0] <= value <= _WIDTHS[1]:
        raise ConfigError(f"{where}: {value}: must be inches, from {_WIDTHS[0]:g} to {_WIDTHS[1]:g}")
    return float(value)


def read_filters(value: object, where: str) -> dict[str, frozenset[str]]:
    """Return the values that each column may have, as texts; raise ConfigError for what is no filter."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: {value}: must be filters, such as {{task: [list_copy, list_sort]}}")
    return {str(column): _allowed(one, f"{where}: {column}") for column, one in value.items()}


def _allowed(value: object, where: str) -> frozenset[str]:
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    if not values or any(isinstance(one, Mapping | list) for one in values):
        raise ConfigError(f"{where}: {value}: must be a value or a list of values")
    return frozenset(_written(one) for one in values)


def _written(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


_READERS: dict[str, Any] = {
    **dict.fromkeys(("kind", "summary"), _text),
    "name": _file_name,
    **dict.fromkeys(("x", "y", "groups", "log"), _texts),
    **dict.fromkeys(("front", "theory", "join"), _flag),
    "panels": _maybe_text,
    "runs": read_filters,
    "width": _width,
}
