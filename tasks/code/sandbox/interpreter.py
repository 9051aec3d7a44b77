"""Which Python runs the programs, as which user."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from harness.errors import ConfigError

_QUESTION = "import sys, ctypes, resource; print(sys.version.split()[0], sys.base_prefix, sep='\\n')"
_OLDEST = (3, 9)
# A range that distributions leave to users made up on the spot (systemd's DynamicUser draws from it).
_FIRST_USER, _USERS = 61184, 4000
_numbers = itertools.count(os.getpid() * 61)


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """A Python that a sandboxed user can start: its path, version and the folder of its standard library."""

    path: str
    version: str
    prefix: str


def next_user() -> int | None:
    """Return a user id of its own for one program if this process is root, else None.

    So programs that run side by side share no process limit and cannot signal each other, and root's rights, which
    some limits do not bind, are gone before anything else happens.
    """
    return _FIRST_USER + next(_numbers) % _USERS if os.geteuid() == 0 else None


def identity(user: int | None) -> dict[str, object]:
    """Return the arguments of Popen that start a process as `user` (None: as we are)."""
    return {} if user is None else {"user": user, "group": user, "extra_groups": []}


@cache
def find() -> Interpreter:
    """Return the Python of this environment if the sandboxed user can start it, else the machine's.

    Raises ConfigError where there is none.
    """
    for path in dict.fromkeys(_candidates()):
        try:
            done = subprocess.run(
                [path, "-I", "-S", "-c", _QUESTION],
                **identity(next_user()),  # type: ignore[arg-type]
                cwd="/",
                env={},
                capture_output=True,
                check=True,
                text=True,
                timeout=60,
            )
        except (OSError, subprocess.SubprocessError):
            continue
        version, prefix = done.stdout.splitlines()
        if tuple(int(part) for part in version.split(".")[:2]) >= _OLDEST:
            return Interpreter(path=path, version=version, prefix=prefix)
    raise ConfigError(
        "sandbox: no Python that an unprivileged user can start; install one for all users (such as "
        "/usr/bin/python3), or run decbench as the user to whom its Python belongs"
    )


def _candidates() -> Iterator[str]:
    yield os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    yield from ("/usr/bin/python3", "/usr/local/bin/python3")
