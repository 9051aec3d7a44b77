"""A machine told from what calls took on it: what of the roofline programs reach, and what every call loses."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from harness.errors import ConfigError
from harness.models.cost.machine import Machine
from harness.models.cost.shape import ModelShape
from harness.models.cost.work import Call, Work, work_of

LEAST = 12
"""Calls that three numbers are told from."""
NOT_FITTED = ("file", "device", "dtype")
"""What of a fit tells where it is from."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """A call, its work, and the seconds that it took."""

    call: Call
    work: Work
    seconds: float


class Unmeasured(ConfigError):
    """A call lies outside what a machine was measured at; `needs` are the most operations and bytes that were asked."""

    def __init__(self, said: str, needs: tuple[float, float]) -> None:
        """Keep what is needed beside what is said."""
        super().__init__(said)
        self.needs = needs


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A fitted machine: relative errors are those of calls that it was not fitted to; `flops` and `moved` its range.

    `file` is where it was read, `device` and `dtype` where and in what its calls were computed; they are empty for one
    that was not read.
    """

    machine: Machine
    calls: int
    median_error: float
    worst_error: float
    flops: tuple[float, float]
    moved: tuple[float, float]
    file: str = ""
    device: str = ""
    dtype: str = ""

    def kept(self) -> dict[str, Any]:
        """Return what a file says of it, as plain values."""
        return {key: value for key, value in asdict(self).items() if key not in NOT_FITTED}

    def require(self, works: Sequence[Work]) -> None:
        """Raise Unmeasured for the first call outside what was measured."""
        needs = max(work.flops for work in works), max(work.moved for work in works)
        for work in works:
            for what, value, (low, high) in (("operations", work.flops, self.flops), ("bytes", work.moved, self.moved)):
                if not low <= value <= high:
                    raise Unmeasured(
                        f"a call of {value:.3g} {what}: {self.file or 'this machine'} was measured from {low:.3g} to "
                        f"{high:.3g}; nothing is known beyond",
                        needs,
                    )

    def seconds(self, work: Work) -> float:
        """Return the predicted seconds of a call; raise Unmeasured for one outside what was measured."""
        self.require([work])
        return self.machine.seconds(work)

    def total(self, first: Work, last: Work, count: int) -> float:
        """Return the predicted seconds of calls that grow evenly; raise Unmeasured for one beyond what was measured."""
        self.require([first, last])
        return self.machine.total(first, last, count)

    def split(self, parts: Mapping[str, Work]) -> dict[str, float]:
        """Return the predicted seconds of a call by part; raise Unmeasured for one outside what was measured."""
        self.require([sum(parts.values(), Work())])
        return self.machine.split(parts)


def timed(shape: ModelShape, call: Call, seconds: float) -> Timed:
    """Return a call of a shape with the time that it took."""
    return Timed(call=call, work=work_of(shape, call), seconds=seconds)


def fit(measured: Sequence[Timed], held_out: Sequence[Timed]) -> Fit:
    """Return the machine that comes nearest to what was measured, by ratio, and how far it is off what was held out.

    Raises ConfigError for fewer than 12 calls.
    """
    if len(measured) < LEAST or not held_out:
        raise ConfigError(f"{len(measured)} calls were measured: at least {LEAST}, and one to hold out, tell a machine")
    machine = _nearest(measured)
    errors = [abs(machine.seconds(one.work) / one.seconds - 1) for one in held_out]
    every = [*measured, *held_out]
    return Fit(
        machine=machine,
        calls=len(measured),
        median_error=median(errors),
        worst_error=max(errors),
        flops=_range([one.work.flops for one in every]),
        moved=_range([one.work.moved for one in every]),
    )


def _nearest(measured: Sequence[Timed]) -> Machine:
    """Return the rates and the overhead with the least squares of logarithms of predicted over measured time."""
    import numpy as np
    from scipy.optimize import least_squares

    flops = np.array([one.work.flops for one in measured])
    moved = np.array([one.work.moved for one in measured])
    taken = np.array([one.seconds for one in measured])

    def off(logarithms: np.ndarray) -> np.ndarray:
        rate, bandwidth, overhead = np.exp(logarithms)
        return np.log((np.maximum(flops / rate, moved / bandwidth) + overhead) / taken)

    # No call computes or reads faster than the machine, and none takes less than what every call loses.
    begin = np.log([(flops / taken).max(), (moved / taken).max(), taken.min() / 2])
    rate, bandwidth, overhead = np.exp(least_squares(off, begin, loss="soft_l1", f_scale=0.1).x)
    return Machine(flops=float(rate), bandwidth=float(bandwidth), overhead_s=float(overhead), source="measured here")


def _range(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)
