"""The folder in which a program works: made, measured and removed, whatever the program leaves in it."""

import contextlib
import itertools
import os
import secrets
import stat
import tempfile
import warnings
from collections.abc import Iterator

from tasks.code.sandbox.verdict import Limits

_SEARCH = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
# Open folders at a time while measuring: a chain of folders needs one, however long.
_BRANCHES = 64
_ATTEMPTS = 3


@contextlib.contextmanager
def working_folder(user: int | None) -> Iterator[str]:
    """Make an empty folder that belongs to `user`, and remove it with whatever is in it."""
    folder = tempfile.mkdtemp(prefix="decbench-")
    try:
        if user is not None:
            os.chown(folder, user, user)
        yield folder
    finally:
        remove(folder)


def remove(folder: str) -> None:
    """Remove a folder, however deep and however locked by a program of our own user; warn if it cannot be done."""
    for attempt in range(_ATTEMPTS):
        try:
            return _remove(folder)
        except FileNotFoundError:
            return None
        except OSError as error:
            # A process that was killed a moment ago may have finished one last call.
            if attempt == _ATTEMPTS - 1:
                warnings.warn(f"sandbox: {folder} is left behind: {error}", stacklevel=2)
    return None


def _remove(folder: str) -> None:
    """Empty folder after folder, each after its own folders have been moved up to the top: none is ever deep."""
    os.chmod(folder, stat.S_IRWXU)
    new_names = (f"{secrets.token_hex(16)}-{number}" for number in itertools.count())
    with _descriptor(os.open(folder, _SEARCH)) as top:
        while names := os.listdir(top):
            for name in names:
                if _unlocked(name, top):
                    with _descriptor(os.open(name, _SEARCH, dir_fd=top)) as here:
                        for inner in os.listdir(here):
                            if _unlocked(inner, here):
                                os.rename(inner, next(new_names), src_dir_fd=here, dst_dir_fd=top)
                            else:
                                os.unlink(inner, dir_fd=here)
                    os.rmdir(name, dir_fd=top)
                else:
                    os.unlink(name, dir_fd=top)
    os.rmdir(folder)


def _unlocked(name: str, at: int) -> bool:
    """Tell whether `name` is a folder, and make it one that can be searched, emptied and moved."""
    if not stat.S_ISDIR(os.lstat(name, dir_fd=at).st_mode):
        return False
    os.chmod(name, stat.S_IRWXU, dir_fd=at)
    return True


@contextlib.contextmanager
def _descriptor(number: int) -> Iterator[int]:
    try:
        yield number
    finally:
        os.close(number)


def is_full(folder: str, limits: Limits, *, hidden: int = 0) -> bool:
    """Tell whether a folder that the kernel does not bound has outgrown its limits; `hidden` bytes are known of."""
    count, size = 0, hidden
    todo = [(os.open(folder, _SEARCH), ["."])]
    try:
        while todo and count <= limits.files and size <= limits.work_bytes and len(todo) <= _BRANCHES:
            at, names = todo[-1]
            here = _opened(names.pop(), at)
            if not names:
                # Nothing stays open for the last folder's sake.
                os.close(todo.pop()[0])
            if here is not None:
                inner, entries, used = _entries(here, limits.files - count)
                count, size = count + entries, size + used
                if inner:
                    todo.append((here, inner))
                else:
                    os.close(here)
        return bool(todo) or count > limits.files or size > limits.work_bytes
    finally:
        for at, _ in todo:
            os.close(at)


def _opened(name: str, at: int) -> int | None:
    """Open a folder, unless it is gone by now; one that its owner may write to but not list is made to be listed."""
    try:
        return os.open(name, _SEARCH, dir_fd=at)
    except PermissionError:
        with contextlib.suppress(OSError), _descriptor(os.open(name, _SEARCH | os.O_PATH, dir_fd=at)) as place:
            os.chmod(f"/proc/self/fd/{place}", stat.S_IRWXU)
            return os.open(name, _SEARCH, dir_fd=at)
    except OSError:
        pass
    return None


def _entries(here: int, most: int) -> tuple[list[str], int, int]:
    """Return the folders in a folder, the number of its entries, and the bytes of those that are no folders.

    No more than one entry beyond `most` is looked at: a program may make them faster than they are counted.
    """
    folders, count, size = [], 0, 0
    with os.scandir(here) as entries:
        for entry in itertools.islice(entries, most + 1):
            count += 1
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                else:
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
    return folders, count, size
