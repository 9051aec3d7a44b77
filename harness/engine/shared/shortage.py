"""Errors that say there was not enough memory, for a device's allocator or this machine's."""

import torch

_MESSAGES = ("out of memory", "not enough memory", "can't allocate memory")


def out_of_memory(error: BaseException) -> bool:
    """Say whether a device, or this machine, has not had the memory for a call."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # What the processor's allocator raises has no class of its own.
    return isinstance(error, RuntimeError) and any(one in str(error).lower() for one in _MESSAGES)
