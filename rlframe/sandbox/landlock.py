"""The Landlock ruleset of a fork server. The worker builds the ruleset while the server's interpreter starts."""

from __future__ import annotations

import ctypes
import os
import struct

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long

# The numbers are equal on every architecture (include/uapi/asm-generic/unistd.h).
CREATE_RULESET, ADD_RULE = 444, 445
CREATE_RULESET_VERSION, RULE_PATH_BENEATH = 1, 1
# include/uapi/linux/landlock.h: ABI version -> number of file rights, which are the lowest bits of a mask.
FS_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # later versions: as 5
NET_RIGHTS = 0b11  # bind and connect TCP; from ABI 4
SCOPES = 0b11  # abstract Unix sockets and signals; from ABI 6
READ_FILE, READ_DIR = 1 << 2, 1 << 3


def landlock_abi() -> int:
    """The kernel's Landlock version; 0 where Landlock is missing or switched off."""
    version = _LIBC.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(CREATE_RULESET_VERSION))
    return max(0, int(version))


def read_only(paths: list[str]) -> int:
    """Descriptor of a ruleset that allows to read `paths` and all files beneath, and to open or
    execute nothing else.

    The ruleset also forbids TCP, abstract Unix sockets and signals to outside processes, where the kernel supports it.
    Rules hold for files and not for names: they are valid inside a mount namespace too. Raises OSError.
    """
    abi = landlock_abi()
    rights = (1 << FS_RIGHTS[min(abi, 5)]) - 1
    attributes = struct.pack("QQQ", rights, NET_RIGHTS if abi >= 4 else 0, SCOPES if abi >= 6 else 0)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = _call(CREATE_RULESET, attributes[:size], ctypes.c_size_t(size), ctypes.c_uint(0))
    try:
        for path in paths:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                # struct landlock_path_beneath_attr is packed: allowed_access, parent_fd
                allowed = READ_FILE | (READ_DIR if os.path.isdir(path) else 0)
                rule = struct.pack("=Qi", allowed, descriptor)
                _call(ADD_RULE, ruleset, RULE_PATH_BENEATH, rule, ctypes.c_uint(0))
            finally:
                os.close(descriptor)
    except BaseException:
        os.close(ruleset)
        raise
    return ruleset


def _call(number: int, *arguments: object) -> int:
    result = int(_LIBC.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"system call {number}: {os.strerror(ctypes.get_errno())}")
    return result
