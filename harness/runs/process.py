"""Which process did something, told so that others find out whether it is still there."""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path


def this_process() -> dict[str, object]:
    """Return what tells this process from all others, of this machine and of others."""
    return {"machine": _machine(), "pid": os.getpid(), "started": _started(os.getpid())}


def has_ended(process: Mapping[str, object]) -> bool | None:
    """Say whether a process, as `this_process` tells it, is gone; None where this machine cannot know."""
    if process["machine"] != _machine():
        return None
    pid = process["pid"]
    assert isinstance(pid, int)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return _started(pid) != process["started"]


def _machine() -> str:
    """Return a name of this machine and of the container in it: numbers of processes mean something there only."""
    namespace = ""
    with suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    return f"{socket.gethostname()} {namespace}".strip()


def _started(pid: int) -> str | None:
    """Return when a process started, in the kernel's ticks, since numbers are used again; None where nobody tells."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state == "Z" else rest[18]
