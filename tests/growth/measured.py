"""CPU seconds and memory of one piece of work, in a process of its own that knows all modules already."""

import ctypes
import gc
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

_AT_LEAST_S, _MOST_ROUNDS = 0.4, 5
_PEAK, _NOW = "VmHWM:", "VmRSS:"

Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """CPU seconds, the least of some rounds, and the bytes by which the first of them raised what the process held."""

    seconds: float
    memory_bytes: int


Prepared = Callable[[], Callable[[], object]]
"""What is done before the clock starts; it returns what is measured."""


def measured(prepare: Prepared, warm: Prepared, *, rounds: int = _MOST_ROUNDS) -> Measured:
    """Return what work takes, after the work of `warm`, in at most so many rounds, in a process of its own."""
    return in_a_fork(partial(_measured, prepare, warm, rounds))


def in_a_fork(act: Callable[[], Made]) -> Made:
    """Return what is made in a fork of this process; raises RuntimeError if it fails there.

    A fork has all that was imported, and hands back all memory when it ends. It has none of this process's threads:
    those of Arrow begin when it is first used, which has to be in a fork, too.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_told, args=(act, theirs))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    except EOFError:
        raise RuntimeError("the work failed in its process, which has said why") from None
    finally:
        process.join()


def _told(act: Callable[[], object], there: Connection) -> None:
    there.send(act())


def _measured(prepare: Prepared, warm: Prepared, most: int) -> Measured:
    # What is imported, filled and remembered once is nobody's growth.
    warm()()
    work = prepare()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    before = _held(_NOW)
    rounds = [_seconds(work)]
    memory = _held(_PEAK) - before
    while sum(rounds) < _AT_LEAST_S and len(rounds) < most:
        rounds.append(_seconds(work))
    return Measured(seconds=min(rounds), memory_bytes=memory)


def _seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _held(which: str) -> int:
    """Return bytes of resident memory of this process."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return 1024 * int(line.split()[1])
