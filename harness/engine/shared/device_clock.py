"""The clock of a device, read without waiting for the device."""

import time
from typing import Any

import torch


def mark(device: torch.device) -> Any:
    """Return what marks the present place in the device's work: an event of the stream on CUDA, else the time."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def seconds_between(started: Any, ended: Any) -> float:
    """Return the seconds between two marks, which the device must have passed."""
    return ended - started if isinstance(started, float) else started.elapsed_time(ended) / 1e3
