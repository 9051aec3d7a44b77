"""What the sandbox asks the kernel for: namespaces, Landlock and seccomp, through libc and nothing else.

This file is part of what every sandboxed interpreter starts with: it imports the standard library only and runs on
Python 3.9 and newer, hence no annotations. Numbers and structures are those of the Linux user-space headers
(linux/landlock.h, linux/seccomp.h, linux/filter.h, asm/unistd_64.h).
"""

import ctypes
import os
import struct
import sys

DENIED = {
    "socket": 41, "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "pidfd_getfd": 438,
    "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "open_tree": 428, "move_mount": 429,
    "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433, "mount_setattr": 442,
    "unshare": 272, "setns": 308, "bpf": 321, "perf_event_open": 298, "userfaultfd": 323,
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
    "name_to_handle_at": 303, "open_by_handle_at": 304, "kexec_load": 246, "kexec_file_load": 320,
    "init_module": 175, "finit_module": 313, "delete_module": 176, "reboot": 169, "swapon": 167, "swapoff": 168,
    "keyctl": 250, "add_key": 248, "request_key": 249, "setsid": 112, "setpgid": 109, "socketpair": 53,
    "shmget": 29, "shmat": 30, "shmctl": 31, "shmdt": 67, "semget": 64, "semop": 65, "semctl": 66, "semtimedop": 220,
    "msgget": 68, "msgsnd": 69, "msgrcv": 70, "msgctl": 71, "mq_open": 240, "mq_unlink": 241, "mq_timedsend": 242,
    "mq_timedreceive": 243, "mq_notify": 244, "mq_getsetattr": 245, "memfd_create": 319, "memfd_secret": 447,
    "migrate_pages": 256, "move_pages": 279, "process_madvise": 440, "process_mrelease": 448, "kcmp": 312,
    "inotify_init": 253, "inotify_init1": 294, "fanotify_init": 300, "fanotify_mark": 301,
    "acct": 163, "quotactl": 179, "quotactl_fd": 443, "syslog": 103, "vhangup": 153,
}  # fmt: skip
"""Calls that no program needs here, with their numbers on x86-64.

Besides what reaches other processes and the machine: sockets in pairs (a datagram one sends to any address), queues,
semaphores and memory that outlive a program or that no process is seen to hold, and what is scarce per user.
"""

REPLACED = {"clone3": 435}
"""Calls whose flags lie in memory, out of a filter's sight; libraries that hear of no such call use the older one."""

METADATA = {
    "truncate": 76, "chmod": 90, "fchmod": 91, "fchmodat": 268, "fchmodat2": 452,
    "chown": 92, "fchown": 93, "lchown": 94, "fchownat": 260,
    "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190,
    "removexattr": 197, "lremovexattr": 198, "fremovexattr": 199,
    "utime": 132, "utimes": 235, "futimesat": 261, "utimensat": 280,
}  # fmt: skip
"""Calls that change files without opening them, which Landlock does not see (truncate: before its ABI 3)."""

LIMITS_OF_OTHERS = {
    "prlimit64": 302, "sched_setparam": 142, "sched_setscheduler": 144, "sched_setaffinity": 203, "sched_setattr": 314,
}  # fmt: skip
SIGNALS = {"kill": 62, "tkill": 200, "tgkill": 234, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297}
"""Calls that name a process first: with a filter, the caller itself (or its group, 0) is the only one allowed."""
PIDFD_SIGNALS = {"pidfd_send_signal": 424}

ARGUMENTS = {
    # Neither as a child of one's parent, nor in new namespaces.
    "clone": (56, ((0, 0x7E028000, (0,)),)),
    # Shared memory without a file leaves no trace in a process that has touched it and let go of its pages.
    "mmap": (9, ((3, 0x21, (0x00, 0x01, 0x20)),)),
    # Priorities of the caller itself, not of its group or user.
    "setpriority": (141, ((0, 0xFFFFFFFF, (0,)), (1, 0xFFFFFFFF, (0,)))),
    "ioprio_set": (251, ((0, 0xFFFFFFFF, (1,)), (1, 0xFFFFFFFF, (0,)))),
    # Everything but leases, notices and the size of pipes, of which each user has a share.
    "fcntl": (72, ((1, 0xFFFFFFFF, (*range(17), 36, 37, 38, 1030, 1032, 1034)),)),
}
"""Calls that are right with some arguments only: number, then per argument its place, mask, and values allowed."""

FORKS = {"clone": 56, "fork": 57, "vfork": 58}
"""Calls that begin a process or a thread; clone3 is not there."""

SCOPED_SIGNALS_ABI = 6
"""From this Landlock ABI on the kernel itself keeps signals inside."""

_X86_64 = 0xC000003E
_AUDIT_ARCH = {"x86_64": _X86_64, "aarch64": 0xC00000B7, "riscv64": 0xC00000F3}
_X32 = 0x40000000
_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_ALLOW, _EPERM, _ENOSYS, _KILL, _ASK = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000, 0x7FC00000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
# linux/seccomp.h: a question is 80 bytes long and begins with its number, which the answer repeats.
_SECCOMP, _SET_FILTER, _NEW_LISTENER = {"seccomp": 317}, 1, 1 << 3
_RECEIVE, _SEND, _QUESTION_BYTES, _GO_ON = 0xC0502100, 0xC0182101, 80, 1

_EXECUTE, _WRITE, _READ, _READ_DIR, _TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
_OF_FILES = _EXECUTE | _WRITE | _READ | _TRUNCATE | 1 << 15

_NAMESPACES = 0x10000000 | 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000
_MS_NOSUID_NODEV, _MS_REC_PRIVATE = 2 | 4, 0x4000 | 0x40000
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_MOUNT_SETATTR = 442
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
_CAPABILITIES_VERSION = 0x20080522

BYTE_ORDER = sys.byteorder
_LINUX = sys.platform == "linux"
_MACHINE = os.uname().machine
_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result, what):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def landlock_abi():
    """Return the version of Landlock that the kernel offers, 0 for none."""
    return max(0, _libc.syscall(444, None, ctypes.c_size_t(0), 1)) if _LINUX else 0


def die_with_parent():
    """Have the kernel kill this process when the one that started it ends."""
    if _LINUX:
        _checked(_libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0), "prctl(PDEATHSIG)")


def give_up_privileges():
    """Make sure that no program started from here gains any."""
    if _LINUX:
        _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(NO_NEW_PRIVS)")


def attend():
    """Have the orphans among this process's descendants become its children, and nobody look into it."""
    if _LINUX:
        _checked(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(CHILD_SUBREAPER)")
        _checked(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl(DUMPABLE)")


def enter_namespaces():
    """Leave the host's users, mounts, network, processes (from the next child on) and shared memory."""
    user, group = os.getuid(), os.getgid()
    _checked(_libc.unshare(_NAMESPACES), "unshare")
    for file, line in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{file}", "w") as out:
            out.write(line)


def mount_private(size_bytes, files):
    """Make every mount read-only and put an empty, limited file system over the working folder."""
    _checked(_libc.mount(None, b"/", None, _MS_REC_PRIVATE, None), "mount(private)")
    read_only = struct.pack("4Q", 1, 0, 0, 0)
    _checked(
        _libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, b"/", _AT_RECURSIVE, read_only, ctypes.c_size_t(32)), "mount_setattr"
    )
    folder = os.path.basename(os.getcwd())
    options = f"size={size_bytes},nr_inodes={files},mode=700".encode()
    _checked(_libc.mount(b"none", b".", b"tmpfs", _MS_NOSUID_NODEV, options), "mount(tmpfs)")
    os.chdir(f"../{folder}")


def drop_capabilities():
    """Give up what creating a user namespace gave."""
    header, none = struct.pack("Ii", _CAPABILITIES_VERSION, 0), bytes(24)
    _checked(_libc.capset(header, none), "capset")


def restrict_files(abi, readable):
    """Allow reading `readable` and everything in the working folder; no other file, port or (ABI 6) signal."""
    handled = (1 << 13) - 1
    handled |= (1 << 13) * (abi >= 2) | (1 << 14) * (abi >= 3) | (1 << 15) * (abi >= 5)
    network, scoped = 3 * (abi >= 4), 3 * (abi >= SCOPED_SIGNALS_ABI)
    attribute = struct.pack("3Q", handled, network, scoped)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    rules = _checked(_libc.syscall(444, attribute, ctypes.c_size_t(len(attribute)), 0), "landlock_create_ruleset")
    for path in readable:
        _allow(rules, path, (_EXECUTE | _READ | _READ_DIR) & handled)
    for path, rights in (("/dev/null", _READ | _WRITE | _TRUNCATE), ("/dev/urandom", _READ)):
        _allow(rules, path, rights & handled)
    _allow(rules, ".", handled)
    _checked(_libc.syscall(446, rules, 0), "landlock_restrict_self")
    os.close(rules)


def _allow(rules, path, rights):
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not os.path.isdir(path):
        rights &= _OF_FILES
    rule = struct.pack("=Qi", rights, place)
    _checked(_libc.syscall(445, rules, 1, rule, 0), f"landlock_add_rule {path}")
    os.close(place)


def can_filter():
    """Tell whether the numbers of system calls are known here."""
    return _LINUX and _MACHINE in _AUDIT_ARCH and (_MACHINE == "x86_64" or _seccomp_library() is not None)


def restrict_calls(only_self, denied):
    """Answer EPERM to `denied`, to `only_self` where they name another process, and to arguments not in ARGUMENTS."""
    of_itself = ((0, 0xFFFFFFFF, (0, os.getpid())),)
    arguments = [(number, of_itself) for number in _numbers(only_self)]
    for name, (number, conditions) in ARGUMENTS.items():
        arguments += [(here, conditions) for here in _numbers({name: number})]
    _checked(_install(_filter(arguments, _numbers(denied), _numbers(REPLACED)), 0), "seccomp")


def listen(calls):
    """Have `calls` of this process and its descendants wait for an answer; return where they ask.

    None if the kernel does not let it, or somebody else listens to calls of this process already.
    """
    asked = [step for number in _numbers(calls) for step in ((_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ASK))]
    listener = _install([(_LOAD, 0, 0, _NUMBER), *asked, (_RETURN, 0, 0, _ALLOW)], _NEW_LISTENER)
    return None if listener < 0 else listener


def next_call(listener):
    """Wait for a call that asks, and return the number of its question."""
    question = ctypes.create_string_buffer(_QUESTION_BYTES)
    while _libc.ioctl(listener, ctypes.c_ulong(_RECEIVE), question) < 0:
        # It was killed while it waited, or this call was interrupted.
        ctypes.memset(question, 0, _QUESTION_BYTES)
    return struct.unpack_from("Q", question)[0]


def answer_call(listener, question, error):
    """Let a call go on (`error` 0) or fail with an error number."""
    answer = struct.pack("QqiI", question, 0, -error, 0 if error else _GO_ON)
    _libc.ioctl(listener, ctypes.c_ulong(_SEND), answer)


def _install(steps, flags):
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    header = ctypes.create_string_buffer(struct.pack("HP", len(steps), ctypes.addressof(code)))
    return _libc.syscall(_numbers(_SECCOMP)[0], _SET_FILTER, flags, header)


def _filter(arguments, denied, replaced):
    """Return the filter as steps (operation, skip if true, skip if false, value); see linux/filter.h."""
    architecture = _AUDIT_ARCH[_MACHINE]
    steps = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)]
    if architecture == _X86_64:
        steps += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    for number, conditions in arguments:
        body = [step for condition in conditions for step in _holds(*condition)]
        steps += [(_EQUAL, 0, len(body) + 1, number), *body, (_RETURN, 0, 0, _ALLOW)]
    for numbers, answer in ((denied, _EPERM), (replaced, _ENOSYS)):
        for number in numbers:
            steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, answer)]
    return [*steps, (_RETURN, 0, 0, _ALLOW)]


def _holds(place, mask, values):
    """Return the steps that go on behind themselves if an argument, masked, is one of `values`, else refuse."""
    tests = [(_EQUAL, len(values) - i, 0, value) for i, value in enumerate(values)]
    return [(_LOAD, 0, 0, _FIRST_ARGUMENT + 8 * place), (_AND, 0, 0, mask), *tests, (_RETURN, 0, 0, _EPERM)]


def _numbers(calls):
    """Return the numbers of calls on this machine; those that it does not have are left out."""
    if _MACHINE == "x86_64":
        return list(calls.values())
    library = _seccomp_library()
    assert library is not None, "can_filter() says no"
    return [number for name in calls if (number := library.seccomp_syscall_resolve_name(name.encode())) >= 0]


def _seccomp_library():
    try:
        return ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return None
