"""Names of what computes."""

import platform
from functools import cache
from pathlib import Path

import torch

from harness.errors import ConfigError


def require(device: str, key: str = "device.device") -> None:
    """Raise ConfigError for CUDA where there is none, or not this card; `key` is what a user says it by."""
    asked, cards = torch.device(device), torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked.type == "cuda" and not cards:
        raise ConfigError(f"{key}={device}: this machine has no usable CUDA device; use device=cpu")
    if asked.type == "cuda" and asked.index is not None and asked.index >= cards:
        raise ConfigError(f"{key}={device}: this machine has {cards} CUDA devices; use device=cuda:{cards - 1}")


def device_name(device: str) -> str:
    """Return the name of the processor or card that computes; its wall times compare with its own only.

    Raises ConfigError as `require` does.
    """
    require(device)
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
