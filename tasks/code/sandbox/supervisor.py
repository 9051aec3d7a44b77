"""The parent of a sandboxed program: starts it, waits no longer than the limits say, leaves nothing behind."""

import contextlib
import marshal
import math
import os
import secrets
import selectors
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass

from tasks.code.sandbox import confinement, interpreter, usage
from tasks.code.sandbox.confinement import Machine
from tasks.code.sandbox.folder import is_full, working_folder
from tasks.code.sandbox.verdict import Ending, Limits, Tier, Verdict, read_ending

_TAIL_BYTES = 4096
_TICK_S, _END_TICK_S, _LOOK_S = 0.05, 0.002, 0.025
_START_S = 60.0
_DYING_S = 1.0


def run_at(tier: Tier, program: str, limits: Limits, machine: Machine) -> Verdict:
    """Run one program at a tier that the machine has, and return its verdict within the wall limit plus a second."""
    user, started = interpreter.next_user(), time.monotonic()
    with working_folder(user) as folder:
        try:
            with _metered(machine, limits) as meter:
                child = _start(tier, program, limits, machine, user, folder, meter)
                with child:
                    status, detail = child.watch(limits)
        except OSError as error:
            return Verdict(status="sandbox_error", tier=tier, wall_s=0.0, detail=f"cannot run: {error}")
        return Verdict(
            status=status,
            tier=tier,
            wall_s=time.monotonic() - started,
            cpu_s=child.cpu_s,
            detail=detail,
            output_tail=child.tail.decode("utf-8", "replace"),
        )


def _metered(machine: Machine, limits: Limits) -> contextlib.AbstractContextManager[usage.Meter]:
    """Provide what tells of a program's use: the kernel where it can, else the sums over its processes."""
    return contextlib.nullcontext(usage.Sums()) if machine.groups is None else machine.groups.group(limits)


@dataclass(kw_only=True)
class _Child:
    """A running program with the ends of its two pipes; leaving its context kills everything it started."""

    process: subprocess.Popen[bytes]
    nonce: str
    tier: Tier
    told_by: int
    outputs: int
    folder: str
    meter: usage.Meter
    told: bytes = b""
    tail: bytes = b""
    written: int = 0
    cpu_s: float = 0.0

    def __enter__(self) -> "_Child":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.told_by)
        os.close(self.outputs)
        dying, limit = usage.processes(self.process.pid), time.monotonic() + _DYING_S
        # Nobody joins them: a process that is to be killed starts no other.
        while (dying := usage.alive(dying)) and time.monotonic() < limit:
            time.sleep(_END_TICK_S)

    @property
    def begun(self) -> bool:
        """Whether the program's first line has been reached."""
        return self.told.startswith(b"ready\n")

    def watch(self, limits: Limits) -> tuple[str, str]:
        """Return status and detail of the program at its end, or when it exceeds a limit.

        The wall limit counts from where the program itself begins: a busy machine starts interpreters slowly.
        """
        deadline, look, begun = time.monotonic() + _START_S, math.inf, False
        with selectors.DefaultSelector() as selector:
            for pipe in (self.told_by, self.outputs):
                selector.register(pipe, selectors.EVENT_READ)
            while (now := time.monotonic()) < deadline:
                # Once nothing more can be told, the processes that wait only pass on how it ended.
                tick = (_LOOK_S if begun else _TICK_S) if self.told_by in selector.get_map() else _END_TICK_S
                for key, _ in selector.select(min(deadline - now, tick)):
                    if not self._read(key.fd):
                        selector.unregister(key.fd)
                ended = self._has_ended(limits)
                if self.begun and not begun:
                    begun = True
                    deadline, look = time.monotonic() + limits.wall_s, time.monotonic() + _LOOK_S
                if ended:
                    return self._judged(limits)
                if now >= look:
                    busy = time.thread_time()
                    if (excess := self._excess(limits)) is not None:
                        return excess
                    # Looking at thousands of files must not take the time of the programs beside this one; to wait
                    # for a turn takes none, however long it is.
                    look = time.monotonic() + max(_LOOK_S, 4 * (time.thread_time() - busy))
        # What was in time is not too late because we are.
        self._take_the_rest(limits)
        if self._has_ended(limits):
            return self._judged(limits)
        if not begun:
            return "sandbox_error", f"not ready within {_START_S:g} s"
        return "timeout", f"{limits.wall_s:g} s of wall time"

    def _read(self, pipe: int) -> bool:
        """Take what is in a pipe; return whether more can come."""
        data = os.read(pipe, 1 << 16)
        if pipe == self.told_by:
            self.told += data
        else:
            self.written += len(data)
            self.tail = (self.tail + data)[-_TAIL_BYTES:]
        return bool(data)

    def _take_the_rest(self, limits: Limits) -> None:
        """Take what was told and written before the end and is still in the pipes, or as much as is too much."""
        for pipe in (self.told_by, self.outputs):
            os.set_blocking(pipe, False)
            with contextlib.suppress(BlockingIOError):
                while self.written <= limits.output_bytes and self._read(pipe):
                    pass

    def _has_ended(self, limits: Limits) -> bool:
        if self.told.partition(b"\n")[2].endswith(b"\n") or self.process.poll() is not None:
            self._take_the_rest(limits)
            return True
        return False

    def _judged(self, limits: Limits) -> tuple[str, str]:
        """Return status and detail of a program that has ended, from what its attendant told and what is left."""
        first, _, last = self.told.decode("utf-8", "replace").partition("\n")
        if not self.begun:
            why = first.partition(" ")[2] or f"ended with code {self.process.wait()} before the program began"
            return "sandbox_error", why
        ending = read_ending(last, self.nonce)
        return self._excess(limits, ending) or self._own_verdict(limits, ending)

    def _excess(self, limits: Limits, ending: Ending | None = None) -> tuple[str, str] | None:
        """Look at what all processes of the program use, and return status and detail if it is too much."""
        if self.written > limits.output_bytes:
            return "output_limit", f"wrote more than {limits.output_bytes} bytes"
        pids = usage.processes(self.process.pid)
        self.cpu_s = max(self.cpu_s, self.meter.cpu_s(pids), ending.cpu_s if ending else 0.0)
        if self.cpu_s >= limits.cpu_s:
            return "timeout", f"{limits.cpu_s} s of CPU time"
        if self.meter.lacks_memory(pids, limits.memory_bytes):
            return "memory", f"more than {limits.memory_bytes} bytes in all processes"
        if self._is_full(pids, limits, ending):
            return "output_limit", f"wrote more than {limits.work_bytes} bytes or {limits.files} files"
        return None

    def _is_full(self, pids: list[int], limits: Limits, ending: Ending | None) -> bool:
        """Tell whether the program has written too much, as far as the kernel itself does not see to it."""
        if self.tier is Tier.NAMESPACES:
            return False
        if self.tier is Tier.BUBBLEWRAP:
            # The kernel bounds the bytes: what is beyond are empty files, and those that found no room.
            files = ending.files if ending else usage.files(pids, confinement.PRIVATE)
            return files > limits.files + limits.open_files
        return is_full(self.folder, limits, hidden=usage.unlinked_bytes(pids, self.folder))

    def _own_verdict(self, limits: Limits, ending: Ending | None) -> tuple[str, str]:
        """Return the verdict that the program left, or else what its end says."""
        if ending is None:
            return "crash", "its attendant was killed"
        if ending.status is not None:
            return ending.status, ending.detail
        # A program that ignores the first is killed a second later; nothing but that, or lack of memory, kills it.
        if -ending.code == signal.SIGXCPU or (-ending.code == signal.SIGKILL and self.cpu_s >= limits.cpu_s):
            return "timeout", f"{limits.cpu_s} s of CPU time"
        if ending.code < 0:
            return "crash", f"signal {-ending.code}"
        return "crash", f"ended with code {ending.code} before the last test"


def _start(
    tier: Tier,
    program: str,
    limits: Limits,
    machine: Machine,
    user: int | None,
    folder: str,
    meter: usage.Meter,
) -> _Child:
    nonce = secrets.token_hex(16)
    asked = confinement.request(tier, machine, limits, user=user)
    told_by, tells = os.pipe()
    outputs, prints = os.pipe()
    asked |= {"nonce": nonce, "told_fd": tells, "program": program, "stop": int(signal.SIGSTOP), "door_fd": meter.door}
    try:
        with tempfile.TemporaryFile() as stdin:
            stdin.write(marshal.dumps((confinement.code(), asked), confinement.PORTABLE))
            stdin.seek(0)
            process = subprocess.Popen(
                confinement.command(tier, machine, limits),
                **interpreter.identity(user),  # type: ignore[arg-type]
                stdin=stdin,
                stdout=prints,
                stderr=prints,
                pass_fds=[tells] if meter.door is None else [tells, meter.door],
                cwd=folder,
                env=confinement.ENVIRONMENT,
                start_new_session=True,
            )
    except BaseException:
        os.close(told_by)
        os.close(outputs)
        raise
    finally:
        os.close(tells)
        os.close(prints)
    return _Child(process=process, nonce=nonce, tier=tier, told_by=told_by, outputs=outputs, folder=folder, meter=meter)
