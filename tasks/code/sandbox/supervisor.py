"""The parent of a sandboxed program: starts it, waits no longer than the limits say, leaves nothing behind."""

import contextlib
import marshal
import os
import secrets
import selectors
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tasks.code.sandbox import confinement, interpreter
from tasks.code.sandbox.confinement import Machine
from tasks.code.sandbox.verdict import Limits, Tier, Verdict

_TAIL_BYTES = 4096
_TICK_S, _END_TICK_S = 0.05, 0.002
_START_S = 60.0
_FROM_SIGNAL = 128
# The version of marshal's format that every Python 3 reads.
_PORTABLE = 2


def run_at(tier: Tier, program: str, limits: Limits, machine: Machine) -> Verdict:
    """Run one program at a tier that the machine has, and return its verdict within the wall limit plus a second."""
    user, started = interpreter.next_user(), time.monotonic()
    with _working_folder(user) as folder:
        try:
            child = _start(tier, program, limits, machine, user, folder)
        except OSError as error:
            return Verdict(status="sandbox_error", tier=tier, wall_s=0.0, detail=f"cannot start: {error}")
        with child:
            status, detail = child.watch(limits, bounded=tier.value <= Tier.NAMESPACES.value)
        return Verdict(
            status=status,
            tier=tier,
            wall_s=time.monotonic() - started,
            cpu_s=child.cpu_s,
            detail=detail,
            output_tail=child.tail.decode("utf-8", "replace"),
        )


@dataclass(kw_only=True)
class _Child:
    """A running program with the ends of its two pipes; leaving its context kills everything it started."""

    process: subprocess.Popen[bytes]
    nonce: str
    verdicts: int
    outputs: int
    folder: str
    said: bytes = b""
    tail: bytes = b""
    written: int = 0
    cpu_s: float = 0.0
    begun: float | None = None

    def __enter__(self) -> "_Child":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.verdicts)
        os.close(self.outputs)

    def watch(self, limits: Limits, *, bounded: bool) -> tuple[str, str]:
        """Return status and detail of the program at its end, or when it exceeds a limit.

        The wall limit counts from where the program itself begins: a busy machine starts interpreters slowly.
        """
        deadline = time.monotonic() + _START_S
        with selectors.DefaultSelector() as selector:
            for pipe in (self.verdicts, self.outputs):
                selector.register(pipe, selectors.EVENT_READ)
            look_at_folder = 0.0
            while (now := time.monotonic()) < deadline:
                # Once the program is gone, the processes that wait for it only pass on how it ended.
                tick = _TICK_S if self.verdicts in selector.get_map() else _END_TICK_S
                for key, _ in selector.select(min(deadline - now, tick)):
                    if not self._read(key.fd):
                        selector.unregister(key.fd)
                if self.begun is None and self._has_begun():
                    self.begun = time.monotonic()
                    deadline = self.begun + limits.wall_s
                if self.written > limits.output_bytes:
                    return "output_limit", f"wrote more than {limits.output_bytes} bytes"
                if (verdict := self._verdict()) is not None:
                    self._take_the_rest(self.outputs)
                    return verdict
                if self.process.poll() is not None:
                    return self._end_without_verdict(limits)
                if not bounded and now >= look_at_folder:
                    look_at_folder = now + _TICK_S
                    if _is_full(self.folder, limits):
                        return "output_limit", f"wrote more than {limits.work_bytes} bytes or {limits.files} files"
        if self.begun is None:
            return "sandbox_error", f"not ready within {_START_S:g} s"
        return "timeout", f"{limits.wall_s:g} s of wall time"

    def _read(self, pipe: int) -> bool:
        """Take what is in a pipe; return whether more can come."""
        data = os.read(pipe, 1 << 16)
        if pipe == self.verdicts:
            self.said = (self.said + data)[-(1 << 16) :]
        else:
            self.written += len(data)
            self.tail = (self.tail + data)[-_TAIL_BYTES:]
        return bool(data)

    def _take_the_rest(self, pipe: int) -> None:
        """Take what was written just before the end and may still be in a pipe."""
        os.set_blocking(pipe, False)
        with contextlib.suppress(BlockingIOError):
            self._read(pipe)

    def _lines(self) -> Iterator[list[str]]:
        """Yield the words of the lines that carry the nonce: the program can write to the pipe, too."""
        for line in self.said.split(b"\n")[:-1]:
            words = line.decode("utf-8", "replace").split(" ", 3)
            if words[0] == self.nonce and len(words) >= 3:
                yield words

    def _has_begun(self) -> bool:
        return any(words[1] == "ready" for words in self._lines())

    def _verdict(self) -> tuple[str, str] | None:
        for _, status, cpu_s, *detail in self._lines():
            if status != "ready":
                self.cpu_s = float(cpu_s)
                return status, " ".join(detail)
        return None

    def _end_without_verdict(self, limits: Limits) -> tuple[str, str]:
        for pipe in (self.verdicts, self.outputs):
            self._take_the_rest(pipe)
        if (verdict := self._verdict()) is not None:
            return verdict
        code = self.process.returncode
        number = -code if code < 0 else code - _FROM_SIGNAL
        if not self._has_begun():
            return "sandbox_error", f"ended with code {code} before the program began"
        # A program that ignores the first is killed a second later; nothing but that, or lack of memory, kills it.
        lasted = time.monotonic() - (self.begun or time.monotonic())
        if number == signal.SIGXCPU or (number == signal.SIGKILL and lasted >= limits.cpu_s):
            return "timeout", f"{limits.cpu_s} s of CPU time"
        return "crash", f"signal {number}" if number > 0 else f"ended with code {code} before the last test"


def _start(tier: Tier, program: str, limits: Limits, machine: Machine, user: int | None, folder: str) -> _Child:
    nonce = secrets.token_hex(16)
    asked = confinement.request(tier, machine, limits, user=user)
    verdicts, speaks = os.pipe()
    outputs, prints = os.pipe()
    asked |= {"nonce": nonce, "verdict_fd": speaks, "program": program}
    try:
        with tempfile.TemporaryFile() as stdin:
            stdin.write(marshal.dumps(asked, _PORTABLE))
            stdin.seek(0)
            process = subprocess.Popen(
                confinement.command(tier, machine, limits),
                **interpreter.identity(user),  # type: ignore[arg-type]
                stdin=stdin,
                stdout=prints,
                stderr=prints,
                pass_fds=[speaks],
                cwd=folder,
                env=confinement.ENVIRONMENT,
                start_new_session=True,
            )
    except BaseException:
        os.close(verdicts)
        os.close(outputs)
        raise
    finally:
        os.close(speaks)
        os.close(prints)
    return _Child(process=process, nonce=nonce, verdicts=verdicts, outputs=outputs, folder=folder)


@contextlib.contextmanager
def _working_folder(user: int | None) -> Iterator[str]:
    """Make an empty folder that belongs to `user`, and remove it with whatever is in it."""
    folder = tempfile.mkdtemp(prefix="decbench-")
    try:
        if user is not None:
            os.chown(folder, user, user)
        yield folder
    finally:
        _remove(folder)


def _remove(folder: str) -> None:
    """Remove a folder, also where a program of our own user made parts of it unreadable."""
    shutil.rmtree(folder, ignore_errors=True)
    if os.path.lexists(folder):
        os.chmod(folder, stat.S_IRWXU)
        for root, names, _ in os.walk(folder):
            for path in (os.path.join(root, name) for name in names):
                if not os.path.islink(path):
                    os.chmod(path, stat.S_IRWXU)
        shutil.rmtree(folder)


def _is_full(folder: str, limits: Limits) -> bool:
    """Tell whether a working folder that the kernel does not bound has outgrown its limits."""
    count = size = 0
    for root, _, names in os.walk(folder):
        count += 1
        for name in names:
            count += 1
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(root, name)).st_blocks * 512
            if count > limits.files or size > limits.work_bytes:
                return True
    return count > limits.files
