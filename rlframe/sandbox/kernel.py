"""Linux's means to give up rights, by raw system calls: Landlock, capabilities, seccomp, resource limits.

The fork server and its runners use this module, and import as little as possible: `ctypes` would make a cold start a
third longer than `_ctypes` alone. Calls of a runner are built in the server, because a runner copies each memory page
that it writes to.
"""

import _ctypes
import posix

LONG_BYTES = 8
PRCTL, CAPSET, SECCOMP, PRLIMIT64, EXIT, TGKILL, UNSHARE = {
    "x86_64": (157, 126, 317, 302, 60, 234, 272),
    "aarch64": (167, 91, 277, 261, 93, 131, 97),
}.get(posix.uname().machine, (-1,) * 7)
CLONE_THREAD = 0x10000
LANDLOCK_RESTRICT_SELF = 446
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER = 1, 8
LINUX_CAPABILITY_VERSION_3 = 0x20080522
RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_STACK, RLIMIT_CORE, RLIMIT_NOFILE, RLIMIT_MEMLOCK, RLIMIT_AS = 0, 1, 3, 4, 7, 8, 9
UNLIMITED = (1 << 64) - 1
SIGKILL = 9


class _Long(_ctypes._SimpleCData):
    _type_ = "l"


class _Byte(_ctypes._SimpleCData):
    _type_ = "B"


class _Function(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO
    _restype_ = _Long


_THIS_PROCESS = _ctypes.dlopen(None, 0)  # pyright: ignore[reportArgumentType]
_syscall = _Function(_ctypes.dlsym(_THIS_PROCESS, "syscall"))


class Call:
    """A system call with its arguments, ready to be made. `bytes` are passed as a pointer."""

    def __init__(self, number: int, *arguments: int | bytes) -> None:
        self.number = number
        self.arguments = tuple(_Long(word) if isinstance(word, int) else word for word in (number, *arguments))

    def __call__(self) -> int:
        """Raises OSError."""
        result = _syscall(*self.arguments)
        if result < 0:
            error = _ctypes.get_errno()
            raise OSError(error, f"system call {self.number}: {posix.strerror(error)}")
        return result


class Filter:
    """A seccomp filter (an array of `struct sock_filter`), ready to be installed."""

    def __init__(self, program: bytes) -> None:
        self.instructions = (_Byte * len(program)).from_buffer_copy(program)
        # struct sock_fprog { unsigned short len; struct sock_filter *filter; }
        count, address = len(program) // 8, _ctypes.addressof(self.instructions)
        sock_fprog = count.to_bytes(LONG_BYTES, "little") + address.to_bytes(LONG_BYTES, "little")
        self.install = Call(SECCOMP, SECCOMP_SET_MODE_FILTER, 0, sock_fprog)
        # Returns a descriptor: its reader decides the calls for which the filter says NOTIFY.
        self.install_listener = Call(SECCOMP, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, sock_fprog)


class Bounds:
    """CPU seconds and bytes of address space, as two `struct rlimit`. The worker's message fills `memory`."""

    def __init__(self) -> None:
        self.memory = (_Byte * 32)()
        address = _ctypes.addressof(self.memory)
        self.limit_cpu = Call(PRLIMIT64, 0, RLIMIT_CPU, address, 0)
        self.limit_address_space = Call(PRLIMIT64, 0, RLIMIT_AS, address + 16, 0)


bounds = Bounds()
forbid_dump = Call(PRCTL, PR_SET_DUMPABLE, 0, 0, 0, 0)
_die_with_parent = Call(PRCTL, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)


def restrict(ruleset: int) -> None:
    """Binds this process and its children to a Landlock ruleset and forbids new privileges. Raises OSError."""
    forbid_new_privileges()
    Call(LANDLOCK_RESTRICT_SELF, ruleset, 0)()


def forbid_new_privileges() -> None:
    """Lets no program that is started give back rights, as sudo would; seccomp demands it. Raises OSError."""
    Call(PRCTL, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)()


def drop_capabilities() -> None:
    """Gives up root's powers, for example to raise limits or to read any user's files. Raises OSError."""
    header = LINUX_CAPABILITY_VERSION_3.to_bytes(4, "little") + bytes(4)  # the second number is 0: this process
    Call(CAPSET, header, bytes(24))()


def die_with_parent(parent: int) -> None:
    """Asks the kernel for a SIGKILL when the parent ends, for whatever reason."""
    _die_with_parent()
    if posix.getppid() != parent:  # the parent ended before the request
        posix._exit(1)


def thread_exists(process: int, thread: int) -> bool:
    """True until the kernel has removed a thread of a child process."""
    try:
        Call(TGKILL, process, thread, 0)()
    except ProcessLookupError:
        return False
    return True


def has_one_thread() -> bool:
    """True for a process without a second thread, be it of Python or of a library. See unshare(2), CLONE_THREAD."""
    try:
        Call(UNSHARE, CLONE_THREAD)()
    except OSError:
        return False
    return True


def set_limit(resource: int, soft: int, hard: int | None = None) -> None:
    """Sets the soft and the hard limit of an RLIMIT_ resource; None: both are equal. Raises OSError."""
    limits = soft, soft if hard is None else hard
    Call(PRLIMIT64, 0, resource, b"".join(limit.to_bytes(LONG_BYTES, "little") for limit in limits), 0)()
