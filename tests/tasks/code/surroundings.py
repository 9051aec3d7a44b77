"""What of this machine hostile programs go for, and those that do."""

import json
import os
import pickle
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.tasks.code.hostile import CORRECT, DENIED, PASSED, REFUSED, Hostile, end

_READ_ONLY = ("error:PermissionError", "error:OSError")
_ABSENT = ("error:FileNotFoundError",)
_FIRST_ORDINARY = 40_000
Result = TypeVar("Result")


def as_ordinary(job: Callable[[], Result]) -> Result:
    """Do a job in a copy of this process that belongs to an ordinary user, root's to one that nobody else is."""
    with tempfile.TemporaryFile() as result:
        copy = os.fork()
        if copy == 0:
            try:
                if os.geteuid() == 0:
                    user = _FIRST_ORDINARY + os.getpid() % 10_000
                    os.setgroups([])
                    os.setgid(user)
                    os.setuid(user)
                result.write(pickle.dumps(job()))
                result.flush()
            finally:
                os._exit(0)
        os.waitpid(copy, 0)
        result.seek(0)
        return pickle.load(result)


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What of this machine the programs go for; all of it lies open to every user."""

    folder: Path
    tcp: socket.socket
    udp: socket.socket
    unix: socket.socket
    datagrams: socket.socket

    def untouched(self) -> bool:
        """Whether every file is as it was and nobody has connected."""
        for listener in (self.tcp, self.udp, self.unix, self.datagrams):
            try:
                listener.accept() if listener in (self.tcp, self.unix) else listener.recv(1)
            except BlockingIOError:
                continue
            return False
        names = sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*"))
        return names == ["datagrams", "kept", "kept/file", "secret", "socket"] and not self.outside.exists()

    @property
    def outside(self) -> Path:
        """A file in the machine's folder for temporary files, which is not there."""
        return Path(f"{self.folder}-outside")


@contextmanager
def surroundings() -> Iterator[Surroundings]:
    """Set out the bait."""
    with tempfile.TemporaryDirectory(prefix="bait-") as name:
        folder = Path(name)
        (folder / "secret").write_text("secret")
        (folder / "kept").mkdir()
        (folder / "kept" / "file").touch()
        for path in (folder, folder / "kept"):
            os.chmod(path, 0o777)
        inet, local, stream = socket.AF_INET, socket.AF_UNIX, socket.SOCK_STREAM
        kinds = (inet, stream), (inet, socket.SOCK_DGRAM), (local, stream), (local, socket.SOCK_DGRAM)
        with ExitStack() as stack:
            tcp, udp, unix, datagrams = (stack.enter_context(socket.socket(*kind)) for kind in kinds)
            tcp.bind(("127.0.0.1", 0))
            udp.bind(("127.0.0.1", 0))
            unix.bind(str(folder / "socket"))
            datagrams.bind(str(folder / "datagrams"))
            for name in ("socket", "datagrams"):
                os.chmod(folder / name, 0o777)
            for listener in (tcp, unix):
                listener.listen()
            for listener in (tcp, udp, unix, datagrams):
                listener.setblocking(False)
            yield Surroundings(folder=folder, tcp=tcp, udp=udp, unix=unix, datagrams=datagrams)


def reaching_out(near: Surroundings) -> dict[str, Hostile]:
    """Return the programs that go for what is outside; without isolation many of them succeed."""
    secret, kept, outside = (json.dumps(str(p)) for p in (near.folder / "secret", near.folder / "kept", near.outside))
    tcp, udp = near.tcp.getsockname()[1], near.udp.getsockname()[1]
    # A home that is not there, or is the whole tree, would be no bait.
    home_folder = Path.home() if Path.home().is_dir() and Path.home() != Path("/") else near.folder
    unix, home = (json.dumps(str(p)) for p in (near.folder / "socket", home_folder))
    datagrams, harness = json.dumps(str(near.folder / "datagrams")), os.getpid()
    denied_or_absent = end("error:PermissionError", bubblewrap=_ABSENT)
    rows = {
        "daemon": (
            "import os, time\nif os.fork() == 0:\n    try: os.setsid()\n    except OSError: pass\n"
            "    if os.fork() == 0: time.sleep(60)\n    os._exit(0)\ntime.sleep(0.5)" + CORRECT,
            end("passed"),
        ),
        "writes_to_etc": ("open('/etc/x', 'w')", end(*_READ_ONLY, bubblewrap=(*_ABSENT, "error:OSError"))),
        # In a file tree of its own, it may be that the machine's folder for temporary files is not there.
        "writes_outside": (
            f"open({outside}, 'w').write('x')" + CORRECT,
            end(*_READ_ONLY, bubblewrap=("passed", *_ABSENT)),
        ),
        "reads_secret": (f"open({secret}).read()", denied_or_absent),
        "reads_home": (f"import os; os.listdir({home})", denied_or_absent),
        "reads_environment_of_parent": (
            "import os; open(f'/proc/{os.getppid()}/environ').read()",
            end("error:PermissionError", bubblewrap=("error:PermissionError", "passed", *_ABSENT)),
        ),
        "removes_tree": (
            f"import shutil; shutil.rmtree({kept})",
            end(*_READ_ONLY, bubblewrap=_ABSENT),
        ),
        "changes_modes": (
            f"import os; os.chmod({kept}, 0)",
            end(*_READ_ONLY, bubblewrap=_ABSENT),
        ),
        "tcp": (f"import socket; socket.create_connection(('127.0.0.1', {tcp}))", DENIED),
        "udp": (
            f"import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {udp}))",
            DENIED,
        ),
        "unix_socket": (f"import socket; socket.socket(socket.AF_UNIX).connect({unix})", DENIED),
        "pair_of_datagram_sockets": (
            "import socket\none, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
            f"one.sendto(b'x', {datagrams})",
            DENIED,
        ),
        "fills_other_folders": (
            "written = 0\nfor n, folder in enumerate(['/dev/shm', '/dev', '/run', '/var/tmp', '/tmp', '.']):\n"
            "    for i in range(60):\n        try:\n"
            "            with open(f'{folder}/{n}-{i}', 'wb') as out: out.write(bytes(1 << 20)); written += 1\n"
            "        except OSError: break\nassert written <= 16" + CORRECT,
            end("output_limit", bubblewrap=("passed",), namespaces=("passed",)),
        ),
        "renices_harness": (f"import os; os.setpriority(os.PRIO_PROCESS, {harness}, 10)", DENIED),
        "renices_user": ("import os; os.setpriority(os.PRIO_USER, 0, 10)", DENIED),
        "pins_harness": (f"import os; os.sched_setaffinity({harness}, {{0}})", DENIED),
        "reschedules_harness": (
            f"import os; os.sched_setscheduler({harness}, os.SCHED_IDLE, os.sched_param(0))",
            DENIED,
        ),
        "slows_disk_of_harness": (REFUSED.format(call=f"libc.syscall(251, 1, {harness}, 3 << 13)"), PASSED),
        "kills_harness": (
            f"import os; os.kill({harness}, 9)",
            end(*("error:PermissionError", "error:ProcessLookupError")),
        ),
        "kills_parent": (
            "import os; os.kill(os.getppid(), 9)" + CORRECT,
            end("error:PermissionError", bubblewrap=("passed",), namespaces=("passed", "error:PermissionError")),
        ),
        "kills_everything": (
            "import os; os.kill(-1, 9)" + CORRECT,
            end(
                *("passed", "error:PermissionError"),
                bubblewrap=("error:ProcessLookupError",),
                namespaces=("error:ProcessLookupError", "error:PermissionError"),
            ),
        ),
        "traces_parent": (
            "import ctypes, os; assert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0",
            end("wrong_answer"),
        ),
        "limits_parent": (
            "import os, resource; resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))",
            DENIED,
        ),
        "looks_for_environment": ("import os; assert 'HARNESS_MARKER' not in os.environ" + CORRECT, end("passed")),
    }
    return {name: Hostile(program=program, ends=ends) for name, (program, ends) in rows.items()}
