"""Names of what computes."""

import platform
from functools import cache
from pathlib import Path

import torch


def device_name(device: str) -> str:
    """Return the name of the processor or card that computes; its wall times compare with its own only."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return cpu_model()


@cache
def cpu_model() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
