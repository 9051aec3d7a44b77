"""Bounds that the kernel itself keeps on all processes of a program: a control group of its own for each program.

Version 2 (Documentation/admin-guide/cgroup-v2.rst in Linux). Groups are made below the nearest group around this
process that hands out memory and pids and lets us write; this process stays where it is. As an ordinary user one gets
there by `systemd-run --user --scope`; root is there wherever the hierarchy is not mounted read-only.
"""

import contextlib
import os
import secrets
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks.code.sandbox.verdict import Limits

_CONTROLLERS = {"memory", "pids"}
ATTENDANTS = 3
"""The processes that start a program, it included: they count where the kernel does."""

# What they and the kernel take for it, besides the program.
_ATTENDANCE_BYTES = 64 << 20
_DYING_S, _TICK_S = 1.0, 0.002


@dataclass(frozen=True, kw_only=True)
class Group:
    """The processes of one program, measured by the kernel, those that have ended included."""

    folder: Path
    door: int
    """A descriptor: a process that writes 0 to it enters, whatever it may do by itself."""

    def cpu_s(self, pids: list[int]) -> float:
        """Return the CPU time of all, whoever is alive."""
        return _numbers(self.folder / "cpu.stat")["usage_usec"] / 1e6

    def lacks_memory(self, pids: list[int], limit: int) -> bool:
        """Tell whether the kernel has had to kill them."""
        return _numbers(self.folder / "memory.events")["oom_kill"] > 0


@dataclass(frozen=True, kw_only=True)
class Groups:
    """A group in which others can be made; `make` and `remove` are mkdir and rmdir wherever the kernel is behind it."""

    root: Path
    make: Callable[[Path], None] = os.mkdir
    remove: Callable[[Path], None] = os.rmdir

    @contextlib.contextmanager
    def group(self, limits: Limits) -> Iterator[Group]:
        """Make a group within limits, and remove it with all that is in it; OSError if it cannot be made."""
        folder = self.root / f"decbench-{os.getpid()}-{secrets.token_hex(4)}"
        self.make(folder)
        try:
            for file, value in _bounds(limits).items():
                (folder / file).write_text(str(value))
            with open(folder / "cgroup.procs", "w") as procs:
                yield Group(folder=folder, door=procs.fileno())
        finally:
            self._end(folder)

    def hold(self) -> bool:
        """Try them: make a group, read its bounds back, move a process into it, end both."""
        with contextlib.suppress(OSError), self.group(Limits()) as group:
            texts = {file: (group.folder / file).read_text().strip() for file in _bounds(Limits())}
            _ = group.cpu_s([]), group.lacks_memory([], 0)
            with subprocess.Popen(["/bin/sleep", "60"]) as process:
                try:
                    (group.folder / "cgroup.procs").write_text(str(process.pid))
                    inside = (group.folder / "cgroup.procs").read_text().split()
                finally:
                    process.kill()
            bounds = {file: str(value) for file, value in _bounds(Limits()).items()}
            return inside == [str(process.pid)] and texts == bounds
        return False

    def _end(self, folder: Path) -> None:
        """Kill what is in a group, wait until it is empty, and remove it; warn if it stays."""
        with contextlib.suppress(OSError):
            # Linux 5.14; before that, the session's end has to do.
            (folder / "cgroup.kill").write_text("1")
        limit = time.monotonic() + _DYING_S
        while True:
            try:
                return self.remove(folder)
            except OSError as error:
                if time.monotonic() > limit:
                    return warnings.warn(f"sandbox: the control group {folder} is left behind: {error}", stacklevel=2)
            time.sleep(_TICK_S)


def find(about: Path = Path("/proc/self")) -> Groups | None:
    """Return the nearest group around this process in which groups can be made that hold, or None."""
    found = (Groups(root=folder) for folder in around(about) if _hands_out(folder))
    return next((groups for groups in found if groups.hold()), None)


def around(about: Path) -> Iterator[Path]:
    """Yield the groups around a process, the nearest first, as far as they are mounted; `about` is its /proc folder."""
    try:
        own = next(line[3:] for line in (about / "cgroup").read_text().splitlines() if line.startswith("0::"))
        mounts = [line.split() for line in (about / "mountinfo").read_text().splitlines()]
        top, place = next((m[3], m[4]) for m in mounts if m[m.index("-") + 1] == "cgroup2")
        inner = Path(own).relative_to(top)
    except (OSError, StopIteration, ValueError):
        return
    for folder in (inner, *inner.parents):
        yield Path(place) / folder


def _hands_out(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return set((folder / "cgroup.subtree_control").read_text().split()) >= _CONTROLLERS
    return False


def _bounds(limits: Limits) -> dict[str, int]:
    """Return what is written into a group. Its memory holds the files of a folder that lies in memory, too."""
    return {
        "memory.max": limits.memory_bytes + limits.work_bytes + _ATTENDANCE_BYTES,
        "memory.swap.max": 0,
        "memory.oom.group": 1,
        "pids.max": limits.processes + ATTENDANTS,
    }


def _numbers(file: Path) -> dict[str, int]:
    return {name: int(number) for name, number in map(str.split, file.read_text().splitlines())}
