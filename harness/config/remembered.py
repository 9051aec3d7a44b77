"""Values that follow from a file's content, kept between processes under the file's path, size, mtime and inode.

Hashing a checkpoint of 16 GB takes half a minute, parsing the modules of a run half a second. Where the cache folder
cannot be written, values are worked out anew every time; nothing else depends on it.
"""

import os
import sqlite3
from collections.abc import Callable
from functools import cache
from pathlib import Path

from harness import files

_TIMEOUT_S = 5.0
_TABLE = (
    "create table if not exists remembered"
    " (kind text, path text, size integer, mtime_ns integer, inode integer, value text, primary key (kind, path))"
)


def remembered(kind: str, file: Path, work_out: Callable[[Path], str]) -> str:
    """Return `work_out(file)`, or what it returned when the file had this state; `kind` names the function."""
    status = file.stat()
    return _remembered(kind, file.absolute(), (status.st_size, status.st_mtime_ns, status.st_ino), work_out)


@cache
def _remembered(kind: str, file: Path, state: tuple[int, int, int], work_out: Callable[[Path], str]) -> str:
    known = _look_up(kind, file, state)
    if known is None:
        known = work_out(file)
        _keep(kind, file, state, known)
    return known


def cache_file() -> Path:
    """Return the file of the cache, in the user's folder for such things."""
    return files.cache_folder() / "digests.sqlite"


def _look_up(kind: str, file: Path, state: tuple[int, int, int]) -> str | None:
    question = "select value from remembered where kind=? and path=? and size=? and mtime_ns=? and inode=?"
    try:
        found = _opened(cache_file(), os.getpid()).execute(question, (kind, str(file), *state)).fetchone()
    except (OSError, sqlite3.Error):
        return None
    return found[0] if found else None


def _keep(kind: str, file: Path, state: tuple[int, int, int], value: str) -> None:
    try:
        with _opened(cache_file(), os.getpid()) as store:
            store.execute(
                "insert or replace into remembered values (?, ?, ?, ?, ?, ?)", (kind, str(file), *state, value)
            )
    except (OSError, sqlite3.Error):
        return


@cache
def _opened(file: Path, process: int) -> sqlite3.Connection:
    """Return the connection of a process; a fork cannot use that of its parent."""
    file.parent.mkdir(parents=True, exist_ok=True)
    store = sqlite3.connect(file, timeout=_TIMEOUT_S, check_same_thread=False)
    # What a crash takes from a cache is worked out anew; waiting for the disk at every value took longer than parsing.
    store.execute("pragma synchronous = off")
    store.execute(_TABLE)
    return store
