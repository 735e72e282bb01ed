"""The seccomp filter of a runner: allows the calls that Python needs to compute, to read files and to write pipes.

The filter lists allowed calls, because a list of forbidden calls would be out of date with the next kernel. Any other
call fails with EPERM, an OSError in the program; a call of another instruction set kills the program.
"""

from __future__ import annotations

import os
import struct

# name -> numbers on x86-64 and arm64 (arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h).
ALLOWED: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67),
    "close": (3, 57), "lseek": (8, 62), "getdents64": (217, 61),
    "stat": (4, None), "lstat": (6, None), "fstat": (5, 80), "newfstatat": (262, 79), "statx": (332, 291),
    "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439),
    "getcwd": (79, 17), "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24),
    "poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72),
    "mmap": (9, 222), "munmap": (11, 215), "mprotect": (10, 226), "mremap": (25, 216), "madvise": (28, 233),
    "brk": (12, 214), "membarrier": (324, 283),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132),
    "restart_syscall": (219, 128), "rt_sigpending": (127, 136), "rt_sigtimedwait": (128, 137),
    "rt_sigsuspend": (130, 133), "pause": (34, None), "alarm": (37, None), "getitimer": (36, 102),
    "setitimer": (38, 103),
    "getpid": (39, 172), "gettid": (186, 178), "getppid": (110, 173), "getuid": (102, 174), "geteuid": (107, 175),
    "getgid": (104, 176), "getegid": (108, 177), "getrusage": (98, 165), "sysinfo": (99, 179), "uname": (63, 160),
    "futex": (202, 98), "set_robust_list": (273, 99), "rseq": (334, 293), "set_tid_address": (218, 96),
    "arch_prctl": (158, None), "sched_yield": (24, 124), "sched_getaffinity": (204, 123),
    "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "gettimeofday": (96, 169), "time": (201, None), "times": (100, 153), "getrandom": (318, 278),
    "exit_group": (231, 94),
}  # fmt: skip
CLONE, CLONE3, EXIT = (56, 220), (435, 435), (60, 93)
OPEN, OPENAT, FCNTL, IOCTL, PRLIMIT64 = (2, None), (257, 56), (72, 25), (16, 29), (302, 261)

CLONE_THREAD = 0x10000
NAMESPACE_FLAGS = 0x7E020080  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET,TIME}
# O_WRONLY, O_RDWR, O_CREAT, O_TRUNC. Landlock before ABI 3 (Linux 6.2) lets O_RDONLY | O_TRUNC empty a file.
WRITE_FLAGS = 0o1103
FCNTL_COMMANDS = (0, 1, 2, 3, 1030)  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC
RLIMIT_STACK = 3
IOCTL_COMMANDS = (0x5401, 0x5450, 0x5451)  # TCGETS, for isatty(); FIONCLEX, FIOCLEX

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32_BIT = 0x40000000  # set in the call numbers of x86's third instruction set, x32
# SECCOMP_RET_*; NOTIFY is SECCOMP_RET_USER_NOTIF
KILL, ALLOW, NOTIFY, EPERM, ENOSYS = 0x80000000, 0x7FFF0000, 0x7FC00000, 0x00050001, 0x00050026
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF_LD|W|ABS, BPF_JMP|J*|K, BPF_RET|K
NUMBER, ARCH = 0, 4  # offsets in struct seccomp_data


def build(machine: str | None = None, *, threads: bool = True) -> bytes:
    """The filter as an array of `struct sock_filter`. Raises OSError on a machine without a list of call numbers.

    `threads`: allow new threads.
    """
    machine = machine or os.uname().machine
    if machine not in AUDIT_ARCH:
        raise OSError(f"no list of system calls for {machine}; there are {', '.join(AUDIT_ARCH)}")
    column = list(AUDIT_ARCH).index(machine)
    code = _Code()
    code.add(LOAD, ARCH)
    code.add(EQUAL, AUDIT_ARCH[machine], no="kill")
    code.add(LOAD, NUMBER)
    if machine == "x86_64":
        code.add(AT_LEAST, X32_BIT, yes="kill")
    verdicts = {numbers[column]: "allow" for numbers in (*ALLOWED.values(), EXIT)}
    # clone3 keeps its flags in memory, which no filter can read. Without clone3, glibc starts threads by clone.
    verdicts[CLONE3[column]] = "missing"
    checks = (
        *([(CLONE, _clone)] if threads else []),
        (OPEN, lambda code: _open(code, 1)),
        (OPENAT, lambda code: _open(code, 2)),
        (FCNTL, _fcntl),
        (IOCTL, _ioctl),
        (PRLIMIT64, _prlimit64),
    )
    verdicts |= {numbers[column]: f"check {numbers[column]}" for numbers, _ in checks}
    _search(code, sorted((number, verdict) for number, verdict in verdicts.items() if number is not None))
    for numbers, check in checks:
        if (number := numbers[column]) is not None:
            code.label(f"check {number}")
            check(code)
    for name, verdict in (("deny", EPERM), ("allow", ALLOW), ("missing", ENOSYS), ("kill", KILL)):
        code.label(name)
        code.add(RETURN, verdict)
    return code.assemble()


def build_notifier(machine: str | None = None) -> bytes:
    """The server's filter, which its runners inherit: notifies before a thread starts and before a thread ends."""
    machine = machine or os.uname().machine
    column = list(AUDIT_ARCH).index(machine)
    code = _Code()
    code.add(LOAD, ARCH)
    code.add(EQUAL, AUDIT_ARCH[machine], no="allow")  # the runner's filter kills the program
    code.add(LOAD, NUMBER)
    code.add(EQUAL, EXIT[column], yes="notify")
    code.add(EQUAL, CLONE[column], no="allow")
    code.add(LOAD, _argument(0))
    code.add(ANY_BIT, CLONE_THREAD, yes="notify")
    for name, verdict in (("allow", ALLOW), ("notify", NOTIFY)):
        code.label(name)
        code.add(RETURN, verdict)
    return code.assemble()


def _search(code: _Code, verdicts: list[tuple[int, str]]) -> None:
    """Binary search: for every runner, the kernel evaluates the filter on all call numbers while installing it."""
    if len(verdicts) <= 3:
        for index, (number, verdict) in enumerate(verdicts):
            code.add(EQUAL, number, yes=verdict, no="deny" if index == len(verdicts) - 1 else "")
        return
    middle = len(verdicts) // 2
    upper = f"from {verdicts[middle][0]}"
    code.add(AT_LEAST, verdicts[middle][0], yes=upper)
    _search(code, verdicts[:middle])
    code.label(upper)
    _search(code, verdicts[middle:])


def _clone(code: _Code) -> None:
    """Allows new threads, which share the process's limits, but no new process and no new namespace."""
    code.add(LOAD, _argument(0))
    code.add(ANY_BIT, NAMESPACE_FLAGS, yes="deny clone")
    code.add(ANY_BIT, CLONE_THREAD, yes="allow")
    code.label("deny clone")
    code.add(RETURN, EPERM)


def _open(code: _Code, flags_index: int) -> None:
    """Allows to open for reading only. `flags_index` is the position of the argument with the flags."""
    code.add(LOAD, _argument(flags_index))
    code.add(ANY_BIT, WRITE_FLAGS, no="allow")
    code.add(RETURN, EPERM)


def _fcntl(code: _Code) -> None:
    code.add(LOAD, _argument(1))
    for command in FCNTL_COMMANDS:
        code.add(EQUAL, command, yes="allow")
    code.add(RETURN, EPERM)


def _ioctl(code: _Code) -> None:
    code.add(LOAD, _argument(1))
    for command in IOCTL_COMMANDS:
        code.add(EQUAL, command, yes="allow")
    code.add(RETURN, EPERM)


def _prlimit64(code: _Code) -> None:
    """Allows a process to read its own limits, and to set only that of its stack, as deep recursions do."""
    code.add(LOAD, _argument(0))
    code.add(EQUAL, 0, no="deny prlimit")
    code.add(LOAD, _argument(1))
    code.add(EQUAL, RLIMIT_STACK, yes="allow")
    for word in (_argument(2), _argument(2) + 4):
        code.add(LOAD, word)
        code.add(EQUAL, 0, no="deny prlimit")
    code.add(RETURN, ALLOW)
    code.label("deny prlimit")
    code.add(RETURN, EPERM)


def _argument(index: int) -> int:
    """Offset in `struct seccomp_data` of an argument's lower word on a little-endian machine."""
    return 16 + 8 * index


class _Code:
    """A BPF program. Jumps go forward to labels; a jump with an empty label goes to the next instruction."""

    def __init__(self) -> None:
        self.instructions: list[tuple[int, str, str, int]] = []
        self.labels: dict[str, int] = {}

    def add(self, code: int, operand: int, *, yes: str = "", no: str = "") -> None:
        self.instructions.append((code, yes, no, operand))

    def label(self, name: str) -> None:
        self.labels[name] = len(self.instructions)

    def assemble(self) -> bytes:
        def jump(index: int, label: str) -> int:
            return self.labels[label] - index - 1 if label else 0

        return b"".join(
            struct.pack("HBBI", code, jump(index, yes), jump(index, no), operand)
            for index, (code, yes, no, operand) in enumerate(self.instructions)
        )
