"""Files of `decbench bench --fit`: a fitted machine as JSON, each of its numbers looked at before one is used."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from math import isfinite
from pathlib import Path
from typing import Any

from harness import files
from harness.errors import DataError
from harness.models.cost.fit import NOT_FITTED, Fit
from harness.models.cost.machine import Machine

BYTES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2}
"""What a value takes, by the type that calls were computed in."""

_MAY_BE_ZERO = ("overhead_s", "median_error", "worst_error")
_MAY_BE_NONE = ("price", "network")


def read_fit(file: Path) -> Fit:
    """Return a fit that `decbench bench --fit` has written; raise DataError, with the key, for another file."""
    try:
        told = files.parsed(files.text(file))
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or (str(error) or type(error).__name__)
        raise _unfit(file, f"is no fitted machine ({reason.splitlines()[0]})") from error
    found = _section(file, told, "fit", Fit)
    machine = _section(file, found, "fit.machine", Machine)
    for name, value in machine.items():
        _number(file, f"fit.machine.{name}", name, value)
    for name in ("calls", "median_error", "worst_error"):
        _number(file, f"fit.{name}", name, found[name])
    ranges = {name: _range(file, f"fit.{name}", found[name]) for name in ("flops", "moved")}
    options = told.get("options")
    dtype, device = (options.get(key) if isinstance(options, Mapping) else None for key in ("dtype", "device"))
    if not isinstance(dtype, str) or dtype not in BYTES:
        raise _unfit(file, f"options.dtype={dtype}: must be one of {', '.join(BYTES)}")
    measured = {"file": str(file), "device": str(device), "dtype": dtype}
    return Fit(**{**found, **ranges, **measured, "machine": Machine(**machine)})


def _section(file: Path, told: Any, key: str, kind: type) -> dict[str, Any]:
    """Return what stands under the last word of a key, which has the fields of a class and no others."""
    name = key.rpartition(".")[2]
    found = told.get(name) if isinstance(told, Mapping) else None
    if not isinstance(found, Mapping):
        raise _unfit(file, f"is no fitted machine ({key} must be an object)")
    known = {one.name: one for one in fields(kind) if one.name not in NOT_FITTED}
    for one in found:
        if one not in known:
            raise _unfit(file, f"{key}.{one}: no such key")
    for one, field in known.items():
        if one not in found and field.default is MISSING:
            raise _unfit(file, f"{key}.{one}: is missing")
    return dict(found)


def _number(file: Path, key: str, name: str, value: Any) -> None:
    if name == "source" or (name in _MAY_BE_NONE and value is None):
        return
    least = "at least 0" if name in _MAY_BE_ZERO else "more than 0"
    if not _is_number(value) or value < 0 or (value == 0 and name not in _MAY_BE_ZERO):
        raise _unfit(file, f"{key}={value}: must be a number of {least}")


def _range(file: Path, key: str, value: object) -> tuple[float, float]:
    if (
        not isinstance(value, list)
        or len(value) != 2
        or not all(map(_is_number, value))
        or not 0 <= value[0] <= value[1]
    ):
        raise _unfit(file, f"{key}={value}: must be two numbers, the least and the most that was measured")
    return value[0], value[1]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _unfit(file: Path, reason: str) -> DataError:
    return DataError(f"{file}: {reason}; write one with decbench bench --fit out={file}")
