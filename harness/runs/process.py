"""Which process did something, told so that others find out whether it is still there; and workers that end in time."""

import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

_LOOK_S = 0.5
_GRACE_S = 10.0
"""Seconds in which an interrupted worker may write what it has decoded."""


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


def end_with_parent() -> None:
    """Have a process that Python started for another one end with it: interrupted first, for good soon after.

    Of itself a worker of joblib carries out what is queued and waits five minutes for more, whoever is there to ask.
    """
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None:
        return
    if os.getppid() != parent.pid:
        os._exit(1)
    _watch(parent.pid)


@cache
def _watch(parent: int) -> None:
    threading.Thread(target=_outlive, args=(parent,), daemon=True).start()


def _outlive(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(_GRACE_S)
    os._exit(1)


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
