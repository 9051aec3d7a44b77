"""Counts the processes and threads of one program where the kernel counts only those of its user.

Programs of an ordinary user outside of namespaces share that user's process limit: a bomb would take what is its
neighbours'. So every fork waits for the program's attendant (seccomp_unotify(2), Linux 5.5), who lets it go on as long
as there are few enough. Runs inside the sandbox as kernel.py does: Python 3.9, hence no annotations.
"""

import _thread
import errno
import os
import time

from tasks.code.sandbox import kernel

# What a refused fork waits, lest a bomb keep its attendant busy.
_PAUSE_S = 0.01


class Gate:
    """Between a program and its attendant; made before they part, one end for each."""

    def __init__(self):
        # Not socket, whose import takes as long as the rest of the start.
        import _socket

        self._attendant, self._program = _socket.socketpair()
        self._rights = _socket.SOL_SOCKET, _socket.SCM_RIGHTS

    def shut(self):
        """Have every fork of this process and its descendants ask from here on; return whether the kernel lets it."""
        listener = kernel.listen(kernel.FORKS)
        if listener is not None:
            self._program.sendmsg([b"!"], [(*self._rights, listener.to_bytes(4, kernel.BYTE_ORDER))])
            os.close(listener)
        self._attendant.close()
        self._program.close()
        return listener is not None

    def keep(self, most):
        """Answer, in a thread, so that at most `most` processes and threads of the program run at a time."""
        self._program.close()
        for _, _, rights in self._attendant.recvmsg(1, 64)[1]:
            _thread.start_new_thread(_answer, (int.from_bytes(rights, kernel.BYTE_ORDER), most))
        self._attendant.close()


def _answer(listener, most):
    """Answer one fork after the other; those that have begun are counted again only when they might be too many."""
    spare = most - 1
    while True:
        fork = kernel.next_call(listener)
        if spare <= 0:
            spare = most - _running()
        if spare <= 0:
            time.sleep(_PAUSE_S)
        kernel.answer_call(listener, fork, 0 if spare > 0 else errno.EAGAIN)
        spare -= 1


def _running():
    """Return the number of processes and threads of this session, besides this process."""
    count, own, session = 0, os.getpid(), os.getsid(0)
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):
        try:
            if pid != own and os.getsid(pid) == session:
                count += len(os.listdir(f"/proc/{pid}/task"))
        except OSError:
            continue
    return count
