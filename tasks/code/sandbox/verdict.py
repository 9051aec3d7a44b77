"""What a program may use, and what became of it."""

import secrets
from dataclasses import dataclass, replace
from enum import Enum


class Tier(Enum):
    """How a program is shut in, from the best to the least; the smaller number isolates more.

    1 bubblewrap: own namespaces and an own file tree. 2 namespaces and Landlock. 3 Landlock and seccomp. 4 resource
    limits: endless programs end, but files and processes of the same user are within reach.
    """

    BUBBLEWRAP = 1
    NAMESPACES = 2
    LANDLOCK = 3
    LIMITS = 4


MINIMUM = Tier.LANDLOCK
"""The least isolation under which output of a model is run without being asked to."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one program may use.

    All its processes together may use `cpu_s`, `memory_bytes` and, of the folder that they may write to, `work_bytes`
    and `files`; one file may hold `file_bytes`, one process have `open_files` open. `wall_s` counts from the program's
    first line on; `output_bytes` are those of standard output and error.
    """

    cpu_s: int = 10
    wall_s: float = 30.0
    memory_bytes: int = 1 << 30
    file_bytes: int = 1 << 20
    work_bytes: int = 16 << 20
    files: int = 4096
    open_files: int = 64
    processes: int = 32
    output_bytes: int = 4 << 20


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The end of one program.

    `status` is passed, wrong_answer, error:<type>, syntax_error, timeout, memory, recursion, output_limit, exited,
    crash or sandbox_error; a program that ends without having reached its last line never passes. `cpu_s` is
    that of all its processes. `detail` and `output_tail` (at most 4 KiB) explain. `first` is the status before the
    second attempt.
    """

    status: str
    tier: Tier
    wall_s: float
    cpu_s: float = 0.0
    detail: str = ""
    output_tail: str = ""
    first: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the last line of the program was reached."""
        return self.status == "passed"

    def after(self, earlier: "Verdict") -> "Verdict":
        """Return this verdict as that of a second attempt."""
        return replace(self, first=earlier.status)


_STATUSES = frozenset({"passed", "wrong_answer", "syntax_error", "memory", "recursion", "exited"})


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a program ended: exit code (less than 0: minus a signal), CPU seconds, and what it left as its verdict.

    `files` are those of the file system in which it worked, whether or not anything else is there.
    """

    code: int
    cpu_s: float
    files: int
    status: str | None
    detail: str


def read_ending(line: str, nonce: str) -> Ending | None:
    """Read the line in which an attendant tells of the end; None if it is not one.

    What the program has written into the memory at the end of the line counts only if it is whole, carries the nonce
    and names a known status: anything else is no verdict.
    """
    words = line.split()
    if len(words) != 5 or words[0] != "ended":
        return None
    left = bytes.fromhex(words[4]).rstrip(b"\0").decode("utf-8", "replace")
    said, status, detail = [*left.split(" ", 2), "", "", ""][:3]
    kind, _, name = status.partition(":")
    known = (status in _STATUSES) if not name else (kind == "error" and name.isprintable())
    counts = known and secrets.compare_digest(said.encode(), nonce.encode())
    return Ending(
        code=int(words[1]),
        cpu_s=float(words[2]),
        files=int(words[3]),
        status=status if counts else None,
        detail=detail.strip(),
    )
