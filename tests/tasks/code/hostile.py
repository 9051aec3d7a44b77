"""Programs that a sandbox must survive, each with what may become of it."""

import json
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.code.sandbox import Tier

CORRECT = "\ndef f(x):\n    return x * x\nassert f(2) == 4\n"
ALL = "any"
"""Stands for every tier that has no entry of its own."""

Expected = Mapping[Any, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Hostile:
    """A program, the statuses it may end in (by tier, or ALL), and the limits that it needs other than default."""

    program: str
    ends: Expected
    limits: dict[str, Any] = field(default_factory=dict)


def _end(*statuses: str, bubblewrap: tuple[str, ...] = (), namespaces: tuple[str, ...] = ()) -> Expected:
    own = {Tier.BUBBLEWRAP: bubblewrap, Tier.NAMESPACES: namespaces}
    return {ALL: statuses} | {tier: others for tier, others in own.items() if others}


_SHORT = {"wall_s": 1.0}
_TIMEOUT = _end("timeout")
_DENIED = _end("error:PermissionError")
_READ_ONLY = ("error:PermissionError", "error:OSError")
_ABSENT = ("error:FileNotFoundError",)

LIMITED: dict[str, Hostile] = {
    name: Hostile(program=program, ends=ends, limits=limits)
    for name, program, ends, limits in (
        ("correct", CORRECT, _end("passed"), {}),
        ("wrong_value", "def f(x):\n    return 3\nassert f(2) == 4", _end("wrong_answer"), {}),
        ("syntax_error", "def f(x) return x", _end("syntax_error"), {}),
        ("null_byte", "x = 1\0", _end("syntax_error"), {}),
        ("endless_loop", "while True: pass", _TIMEOUT, _SHORT),
        ("cpu_limit", "while True: pass", _TIMEOUT, {"cpu_s": 1, "wall_s": 30.0}),
        ("sleep", "import time; time.sleep(1000)", _TIMEOUT, _SHORT),
        (
            "catches_everything",
            "import time\nwhile True:\n    try:\n        time.sleep(1000)\n    except BaseException: pass",
            _TIMEOUT,
            _SHORT,
        ),
        (
            "ignores_signals",
            "import signal, time\nfor name in ('TERM', 'INT', 'HUP', 'ALRM', 'XCPU'):\n"
            "    signal.signal(getattr(signal, 'SIG' + name), signal.SIG_IGN)\ntime.sleep(1000)",
            _TIMEOUT,
            _SHORT,
        ),
        (
            "ignores_cpu_limit",
            "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
            _TIMEOUT,
            {"cpu_s": 1, "wall_s": 30.0},
        ),
        ("one_huge_object", "x = bytearray(8 << 30)", _end("memory"), {}),
        (
            "growing_list",
            "x = []\nwhile True: x.append('y' * 1_000_000 + str(len(x)))",
            _end("memory"),
            {"memory_bytes": 256 << 20},
        ),
        ("recursion", "def g(): return g()\ng()", _end("recursion"), {}),
        (
            "deep_structure",
            "import sys\nsys.setrecursionlimit(10**9)\nx = []\nfor _ in range(10**6): x = [x]\nrepr(x)",
            _end("timeout", "memory", "crash", "recursion"),
            {"wall_s": 5.0},
        ),
        ("exits", "import sys; sys.exit(0)", _end("exited"), {}),
        ("exits_at_once", "import os; os._exit(0)", _end("crash"), {}),
        (
            "fork_bomb",
            "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
            _TIMEOUT,
            _SHORT,
        ),
        (
            "thread_bomb",
            "import threading, time\n"
            "while True: threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()",
            _end("error:RuntimeError"),
            {},
        ),
        ("endless_output", "while True: print('x' * 100_000)", _end("output_limit"), {}),
        (
            "one_huge_file",
            "with open('f', 'wb') as out:\n    while True: out.write(bytes(1 << 20)); out.flush()",
            _end("error:OSError"),
            {},
        ),
        (
            "many_files",
            "import itertools\nfor i in itertools.count():\n    with open(str(i), 'w') as out: out.write('x')",
            _end("output_limit", bubblewrap=("error:OSError",), namespaces=("error:OSError",)),
            {"cpu_s": 60},
        ),
        ("reads_input", "input()", _end("error:EOFError"), {}),
        ("null_pointer", "import ctypes; ctypes.string_at(0)", _end("crash"), {}),
        ("subprocess", "import subprocess; subprocess.run(['id'], check=True)" + CORRECT, _end("passed"), {}),
        (
            "catastrophic_pattern",
            "import re; re.match('(a+)+b', 'a' * 64)",
            _TIMEOUT,
            _SHORT,
        ),
        ("huge_power", "x = 9 ** 9 ** 9", _end("timeout", "memory"), _SHORT),
        (
            "forked_copy_fails",
            "import os, time\nif os.fork() == 0: raise ValueError\ntime.sleep(0.5)" + CORRECT,
            _end("passed"),
            {},
        ),
        (
            # A documented limit: no sandbox sees through an object that lies.
            "equal_to_everything",
            "class Liar:\n    def __eq__(self, other): return True\ndef f(x): return Liar()\nassert f(2) == 4",
            _end("passed"),
            {},
        ),
        (
            "forged_verdict",
            "import os, time\nfor fd in range(3, 20):\n"
            "    try: os.write(fd, b'0' * 32 + b' passed 0.0\\n')\n    except OSError: pass\ntime.sleep(1000)",
            _TIMEOUT,
            _SHORT,
        ),
        (
            "unreadable_folder",
            "import os\nos.makedirs('a/b', mode=0)" + CORRECT,
            _end("passed", "error:PermissionError"),
            {},
        ),
    )
}
"""Programs against which limits on resources are enough."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What of this machine the programs go for; all of it lies open to every user."""

    folder: Path
    tcp: socket.socket
    udp: socket.socket
    unix: socket.socket

    def untouched(self) -> bool:
        """Whether every file is as it was and nobody has connected."""
        for listener in (self.tcp, self.udp, self.unix):
            try:
                listener.accept() if listener is not self.udp else listener.recv(1)
            except BlockingIOError:
                continue
            return False
        names = sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*"))
        return names == ["kept", "kept/file", "secret", "socket"] and not self.outside.exists()

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
        kinds = (inet, stream), (inet, socket.SOCK_DGRAM), (local, stream)
        with ExitStack() as stack:
            tcp, udp, unix = (stack.enter_context(socket.socket(*kind)) for kind in kinds)
            tcp.bind(("127.0.0.1", 0))
            udp.bind(("127.0.0.1", 0))
            unix.bind(str(folder / "socket"))
            os.chmod(folder / "socket", 0o777)
            for listener in (tcp, unix):
                listener.listen()
            for listener in (tcp, udp, unix):
                listener.setblocking(False)
            yield Surroundings(folder=folder, tcp=tcp, udp=udp, unix=unix)


def reaching_out(near: Surroundings) -> dict[str, Hostile]:
    """Return the programs that go for what is outside; without isolation many of them succeed."""
    secret, kept, outside = (json.dumps(str(p)) for p in (near.folder / "secret", near.folder / "kept", near.outside))
    tcp, udp = near.tcp.getsockname()[1], near.udp.getsockname()[1]
    # A home that is not there, or is the whole tree, would be no bait.
    home_folder = Path.home() if Path.home().is_dir() and Path.home() != Path("/") else near.folder
    unix, home = (json.dumps(str(p)) for p in (near.folder / "socket", home_folder))
    denied_or_absent = _end("error:PermissionError", bubblewrap=_ABSENT)
    rows = {
        "daemon": (
            "import os, time\nif os.fork() == 0:\n    try: os.setsid()\n    except OSError: pass\n"
            "    if os.fork() == 0: time.sleep(60)\n    os._exit(0)\ntime.sleep(0.5)" + CORRECT,
            _end("passed"),
        ),
        "writes_to_etc": ("open('/etc/x', 'w')", _end(*_READ_ONLY, bubblewrap=(*_ABSENT, "error:OSError"))),
        "writes_outside": (f"open({outside}, 'w').write('x')" + CORRECT, _end(*_READ_ONLY, bubblewrap=("passed",))),
        "reads_secret": (f"open({secret}).read()", denied_or_absent),
        "reads_home": (f"import os; os.listdir({home})", denied_or_absent),
        "reads_environment_of_parent": (
            "import os; open(f'/proc/{os.getppid()}/environ').read()",
            _end("error:PermissionError", bubblewrap=("error:PermissionError", "passed", *_ABSENT)),
        ),
        "removes_tree": (
            f"import shutil; shutil.rmtree({kept})",
            _end(*_READ_ONLY, bubblewrap=_ABSENT),
        ),
        "changes_modes": (
            f"import os; os.chmod({kept}, 0)",
            _end(*_READ_ONLY, bubblewrap=_ABSENT),
        ),
        "tcp": (f"import socket; socket.create_connection(('127.0.0.1', {tcp}))", _DENIED),
        "udp": (
            f"import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {udp}))",
            _DENIED,
        ),
        "unix_socket": (f"import socket; socket.socket(socket.AF_UNIX).connect({unix})", _DENIED),
        "kills_parent": (
            "import os; os.kill(os.getppid(), 9)" + CORRECT,
            _end("error:PermissionError", bubblewrap=("passed",), namespaces=("passed", "error:PermissionError")),
        ),
        "kills_everything": (
            "import os; os.kill(-1, 9)" + CORRECT,
            _end(
                *("passed", "error:PermissionError"),
                bubblewrap=("error:ProcessLookupError",),
                namespaces=("error:ProcessLookupError", "error:PermissionError"),
            ),
        ),
        "traces_parent": (
            "import ctypes, os; assert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0",
            _end("wrong_answer"),
        ),
        "limits_parent": (
            "import os, resource; resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))",
            _DENIED,
        ),
        "looks_for_environment": ("import os; assert 'HARNESS_MARKER' not in os.environ" + CORRECT, _end("passed")),
    }
    return {name: Hostile(program=program, ends=ends) for name, (program, ends) in rows.items()}
