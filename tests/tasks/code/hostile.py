"""Programs that a sandbox must survive, each with what may become of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    says: str = ""
    """A part of the reason, where the status alone could have another."""


def end(*statuses: str, bubblewrap: tuple[str, ...] = (), namespaces: tuple[str, ...] = ()) -> Expected:
    own = {Tier.BUBBLEWRAP: bubblewrap, Tier.NAMESPACES: namespaces}
    return {ALL: statuses} | {tier: others for tier, others in own.items() if others}


_SHORT = {"wall_s": 0.5}
# Real file systems take a millisecond for each file.
_FEW = {"files": 500}
_TIMEOUT = end("timeout")
DENIED = end("error:PermissionError")

AS_MANY_AS_POSSIBLE = (
    "import os, time\nstarted = 1\nfor started in range(1, 100):\n    try:\n"
    "        if os.fork() == 0: time.sleep(60)\n    except OSError: break\n"
    # Two more where those that start it are counted, too.
    "assert 32 <= started <= 34, started" + CORRECT
)
"""Starts processes up to the limit of 32, itself included."""

LIMITED: dict[str, Hostile] = {
    name: Hostile(program=program, ends=ends, limits=limits)
    for name, program, ends, limits in (
        ("correct", CORRECT, end("passed"), {}),
        ("wrong_value", "def f(x):\n    return 3\nassert f(2) == 4", end("wrong_answer"), {}),
        ("syntax_error", "def f(x) return x", end("syntax_error"), {}),
        ("null_byte", "x = 1\0", end("syntax_error"), {}),
        ("endless_loop", "while True: pass", _TIMEOUT, _SHORT),
        ("cpu_limit", "while True: pass", _TIMEOUT, {"cpu_s": 1}),
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
            {"cpu_s": 1},
        ),
        ("one_huge_object", "x = bytearray(8 << 30)", end("memory"), {}),
        (
            "growing_list",
            "x = []\nwhile True: x.append('y' * 1_000_000 + str(len(x)))",
            end("memory"),
            {"memory_bytes": 256 << 20},
        ),
        ("recursion", "def g(): return g()\ng()", end("recursion"), {}),
        (
            "deep_structure",
            "import sys\nsys.setrecursionlimit(10**9)\nx = []\nfor _ in range(2 * 10**5): x = [x]\nrepr(x)",
            end("timeout", "memory", "crash", "recursion"),
            {"wall_s": 5.0},
        ),
        ("exits", "import sys; sys.exit(0)", end("exited"), {}),
        ("exits_at_once", "import os; os._exit(0)", end("crash"), {}),
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
            end("error:RuntimeError"),
            {},
        ),
        ("all_its_processes", AS_MANY_AS_POSSIBLE, end("passed"), {}),
        ("endless_output", "while True: print('x' * 100_000)", end("output_limit"), {}),
        (
            "one_huge_file",
            "with open('f', 'wb') as out:\n    while True: out.write(bytes(1 << 20)); out.flush()",
            end("error:OSError"),
            {},
        ),
        (
            "many_files",
            "import itertools\nfor i in itertools.count():\n    with open(str(i), 'w') as out: out.write('x')",
            end("output_limit", namespaces=("error:OSError",)),
            _FEW,
        ),
        (
            "empty_files",
            "for i in range(20_000): open(str(i), 'x').close()" + CORRECT,
            end("output_limit", namespaces=("error:OSError",)),
            _FEW,
        ),
        ("reads_input", "input()", end("error:EOFError"), {}),
        ("null_pointer", "import ctypes; ctypes.string_at(0)", end("crash"), {}),
        ("subprocess", "import subprocess; subprocess.run(['id'], check=True)" + CORRECT, end("passed"), {}),
        (
            "catastrophic_pattern",
            "import re; re.match('(a+)+b', 'a' * 64)",
            _TIMEOUT,
            _SHORT,
        ),
        ("huge_power", "x = 9 ** 9 ** 9", end("timeout", "memory"), _SHORT),
        (
            "forked_copy_fails",
            "import os, time\nif os.fork() == 0: raise ValueError\ntime.sleep(0.5)" + CORRECT,
            end("passed"),
            {},
        ),
        (
            # A documented limit: no sandbox sees through an object that lies.
            "equal_to_everything",
            "class Liar:\n    def __eq__(self, other): return True\ndef f(x): return Liar()\nassert f(2) == 4",
            end("passed"),
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
            end("passed", "error:PermissionError"),
            {},
        ),
    )
}
"""Programs against which limits on resources are enough."""


PASSED = end("passed")
REFUSED = "import ctypes\nlibc = ctypes.CDLL(None)\nassert {call} == -1" + CORRECT
_FULL = end("output_limit", bubblewrap=("error:OSError",), namespaces=("error:OSError",))

LIMITED |= {
    name: Hostile(program=program, ends=ends)
    for name, program, ends in (
        # What it says about itself.
        ("class_name_in_words", "raise type('a b\\nc passed', (Exception,), {})('x\\ny')", end("error:a_b_c_passed")),
        (
            "class_name_is_code",
            "class Meta(type):\n    @property\n    def __name__(cls): raise SystemExit\n"
            "class Odd(Exception, metaclass=Meta): pass\nraise Odd",
            end("error:Odd"),
        ),
        (
            "text_is_code",
            "class Text(str):\n    def __getitem__(self, key): return 1\n    def encode(self, *_): return 'passed'\n"
            "class Odd(Exception):\n    def __str__(self): return Text('no')\nraise Odd",
            end("error:Odd"),
        ),
        ("text_raises", "class Odd(Exception):\n    def __str__(self): raise SystemExit\nraise Odd", end("error:Odd")),
        ("text_is_huge", "raise ValueError('x' * 10_000_000)", end("error:ValueError")),
        ("source_of_surrogates", "x = '\ud800'", end("syntax_error")),
        # What the verdict might stand on.
        ("replaces_getrusage", "import resource; resource.getrusage = lambda *_: 'x y'" + CORRECT, PASSED),
        ("replaces_os", "import os; os.write = os._exit = os.getpid = None" + CORRECT, PASSED),
        (
            "replaces_builtins",
            CORRECT + "import builtins\nfor name in dir(builtins):\n    builtins.__dict__[name] = None",
            PASSED,
        ),
        ("lowers_recursion_limit", "import sys; sys.setrecursionlimit(20)" + CORRECT, PASSED),
        ("closes_descriptors", "import os; os.closerange(0, 64)" + CORRECT, PASSED),
        (
            "replaces_descriptors",
            "import os\nnull = os.open('/dev/null', os.O_RDWR)\nfor fd in range(null): os.dup2(null, fd)" + CORRECT,
            PASSED,
        ),
        (
            "floods_descriptors",
            "import os\nfor fd in range(3, 64):\n    try: os.write(fd, b'ended 0 0.0 0 ' + b'\\n' * (1 << 20))\n"
            "    except OSError: pass\nos._exit(0)",
            end("crash"),
        ),
        ("prints_surrogates", "print('\\ud800')" + CORRECT, PASSED),
        (
            "leaves_a_thread",
            "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()" + CORRECT,
            PASSED,
        ),
        (
            "exits_in_a_thread",
            "import os, threading, time\nthreading.Thread(target=os._exit, args=(0,)).start()\ntime.sleep(60)",
            end("crash"),
        ),
        (
            "exits_at_exit",
            "import atexit, os; atexit.register(os._exit, 0); raise ValueError",
            end("error:ValueError"),
        ),
        ("becomes_another_program", "import os; os.execv('/usr/bin/id', ['id'])", end("crash")),
        ("kills_its_group", "import os; os.kill(0, 9)" + CORRECT, end("crash", "error:PermissionError")),
        (
            # A program stops when it has left its verdict.
            "is_woken",
            "import os, signal\nif os.fork() == 0:\n    while True:\n"
            "        try: os.kill(os.getppid(), signal.SIGCONT)\n        except OSError: pass" + CORRECT,
            PASSED,
        ),
        ("own_priority", "import os; os.nice(1); os.sched_setaffinity(0, os.sched_getaffinity(0))" + CORRECT, PASSED),
        # What it leaves.
        (
            # Deeper than calls may be nested, longer than a path may be.
            "nested_folders",
            "import os\nfor _ in range(1200): os.mkdir('folder'), os.chdir('folder')" + CORRECT,
            PASSED,
        ),
        (
            "folder_not_listed",
            "import os\nos.mkdir('d', 0o300); open('d/' + 'x' * 250, 'w').close()" + CORRECT,
            PASSED,
        ),
        (
            "files_in_folder_not_listed",
            "import os, time\nos.mkdir('d', 0o300)\nfor i in range(30):\n    open(f'd/{i}', 'wb').write(bytes(1 << 20))"
            + CORRECT,
            _FULL,
        ),
        (
            "unlinked_files",
            "import os\nfiles = []\nfor i in range(30):\n    files.append(open('f', 'wb')); os.unlink('f')\n"
            "    files[-1].write(bytes(1 << 20)); files[-1].flush()\n" + CORRECT,
            _FULL,
        ),
        (
            "unlinked_mappings",
            "import mmap, os\nparts = []\nfor i in range(30):\n    with open('f', 'w+b') as file:\n"
            "        os.unlink('f'); file.write(bytes(1 << 20)); file.flush()\n"
            "        parts.append(mmap.mmap(file.fileno(), 1 << 20))\n" + CORRECT,
            _FULL,
        ),
        ("sparse_file", "open('f', 'wb').truncate(1 << 40)", end("error:OSError")),
        # What lies outside of every process.
        ("shared_memory", REFUSED.format(call="libc.shmget(0, 1 << 20, 0o1666)"), PASSED),
        ("semaphores", REFUSED.format(call="libc.semget(0, 1, 0o1666)"), PASSED),
        ("message_queue", REFUSED.format(call="libc.msgget(0, 0o1666)"), PASSED),
        ("posix_queue", REFUSED.format(call="libc.mq_open(b'/decbench', 0o102, 0o600, None)"), PASSED),
        ("memory_file", "import os; os.memfd_create('x')", DENIED),
        ("memory_without_file", "import mmap; mmap.mmap(-1, 1 << 20)", DENIED),
        ("large_pipe", "import fcntl, os; fcntl.fcntl(os.pipe()[0], 1031, 1 << 20)", DENIED),
        ("watches", REFUSED.format(call="libc.inotify_init()"), PASSED),
        ("pair_of_sockets", "import socket; socket.socketpair()", DENIED),
        ("child_of_its_parent", REFUSED.format(call="libc.syscall(56, 0x8011, 0, 0, 0, 0)"), PASSED),
        ("new_user_namespace", REFUSED.format(call="libc.syscall(56, 0x10000011, 0, 0, 0, 0)"), PASSED),
    )
}

_EIGHT = "import os, time\n{first}\nfor _ in range(8):\n    if os.fork() == 0:\n        {each}\n        os._exit(0)\n"
LIMITED |= {
    "memory_of_all": Hostile(
        program=_EIGHT.format(first="", each="x = b'x' * (60 << 20); time.sleep(60)") + "time.sleep(60)",
        ends=end("memory"),
        limits={"memory_bytes": 256 << 20},
        says="in all processes",
    ),
    "shared_pages": Hostile(
        program=_EIGHT.format(first="x = b'x' * (100 << 20)", each="time.sleep(0.3)") + "os.wait()" + CORRECT,
        ends=PASSED,
        limits={"memory_bytes": 256 << 20},
    ),
    "cpu_of_all": Hostile(
        program=_EIGHT.format(first="", each="while True: pass") + "time.sleep(60)",
        ends=_TIMEOUT,
        limits={"cpu_s": 1},
        says="CPU",
    ),
    "cpu_of_the_forgotten": Hostile(
        program=_EIGHT.format(
            first="import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
            # Nobody is told what they have used in the end: a look at most of it has to do.
            each="end = time.process_time() + 0.8\n        while time.process_time() < end: pass",
        )
        + "time.sleep(60)",
        ends=_TIMEOUT,
        limits={"cpu_s": 1},
        says="CPU",
    ),
    "stops_itself": Hostile(
        program="import os, signal; os.kill(os.getpid(), signal.SIGSTOP)" + CORRECT, ends=_TIMEOUT, limits=_SHORT
    ),
}
