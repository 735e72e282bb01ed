"""Linux's own means of giving up rights, by raw system calls: Landlock, capabilities, seccomp, resource limits.

Runs in the fork server, which has the standard library and nothing else.
"""

from __future__ import annotations

import ctypes
import os
import struct

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long

# The same numbers on every architecture (include/uapi/asm-generic/unistd.h).
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
LANDLOCK_CREATE_RULESET_VERSION, LANDLOCK_RULE_PATH_BENEATH = 1, 1
# include/uapi/linux/landlock.h: rights that each ABI version knows, as a number of bits.
FS_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # and as in 5 later
NET_RIGHTS = 0b11  # bind and connect TCP; from ABI 4
SCOPES = 0b11  # abstract Unix sockets and signals; from ABI 6
EXECUTE, READ_FILE, READ_DIR = 1 << 0, 1 << 2, 1 << 3

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
SECCOMP_MODE_FILTER = 2
LINUX_CAPABILITY_VERSION_3 = 0x20080522
CAPSET = {"x86_64": 126, "aarch64": 91}


def landlock_abi() -> int:
    """The kernel's Landlock version; 0 where it has none, or none that is switched on."""
    found = _LIBC.syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(1))
    return max(0, int(found))


def read_only(paths: list[str]) -> None:
    """From here on this process and its children open nothing but `paths` and what is beneath them, for reading.

    No TCP, no abstract Unix socket and no signal to processes outside, where the kernel knows how to forbid it.

    Raises OSError.
    """
    abi = landlock_abi()
    rights = (1 << FS_RIGHTS[min(abi, 5)]) - 1
    attributes = struct.pack("QQQ", rights, NET_RIGHTS if abi >= 4 else 0, SCOPES if abi >= 6 else 0)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = _call(LANDLOCK_CREATE_RULESET, attributes[:size], ctypes.c_size_t(size), ctypes.c_uint(0))
    for path in paths:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        # struct landlock_path_beneath_attr is packed: allowed_access, parent_fd
        allowed = EXECUTE | READ_FILE | (READ_DIR if os.path.isdir(path) else 0)
        beneath = struct.pack("=Qi", allowed, opened)
        _call(LANDLOCK_ADD_RULE, ruleset, LANDLOCK_RULE_PATH_BENEATH, beneath, ctypes.c_uint(0))
        os.close(opened)
    no_new_privileges()
    _call(LANDLOCK_RESTRICT_SELF, ruleset, ctypes.c_uint(0))
    os.close(ruleset)


def no_new_privileges() -> None:
    _prctl(PR_SET_NO_NEW_PRIVS, 1)


def drop_capabilities() -> None:
    """What root has and others have not: raising limits, reading other users' files, ... Raises OSError."""
    header = struct.pack("Ii", LINUX_CAPABILITY_VERSION_3, 0)
    _call(CAPSET[os.uname().machine], header, bytes(24))


def die_with_parent(parent: int) -> None:
    """The kernel kills this process when its parent ends, however that ends."""
    _prctl(PR_SET_PDEATHSIG, 9)
    if os.getppid() != parent:
        os._exit(1)


def only_compute(program: bytes) -> None:
    """Installs a seccomp filter (`struct sock_filter` after `struct sock_filter`). Raises OSError."""
    _prctl(PR_SET_DUMPABLE, 0)
    instructions = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog { unsigned short len; struct sock_filter *filter; }
    described = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(instructions))
    _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_char_p(described))


def _prctl(option: int, *arguments: object) -> None:
    padded = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in (*arguments, 0, 0, 0, 0)[:4]]
    if _LIBC.prctl(option, *padded) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}): {os.strerror(ctypes.get_errno())}")


def _call(number: int, *arguments: object) -> int:
    result = int(_LIBC.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"system call {number}: {os.strerror(ctypes.get_errno())}")
    return result
