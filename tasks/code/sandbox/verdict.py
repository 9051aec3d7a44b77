"""What a program may use, and what became of it."""

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

    The parent keeps `wall_s`, from the program's first line on, and `output_bytes`; the kernel keeps the rest.
    `work_bytes` and `files` bound the folder that it may write to, `file_bytes` one file in it.
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
    crash or sandbox_error; a program that ends without having reached its last line never passes. `cpu_s` is 0 where
    it was killed. `detail` and `output_tail` (at most 4 KiB) explain. `first` is the status before the second attempt.
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
