"""Attacks on files, network and processes, for a program or a cell in the sandbox to try."""

import os
from pathlib import Path

from rlframe.sandbox import sandbox as module

READS = {
    "/etc/passwd": "open('/etc/passwd').read()",
    "its own environment": "open('/proc/self/environ').read()",
    "the environment of process 1": "open('/proc/1/environ').read()",
    "the parent's environment": "open('/proc/{parent}/environ').read()",
    "the parent's memory map": "open('/proc/{parent}/maps').read()",
    "its own memory": "open('/proc/self/mem', 'rb').read(1)",
    "a list of processes": "__import__('os').listdir('/proc')",
    "a Ray token": "open('{secret}').read()",
    "its own code": "open('{code}').read()",
    "the project": "__import__('os').listdir('{project}')",
    "a home": "__import__('os').listdir('/root')",
    "shared memory": "__import__('os').listdir('/dev/shm')",
    "a device": "open('/dev/zero', 'rb').read(1)",
}
WRITES = {
    "a file in /tmp": "open('/tmp/rlframe_probe', 'w')",
    "a file where it stands": "open('rlframe_probe', 'w')",
    "shared memory": "open('/dev/shm/rlframe_probe', 'w')",
    "a file in memory": "__import__('os').memfd_create('x')",
    "its own code": "open('{code}', 'a')",
    "a folder": "__import__('os').mkdir('/tmp/rlframe_probe')",
    "a link": "__import__('os').symlink('/etc/passwd', '/tmp/rlframe_probe')",
    "the mode of a file": "__import__('os').chmod('{secret}', 0o777)",
    "a FIFO": "__import__('os').mkfifo('/tmp/rlframe_probe')",
}
NETWORK = {
    "IPv4": "socket.socket(socket.AF_INET).connect(('127.0.0.1', {port}))",
    "IPv6": "socket.socket(socket.AF_INET6).connect(('::1', {port}))",
    "UDP": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {port}))",
    "DNS": "socket.getaddrinfo('example.invalid', 80)",
    "raw": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "an abstract Unix socket": "socket.socket(socket.AF_UNIX).connect('\\0rlframe')",
    "a Unix socket": "socket.socket(socket.AF_UNIX).bind('/tmp/rlframe_probe')",
    "a socket pair": "socket.socketpair()",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
}
PROCESSES = {
    "fork": "os.fork() or os._exit(0)",
    "a subprocess": "__import__('subprocess').run(['/bin/true'])",
    "exec": "os.execv('/bin/true', ['true'])",
    "posix_spawn": "os.posix_spawn('/bin/true', ['true'], {{}})",
    "a signal to its supervisor": "os.kill(os.getppid(), 9)",
    "a signal to everybody": "os.kill(-1, 9)",
    "a signal to the trusted parent": "os.kill({parent}, 0)",
    "more memory": "__import__('resource').setrlimit(7, (1 << 40, 1 << 40)); raise SystemError",
    "unshare": "os.unshare(0x10000000) if hasattr(os, 'unshare') else ctypes_call(272, 0x10000000)",
    "ptrace": "ctypes_call(101, 16, {parent}, 0, 0)",
    "io_uring": "ctypes_call(425, 8, 0)",
    "bpf": "ctypes_call(321, 0, 0, 0)",
    "the keyring": "ctypes_call(250, 0, -3, 0)",
    "process_vm_readv": "ctypes_call(310, {parent}, 0, 0, 0, 0, 0)",
    "userfaultfd": "ctypes_call(323, 0)",
    "a namespace clone": "ctypes_call(56, 0x10000000 | 17, 0, 0, 0, 0)",
    "pidfd_open": "ctypes_call(434, {parent}, 0)",
}
CALL = """
import ctypes, os, socket
def ctypes_call(*numbers):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(*[ctypes.c_long(number) for number in numbers]) < 0:
        raise OSError(ctypes.get_errno(), 'denied')
"""
# Each fails in the sandbox with OSError or ValueError. The values in brackets come from `probe_values`.
PROBES = {**READS, **{f"write {name}": probe for name, probe in WRITES.items()}, **NETWORK, **PROCESSES}


def probe_values(folder: Path) -> dict[str, object]:
    """The targets of the attacks: this process, and a secret in a folder."""
    (folder / "ray_token").write_text("secret")
    return {
        "parent": os.getpid(),
        "secret": folder / "ray_token",
        "code": Path(module.__file__).with_name("server.py"),
        "project": Path(module.__file__).parents[2],
        "port": 9,
    }
