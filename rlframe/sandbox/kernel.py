"""Linux's own means of giving up rights, by raw system calls: Landlock, capabilities, seccomp, resource limits.

Runs in the fork server and its runners, which have the standard library and nothing else. Of that `_ctypes` alone, for
importing ctypes would make a cold start a third longer. What a runner calls is made ready in the server: each page
that it writes to is copied.
"""

import _ctypes
import posix

LONG = 8
PRCTL, CAPSET, SECCOMP, PRLIMIT64, EXIT, TGKILL = {
    "x86_64": (157, 126, 317, 302, 60, 234),
    "aarch64": (167, 91, 277, 261, 93, 131),
}.get(posix.uname().machine, (-1,) * 6)
LANDLOCK_RESTRICT_SELF = 446
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER = 1, 8
LINUX_CAPABILITY_VERSION_3 = 0x20080522
RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_CORE, RLIMIT_NOFILE, RLIMIT_MEMLOCK, RLIMIT_AS = 0, 1, 4, 7, 8, 9


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
    """A system call and its arguments: integers, or bytes to point at."""

    def __init__(self, number: int, *arguments: int | bytes) -> None:
        self.number = number
        self.arguments = tuple(_Long(one) if isinstance(one, int) else one for one in (number, *arguments))

    def __call__(self) -> int:
        """Raises OSError."""
        result = _syscall(*self.arguments)
        if result < 0:
            error = _ctypes.get_errno()
            raise OSError(error, f"system call {self.number}: {posix.strerror(error)}")
        return result


class Filter:
    """A seccomp filter, `struct sock_filter` after `struct sock_filter`, ready to be installed."""

    def __init__(self, program: bytes) -> None:
        self.instructions = (_Byte * len(program)).from_buffer_copy(program)
        # struct sock_fprog { unsigned short len; struct sock_filter *filter; }
        count, address = len(program) // 8, _ctypes.addressof(self.instructions)
        described = count.to_bytes(LONG, "little") + address.to_bytes(LONG, "little")
        self.install = Call(SECCOMP, SECCOMP_SET_MODE_FILTER, 0, described)
        # Its result: where to hear of the calls that the filter asks about.
        self.listen = Call(SECCOMP, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, described)


class Bounds:
    """CPU seconds and bytes of address space: two of `struct rlimit`, to be filled by whoever asks for a case."""

    def __init__(self) -> None:
        self.memory = (_Byte * 32)()
        address = _ctypes.addressof(self.memory)
        self.cpu = Call(PRLIMIT64, 0, RLIMIT_CPU, address, 0)
        self.space = Call(PRLIMIT64, 0, RLIMIT_AS, address + 16, 0)


bounds = Bounds()
die = Call(PRCTL, PR_SET_PDEATHSIG, 9, 0, 0, 0)
no_dump = Call(PRCTL, PR_SET_DUMPABLE, 0, 0, 0, 0)


def restrict(ruleset: int) -> None:
    """From here on this process and its children reach no more files than a Landlock ruleset says, and gain no
    privileges. Raises OSError."""
    Call(PRCTL, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)()
    Call(LANDLOCK_RESTRICT_SELF, ruleset, 0)()


def drop_capabilities() -> None:
    """What root has and others have not: raising limits, reading other users' files, ... Raises OSError."""
    header = LINUX_CAPABILITY_VERSION_3.to_bytes(4, "little") + bytes(4)  # and 0: this process
    Call(CAPSET, header, bytes(24))()


def die_with_parent(parent: int) -> None:
    """The kernel kills this process when its parent ends, however that ends."""
    die()
    if posix.getppid() != parent:
        posix._exit(1)


def is_there(process: int, thread: int) -> bool:
    """Whether a thread of a child is not yet gone."""
    try:
        Call(TGKILL, process, thread, 0)()
    except ProcessLookupError:
        return False
    return True


def limit(what: int, most: int) -> None:
    """Raises OSError."""
    Call(PRLIMIT64, 0, what, most.to_bytes(LONG, "little") * 2, 0)()
