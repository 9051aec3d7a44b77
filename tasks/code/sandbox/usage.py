"""What the processes of a program use together, as the kernel tells others; a program has no say in it.

A Meter tells of CPU time and memory: by Sums over processes here, or by a control group (cgroup.py).
"""

import contextlib
import os
import re
from dataclasses import dataclass, field
from typing import Protocol

_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_HELD = re.compile(rb"^(?:RssAnon|RssShmem|VmSwap|VmPTE):\s*(\d+) kB", re.MULTILINE)
_HELD_ALONE = re.compile(rb"^(?:Pss|SwapPss):\s*(\d+) kB", re.MULTILINE)
# Fields of /proc/PID/stat after the name, counted from 0: proc_pid_stat(5) counts from 1, and the name is the second.
_OWN, _WAITED, _STARTED = slice(11, 13), slice(13, 15), 19


def processes(session: int) -> list[int]:
    """Return the processes of a session, the oldest number first; none where there is no /proc.

    No filtered program can leave its session: setsid is denied.
    """
    found = []
    # A plain loop: every program has the whole machine looked through twice.
    for name in _names("/proc"):
        if name.isdecimal():
            try:
                if os.getsid(pid := int(name)) == session:
                    found.append(pid)
            except OSError:
                continue
    return sorted(found)


def alive(pids: list[int]) -> list[int]:
    """Return those of some processes that still run; one that is dead and not yet waited for does not."""
    return [pid for pid in pids if _stat(pid)[:1] not in ([], [b"Z"], [b"X"])]


class Meter(Protocol):
    """What tells of the processes of one program, of which `pids` are alive; they enter by `door`, if there is one."""

    @property
    def door(self) -> int | None: ...

    def cpu_s(self, pids: list[int]) -> float:
        """Return the CPU time so far, of all that there have been."""
        ...

    def lacks_memory(self, pids: list[int], limit: int) -> bool:
        """Tell whether they hold more memory together than `limit` bytes."""
        ...


@dataclass(kw_only=True)
class Sums:
    """The CPU time of processes that come and go, and the memory of those that are alive.

    Two readings of the time, neither complete: what each process was seen to use, and what those alive and the children
    that they waited for have used. The greater one counts. What the child of a program that ignores the end of its
    children used after the last look, nobody is told; a control group knows.
    """

    seen: dict[tuple[int, int], int] = field(default_factory=dict)
    waited: int = 0
    door: None = None

    def cpu_s(self, pids: list[int]) -> float:
        """Look at the processes that are alive; return the seconds so far, of all."""
        waited = 0
        for pid in pids:
            words = _stat(pid)
            if len(words) > _STARTED:
                own = sum(map(int, words[_OWN]))
                self.seen[pid, int(words[_STARTED])] = own
                waited += own + sum(map(int, words[_WAITED]))
        self.waited = max(self.waited, waited)
        return max(self.waited, sum(self.seen.values())) / _TICKS_PER_S

    def lacks_memory(self, pids: list[int], limit: int) -> bool:
        """Add up what each holds; what several share counts once, which is worked out only where it decides."""
        held = sum(_kib(pid, "status", _HELD) for pid in pids)
        if held * 1024 > limit:
            held = sum(_kib(pid, "smaps_rollup", _HELD_ALONE) or _kib(pid, "status", _HELD) for pid in pids)
        return held * 1024 > limit


def unlinked_bytes(pids: list[int], folder: str) -> int:
    """Return the bytes of files in a folder that have lost their names and are still open or mapped."""
    device, start = os.stat(folder).st_dev, os.fsencode(folder) + b"/"
    sizes: dict[int, int] = {}
    for pid in pids:
        for number in _names(f"/proc/{pid}/fd"):
            try:
                file = os.stat(f"/proc/{pid}/fd/{number}")
            except OSError:
                continue
            if file.st_nlink == 0 and file.st_dev == device:
                sizes[file.st_ino] = file.st_blocks * 512
        for line in _content(pid, "maps").splitlines():
            words = line.split(maxsplit=5)
            if len(words) == 6 and words[5].startswith(start) and words[5].endswith(b" (deleted)"):
                first, last = (int(address, 16) for address in words[0].split(b"-"))
                sizes.setdefault(int(words[4]), last - first)
    return sum(sizes.values())


def files(pids: list[int], folder: str) -> int:
    """Return the files, folders included, of the file system at `folder` as processes in another tree see it."""
    for pid in reversed(pids):
        # The eldest, which started the others, stands outside.
        with contextlib.suppress(OSError):
            if pid != pids[0]:
                about = os.statvfs(f"/proc/{pid}/root{folder}")
                return about.f_files - about.f_ffree
    return 0


def _stat(pid: int) -> list[bytes]:
    """Return the fields behind the name of a process, none if it is gone."""
    return _content(pid, "stat").rpartition(b")")[2].split()


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _content(pid: int, file: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{file}", "rb") as text:
            return text.read()
    except OSError:
        return b""


def _kib(pid: int, file: str, fields: re.Pattern[bytes]) -> int:
    return sum(map(int, fields.findall(_content(pid, file))))
