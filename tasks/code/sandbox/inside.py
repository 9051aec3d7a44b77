"""What runs inside the sandbox: shut oneself in, run one program, tell once how it ended.

Compiled with kernel.py and forks.py by an interpreter of the kind that runs it, and read from standard input, so that
the sandboxed user needs to read no file of ours; runs on Python 3.9 and newer, hence no annotations. The request that
comes with it is a dictionary: `program`, `nonce`, `told_fd`, `limits`, `stop` (the number of that signal: importing its
module would cost as much as the rest), `door_fd` (of a control group to enter, or None), `namespaces`, `landlock_abi`
(0: none), `readable`, `only_self`, `denied` (None: no filter), `counted` (processes at a time, if the attendant has to
count).

A program has no descriptor on which it could speak. It leaves its verdict in memory that it shares with its attendant,
the process that started it, which is out of its reach; then it stops, so that whoever bounds it can look at all that it
holds. The attendant tells the harness, in lines: `ready` when the program begins, `failed` and a reason instead if it
cannot, `ended` when it has died or stopped with a verdict: exit code, CPU seconds of what has died, files in the file
system of the working folder, and the shared memory in hexadecimal digits. It and what the program has started live on
until they are killed: nothing that the harness then finds out hangs on when it looked before.
"""

import io
import mmap
import os
import resource
import sys
import time

from tasks.code.sandbox import forks, kernel

# A line about it is less than a page, so that it arrives whole.
SHARED_BYTES = 1024


def main(request):
    """Do what is asked; never returns."""
    _replace_stdin()
    sys.path[:] = [path for path in sys.path if path]
    told = request["told_fd"]
    try:
        kernel.die_with_parent()
        if request["door_fd"] is not None:
            os.write(request["door_fd"], b"0")
            os.close(request["door_fd"])
        if request["namespaces"]:
            kernel.enter_namespaces()
            kernel.mount_private(request["limits"]["work_bytes"], request["limits"]["files"])
            _become_first_process(told)
            kernel.drop_capabilities()
        shared = mmap.mmap(-1, SHARED_BYTES)
        gate = forks.Gate() if request["counted"] else None
        program = os.fork()
        if program:
            kernel.attend()
            if gate is not None:
                gate.keep(request["counted"])
            _attend(program, shared, told)
        kernel.die_with_parent()
        # What a program prints is not judged: not even what no encoding has.
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        _restrict(request, gate)
        os.write(told, b"ready\n")
    except BaseException as error:
        os.write(told, f"failed {type(error).__name__}: {error}\n".encode("utf-8", "replace"))
        os._exit(1)
    os.close(told)
    _report(run, request.pop("program"), request.pop("nonce").encode(), request["stop"], shared)


def _report(run, program, nonce, stop, shared):
    """Run the program and leave its verdict in the shared memory; what it may have replaced is not asked for again."""
    pid, getpid, kill, leave = os.getpid(), os.getpid, os.kill, os._exit
    passed = nonce + b" passed "
    verdict = run(program)
    # A copy that the program forked and that came back here must not speak for it.
    if getpid() == pid:
        if verdict is not None:
            passed = b"%b %b" % (nonce, verdict)
        shared[0 : passed.__len__()] = passed
        kill(pid, stop)
    leave(0)


def run(program):
    """Return None if the last line of a program was reached, else status, blank and detail, short enough to tell."""
    try:
        module = type(sys)("solution")
        sys.modules["solution"] = module
        code = compile(program, "<solution>", "exec", dont_inherit=True)
    except MemoryError:
        return b"memory while compiling"
    except RecursionError:
        return b"recursion while compiling"
    except BaseException as error:
        return _described("syntax_error", error)
    try:
        exec(code, module.__dict__)
    except AssertionError as error:
        return _described("wrong_answer", error)
    except SystemExit:
        return b"exited left before the last test"
    except MemoryError:
        return b"memory MemoryError"
    except RecursionError:
        return b"recursion RecursionError"
    except BaseException as error:
        return _described("error", error)
    return None


def _described(status, error):
    """Return a verdict on an error, whose class may be called anything and whose text may be code of the program."""
    words, text = [status], ""
    try:
        if status == "error":
            words.append(_word(str.__str__(type.__dict__["__name__"].__get__(type(error)))[:80]))
        text = str.__str__(str(error))[:300]
    except BaseException:
        pass
    return ":".join(words).encode() + b" " + text.encode("utf-8", "backslashreplace")[:600]


def _word(name):
    return "".join(letter if letter.isprintable() and not letter.isspace() else "_" for letter in name)


def _restrict(request, gate):
    limits = request["limits"]
    kernel.give_up_privileges()
    counted = gate is not None and gate.shut()
    for name, soft, hard in (
        # One byte: a smaller limit would still hand the dump to the machine's crash reporter.
        ("CORE", 1, 1),
        ("CPU", limits["cpu_s"], limits["cpu_s"] + 1),
        ("AS", limits["memory_bytes"], limits["memory_bytes"]),
        ("FSIZE", limits["file_bytes"], limits["file_bytes"]),
        ("NOFILE", limits["open_files"], limits["open_files"]),
        ("NPROC", limits["processes"], limits["processes"]),
        ("MEMLOCK", 0, 0),
        ("MSGQUEUE", 0, 0),
    ):
        kind = getattr(resource, f"RLIMIT_{name}", None)
        if kind is None or (name == "NPROC" and counted):
            continue
        roof = resource.getrlimit(kind)[1]
        if roof != resource.RLIM_INFINITY:
            soft, hard = min(soft, roof), min(hard, roof)
        resource.setrlimit(kind, (soft, hard))
    if request["landlock_abi"]:
        kernel.restrict_files(request["landlock_abi"], request["readable"])
    if request["denied"] is not None:
        kernel.restrict_calls(request["only_self"], request["denied"])


def _become_first_process(told):
    """Go on as process 1 of the new process namespace, which is deaf to signals from inside."""
    child = os.fork()
    if child:
        os.close(told)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os._exit(status if status >= 0 else 128 - status)
    kernel.die_with_parent()


def _attend(program, shared, told):
    """Wait for the program, and for the orphans that it leaves; tell how it ended, and keep all else as it is."""
    ended, status = 0, 0
    while ended != program or (os.WIFSTOPPED(status) and not shared[0]):
        ended, status = os.waitpid(-1, os.WUNTRACED)
    code = 0 if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status)
    used, folder = resource.getrusage(resource.RUSAGE_CHILDREN), os.statvfs(".")
    cpu_s, files = used.ru_utime + used.ru_stime, folder.f_files - folder.f_ffree
    os.write(told, f"ended {code} {cpu_s:.3f} {files} {shared[:].hex()}\n".encode())
    while True:
        time.sleep(3600)


def _replace_stdin():
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
