"""The command and the request that start one program at one tier."""

import marshal
import os
import shutil
import subprocess
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from tasks.code.sandbox import cgroup, interpreter, kernel
from tasks.code.sandbox.verdict import Limits, Tier

_MODULES = ("kernel", "forks", "inside")
_COMPILE = """import marshal, sys
texts = marshal.loads(sys.stdin.buffer.read())
code = {name: compile(text, name, "exec", dont_inherit=True) for name, text in texts.items()}
sys.stdout.buffer.write(marshal.dumps(code))
"""
_BOOTSTRAP = """import marshal, sys
code, request = marshal.loads(sys.stdin.buffer.read())
for name in ("tasks", "tasks.code", "tasks.code.sandbox"):
    sys.modules[name] = type(sys)(name)
for name, code in marshal.loads(code).items():
    module = type(sys)(name)
    # With builtins of its own, out of the sight of programs that replace theirs.
    module.__builtins__ = dict(vars(__builtins__))
    setattr(sys.modules["tasks.code.sandbox"], name, module)
    exec(code, module.__dict__)
module.main(request)
"""
_OPTIONS = ("-S", "-s", "-B")
_SYSTEM_FOLDERS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_LOADER_FILES = ("/etc/ld.so.cache", "/etc/localtime")
_DEVICES = ("/dev/null", "/dev/urandom")
PORTABLE = 2
"""The version of marshal's format that every Python 3 reads, code excepted."""

PRIVATE = "/box"
"""The only folder to which a program in bubblewrap can write."""

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}
"""All that a program sees; the fixed seed gives sets of texts one order, so that verdicts repeat."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the kernel and the system offer: version of Landlock (0: none), call filter, path of bubblewrap.

    `groups`: control groups that bound a program as a whole; None: the harness adds up what its processes use.
    """

    landlock_abi: int
    filters: bool
    bubblewrap: str | None
    groups: cgroup.Groups | None = None

    @staticmethod
    @cache
    def here() -> "Machine":
        """Look at this machine, once."""
        return Machine(
            landlock_abi=kernel.landlock_abi(),
            filters=kernel.can_filter(),
            bubblewrap=shutil.which("bwrap"),
            groups=cgroup.find(),
        )

    def lacks(self, tier: Tier) -> str | None:
        """Say what a tier needs and this machine does not have, or None."""
        if tier is Tier.LIMITS:
            return None
        if not self.filters:
            return "system calls cannot be filtered here"
        if tier is Tier.BUBBLEWRAP:
            return None if self.bubblewrap else "bubblewrap is not installed"
        return None if self.landlock_abi else "the kernel has no Landlock"


def command(tier: Tier, machine: Machine, limits: Limits) -> list[str]:
    """Return the arguments that start a sandboxed interpreter in the current folder."""
    python = interpreter.find()
    start = [python.path, *_OPTIONS, "-c", _BOOTSTRAP]
    if tier is not Tier.BUBBLEWRAP:
        return start
    assert machine.bubblewrap is not None
    return [machine.bubblewrap, *_bubblewrap(python.prefix, limits), *start]


def request(tier: Tier, machine: Machine, limits: Limits, *, user: int | None) -> dict[str, Any]:
    """Return what the sandboxed interpreter is asked to do before it runs a program."""
    bare = tier in (Tier.LANDLOCK, Tier.LIMITS)
    scoped = not bare or (tier is Tier.LANDLOCK and machine.landlock_abi >= kernel.SCOPED_SIGNALS_ABI)
    only_self = kernel.LIMITS_OF_OTHERS if scoped else kernel.LIMITS_OF_OTHERS | kernel.SIGNALS
    denied = kernel.DENIED | (kernel.METADATA if bare else {}) | ({} if scoped else kernel.PIDFD_SIGNALS)
    shared = bare and user is None
    present = _processes_of(os.getuid()) if shared else cgroup.ATTENDANTS
    python = interpreter.find()
    return {
        "limits": asdict(limits) | {"processes": limits.processes + present},
        "namespaces": tier is Tier.NAMESPACES,
        "landlock_abi": machine.landlock_abi if tier in (Tier.NAMESPACES, Tier.LANDLOCK) else 0,
        "readable": ["/usr", *_SYSTEM_FOLDERS, *_LOADER_FILES, python.prefix, python.path],
        "only_self": only_self,
        "denied": denied if machine.filters else None,
        "counted": limits.processes if shared and machine.filters else 0,
    }


@cache
def code() -> bytes:
    """Return what a sandboxed interpreter executes first, compiled by one of its kind: it starts a third faster so."""
    here = files("tasks.code.sandbox")
    texts = {name: here.joinpath(f"{name}.py").read_text("utf-8") for name in _MODULES}
    compiler = [interpreter.find().path, *_OPTIONS, "-c", _COMPILE]
    asked = marshal.dumps(texts, PORTABLE)
    return subprocess.run(compiler, input=asked, env=ENVIRONMENT, stdout=subprocess.PIPE, check=True).stdout


def _bubblewrap(prefix: str, limits: Limits) -> list[str]:
    arguments = ["--unshare-all", "--unshare-user", "--as-pid-1", "--die-with-parent", "--cap-drop", "ALL"]
    arguments += ["--uid", "65534", "--gid", "65534", "--ro-bind", "/usr", "/usr"]
    for folder in map(Path, _SYSTEM_FOLDERS):
        if folder.is_symlink():
            arguments += ["--symlink", os.readlink(folder), str(folder)]
        elif folder.is_dir():
            arguments += ["--ro-bind", str(folder), str(folder)]
    for path in (*_LOADER_FILES, prefix):
        if not path.startswith("/usr"):
            arguments += ["--ro-bind-try", path, path]
    arguments += ["--proc", "/proc", "--dir", "/dev"]
    # Not --dev, whose folder and /dev/shm are without bounds.
    for path in _DEVICES:
        arguments += ["--dev-bind", path, path]
    arguments += ["--size", str(limits.work_bytes), "--tmpfs", PRIVATE, "--symlink", PRIVATE, "/tmp"]
    return [*arguments, "--remount-ro", "/", "--chdir", PRIVATE]


def _processes_of(user: int) -> int:
    """Count the threads of a user, against whose number the kernel holds the process limit."""
    count = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if folder.stat().st_uid == user:
                count += sum(1 for _ in (folder / "task").iterdir())
        except OSError:
            continue
    return count
