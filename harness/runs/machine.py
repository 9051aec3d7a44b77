"""What the machine did while a run measured: who else used it, what it took, and whether it held its clocks back.

NVML tells it of a card (extra `energy`), the system of processors. What cannot be read is None, never zero.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

_LOG = logging.getLogger(__name__)

OTHERS = 0.1
"""The machine is busy where other processes took more than this share of the time of the processors we may use."""

BUSY = "other processes used the machine while this was timed (busy); seconds and energy are not this run's alone"
"""What a timed run says of a busy machine."""

_LEAST_S = 0.2
"""Shorter regions are as long as a few ticks of the system's clock of processors, which then says nothing."""

_HELD_BACK = 0x04 | 0x08 | 0x20 | 0x40 | 0x80
"""Reasons for which NVML says that clocks are held back: power cap, slowdown of the board, heat, power brake."""


@dataclass(kw_only=True)
class Observed:
    """What was seen of a region; the names are those of the columns of a run."""

    throttled: bool | None = None
    busy: bool | None = None
    energy_joules: float | None = None


@contextmanager
def observed(device: torch.device | None) -> Iterator[Observed]:
    """Observe the machine that a region computes on, to be read when the region is over; None: it is not this one."""
    found = Observed()
    if device is None:
        yield found
    elif device.type == "cuda":
        card = _Card(device)
        throttled, busy, joules = card.throttled(), card.busy(), card.joules()
        yield found
        found.throttled, found.busy = _either(throttled, card.throttled()), _either(busy, card.busy())
        after = card.joules()
        found.energy_joules = None if joules is None or after is None else after - joules
    else:
        before = _processors()
        yield found
        found.busy = _busy(before, _processors())


def _either(before: bool | None, after: bool | None) -> bool | None:
    return None if before is None or after is None else before or after


class _Card:
    """A card as NVML knows it; each question is None where it does not answer."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._nvml, self._handle = _asked(device, lambda: _handle_of(device)) or (None, None)

    def throttled(self) -> bool | None:
        """Say whether clocks are held back now."""
        reasons = self._asked("nvmlDeviceGetCurrentClocksEventReasons")
        return None if reasons is None else bool(reasons & _HELD_BACK)

    def busy(self) -> bool | None:
        """Say whether another process computes on the card; in a container ours may have a number unknown to us."""
        processes = self._asked("nvmlDeviceGetComputeRunningProcesses")
        if processes is None:
            return None
        others = [one for one in processes if one.pid != os.getpid()]
        return len(others) > (len(others) == len(processes))

    def joules(self) -> float | None:
        """Return what the card has taken since its driver was loaded, all work that was given to it being done."""
        if self._handle is not None:
            torch.cuda.synchronize(self._device)
        millijoules = self._asked("nvmlDeviceGetTotalEnergyConsumption")
        return None if millijoules is None else millijoules / 1000

    def _asked(self, question: str) -> Any:
        return (
            None if self._handle is None else _asked(self._device, lambda: getattr(self._nvml, question)(self._handle))
        )


def _handle_of(device: torch.device) -> tuple[Any, Any]:
    import pynvml

    pynvml.nvmlInit()
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    return pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid)


def _asked(device: torch.device, question: Callable[[], Any]) -> Any:
    try:
        return question()
    except Exception as error:
        # A package that is not installed, a driver or a card that does not know, a container that may not ask.
        _LOG.info("the state of %s cannot be read: %s", device, error)
        return None


@dataclass(frozen=True)
class _Processors:
    """Seconds: of the clock, and that the processors which we may use have worked, for anybody and for us."""

    clock_s: float
    all_s: float
    ours_s: float
    number: int


def _processors() -> _Processors:
    import psutil

    times = psutil.cpu_times(percpu=True)
    may_use = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(len(times))
    mine = [one for at, one in enumerate(times) if at in may_use] or times
    # Time of guests is in that of their hosts, and waiting for disks is no work.
    idle = ("idle", "iowait", "guest", "guest_nice")
    worked = sum(sum(one) - sum(getattr(one, name, 0.0) for name in idle) for one in mine)
    ours = os.times()
    own = ours.user + ours.system + ours.children_user + ours.children_system
    return _Processors(time.perf_counter(), worked, own, len(mine))


def _busy(before: _Processors, after: _Processors) -> bool | None:
    elapsed_s = after.clock_s - before.clock_s
    if elapsed_s < _LEAST_S:
        return None
    others_s = (after.all_s - before.all_s) - (after.ours_s - before.ours_s)
    return others_s > OTHERS * elapsed_s * after.number
