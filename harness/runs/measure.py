"""What is measured beside the counts, and how: wall and CPU time of generation, peak memory."""

import gc
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import torch

from harness.errors import ConfigError

_LEAST_WARMUP = 2


class Measurement(Enum):
    """`counts`: deterministic counts only; `timed`: seconds besides; `traced`: one row per step besides."""

    COUNTS = "counts"
    TIMED = "timed"
    TRACED = "traced"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """How a run is measured.

    `warmup` samples (at least 2 if timed) are decoded first and not recorded; every sample is then decoded
    `repetitions` times.
    """

    name: Measurement
    warmup: int = 0
    repetitions: int = 1

    def __post_init__(self) -> None:
        for knob, value in (("repetitions", self.repetitions), ("warmup", self.warmup)):
            if not isinstance(value, int) or isinstance(value, bool):
                raise ConfigError(f"measure.{knob}={value}: must be a whole number")
        if self.repetitions < 1:
            raise ConfigError(f"measure.repetitions={self.repetitions}: must be at least 1")
        if self.timed and self.warmup < _LEAST_WARMUP:
            raise ConfigError(f"measure.warmup={self.warmup}: a timed run needs at least {_LEAST_WARMUP} samples")
        if self.warmup < 0:
            raise ConfigError(f"measure.warmup={self.warmup}: must be at least 0")

    @property
    def timed(self) -> bool:
        """Whether seconds are recorded."""
        return self.name is Measurement.TIMED

    @property
    def traced(self) -> bool:
        """Whether steps are recorded."""
        return self.name is Measurement.TRACED


def measure_of(settings: Mapping[str, Any]) -> Measure:
    """Return how a run is measured, by its resolved settings; raise ConfigError for those that cannot be."""
    numbers = {key: value for key, value in settings.items() if key in ("warmup", "repetitions")}
    return Measure(name=Measurement(settings["name"]), **numbers)


class Moment(NamedTuple):
    """Seconds since a region began, by the clock and of the processor."""

    wall_s: float = 0.0
    cpu_s: float = 0.0


@dataclass
class Stopwatch:
    """Seconds of one region, and when things in it happened."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    _started: Moment = field(default_factory=Moment)
    _marks: list[Moment] = field(default_factory=lambda: [Moment()])

    def start(self) -> None:
        """Begin the region."""
        self._started = Moment(time.perf_counter(), time.process_time())

    def now(self) -> Moment:
        """Return the seconds since the region began."""
        return Moment(time.perf_counter() - self._started.wall_s, time.process_time() - self._started.cpu_s)

    def mark(self, calls: int) -> None:
        """Note that the consequences of the first `calls` model calls are done."""
        missing = calls + 1 - len(self._marks)
        if missing > 0:
            self._marks.extend([self.now()] * missing)

    def at(self, calls: int) -> Moment:
        """Return when the consequences of the first `calls` model calls were done; of none, when it began."""
        return self._marks[calls]


@contextmanager
def stopwatch(device: torch.device, *, quiet: bool) -> Iterator[Stopwatch]:
    """Time a region: the device is synchronised at both ends.

    With `quiet` the garbage collector has just run and rests in between. That takes about as long as a small model's
    answer, so it is for seconds that are recorded.
    """
    watch = Stopwatch()
    enabled = quiet and gc.isenabled()
    if quiet:
        gc.collect()
        gc.disable()
    try:
        _synchronise(device)
        watch.start()
        yield watch
        _synchronise(device)
        watch.wall_s, watch.cpu_s = watch.now()
    finally:
        if enabled:
            gc.enable()


@contextmanager
def settled_heap() -> Iterator[None]:
    """Set everything alive apart from the garbage collector, so that collecting before each region takes no time."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak_memory(device: torch.device) -> bool:
    """Start a new high-water mark: of tensors on a GPU, of this process on a CPU; say whether that could be done.

    On a CPU Linux keeps one, which a file of `proc` sets back.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_memory_bytes(device: torch.device) -> int:
    """Return peak memory since the last reset: of tensors on a GPU, of the whole process on a CPU.

    Where nothing was reset it is that since the process began.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        told = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return 1024 * int(told["VmHWM"].split()[0])
