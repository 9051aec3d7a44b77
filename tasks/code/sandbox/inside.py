"""What runs inside the sandbox: shut oneself in, run one program, report once.

Started as `python -S -s -B -c TEXT`, where TEXT holds kernel.py and this file, so that the sandboxed user needs to read
no file of ours; runs on Python 3.9 and newer, hence no annotations. The request on standard input is a marshalled
dictionary (importing json would take a third of the start-up time): `program`, `nonce`, `verdict_fd`, `limits`,
`namespaces`, `landlock_abi` (0: none), `readable`, `only_self`, `denied` (None: no filter).
"""

import marshal
import os
import resource
import sys
import types

from tasks.code.sandbox import kernel

READY = "ready"


def main():
    """Obey the request on standard input; never returns."""
    request = marshal.loads(_read_all(0))
    _replace_stdin()
    sys.path[:] = [path for path in sys.path if path]
    report = _reporter(request["verdict_fd"], request["nonce"])
    try:
        kernel.die_with_parent()
        if request["namespaces"]:
            kernel.enter_namespaces()
            kernel.mount_private(request["limits"]["work_bytes"], request["limits"]["files"])
            _become_second_process(request["verdict_fd"])
            kernel.drop_capabilities()
        _restrict(request)
    except BaseException as error:
        report("sandbox_error", f"{type(error).__name__}: {error}")
        os._exit(1)
    report(READY)
    pid, getpid, leave = os.getpid(), os.getpid, os._exit
    status, detail = run(request.pop("program"))
    # A copy that the program forked and that came back here must not speak for it.
    if getpid() == pid:
        report(status, detail)
    leave(0)


def run(program):
    """Return status and detail of a program: `passed` only if its last line was reached."""
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    try:
        code = compile(program, "<solution>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        return "syntax_error", str(error)
    except MemoryError:
        return "memory", "while compiling"
    except RecursionError:
        return "recursion", "while compiling"
    try:
        exec(code, module.__dict__)
    except AssertionError as error:
        return "wrong_answer", _text(error)
    except SystemExit:
        return "exited", "left before the last test"
    except MemoryError:
        return "memory", "MemoryError"
    except RecursionError:
        return "recursion", "RecursionError"
    except BaseException as error:
        return f"error:{type(error).__name__}", _text(error)
    return "passed", ""


def _restrict(request):
    limits = request["limits"]
    for name, soft, hard in (
        ("CORE", 0, 0),
        ("CPU", limits["cpu_s"], limits["cpu_s"] + 1),
        ("AS", limits["memory_bytes"], limits["memory_bytes"]),
        ("FSIZE", limits["file_bytes"], limits["file_bytes"]),
        ("NOFILE", limits["open_files"], limits["open_files"]),
        ("NPROC", limits["processes"], limits["processes"]),
    ):
        kind = getattr(resource, f"RLIMIT_{name}")
        roof = resource.getrlimit(kind)[1]
        if roof != resource.RLIM_INFINITY:
            soft, hard = min(soft, roof), min(hard, roof)
        resource.setrlimit(kind, (soft, hard))
    kernel.give_up_privileges()
    if request["landlock_abi"]:
        kernel.restrict_files(request["landlock_abi"], request["readable"])
    if request["denied"] is not None:
        kernel.restrict_calls(request["only_self"], request["denied"])


def _become_second_process(verdict_fd):
    """Go on as process 2 of the new process namespace: process 1 is deaf to signals from inside.

    The two processes before it wait, and end as it ends: with its exit code, or 128 and the signal that killed it.
    """
    for _ in range(2):
        child = os.fork()
        if child:
            os.close(verdict_fd)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            os._exit(status if status >= 0 else 128 - status)
        kernel.die_with_parent()


def _reporter(verdict_fd, nonce):
    write = os.write

    def report(status, detail=""):
        used = resource.getrusage(resource.RUSAGE_SELF)
        line = " ".join(f"{nonce} {status[:80]} {used.ru_utime + used.ru_stime:.3f} {detail[:300]}".split())
        # One write of less than a page arrives whole.
        write(verdict_fd, (line + "\n").encode("utf-8", "backslashreplace"))

    return report


def _text(error):
    try:
        return str(error)
    except BaseException:
        return ""


def _read_all(fd):
    parts = []
    while part := os.read(fd, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def _replace_stdin():
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)


if __name__ == "__main__":
    main()
