"""Which processes of this machine belong to a test: those that work in its folder."""

import os
import time
from contextlib import suppress
from pathlib import Path


def working_in(folder: Path) -> list[int]:
    """Return the numbers of the processes, but this one, whose working folder it is, or lies in it."""
    found = []
    for one in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (one / "cwd").readlink().is_relative_to(folder) and _lives(one):
                found.append(int(one.name))
    return [number for number in found if number != os.getpid()]


def wait_for_end(folder: Path) -> None:
    """Return once no other process works in a folder; how long that may take is the test's time limit."""
    while working_in(folder):
        time.sleep(0.05)


def _lives(process: Path) -> bool:
    return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
