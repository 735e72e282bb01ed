"""Programs that try to escape from the sandbox, and completions that try to stall the parser."""

import os
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from rlframe.reward.code import program_of
from rlframe.sandbox import Limits, Outcome, Program, Sandbox
from rlframe.sandbox import sandbox as module
from rlframe.sandbox.levels import readable_paths

LIMITS = Limits(case_s=5.0, program_s=5.0, memory_mib=256, output_bytes=4096)

# Prints the errno with which `call` fails; 0 where the call works.
ATTEMPT = """
import os
try:
    {call}
    print(0)
except OSError as error:
    print(error.errno)
"""
EPERM = "1"  # the error of seccomp; Landlock fails with 13, EACCES


def run(sandbox: Sandbox, call: str) -> Outcome:
    [outcome] = sandbox.run(Program(source=ATTEMPT.format(call=call), function=None, inputs=[""]))
    return outcome


def test_a_program_reads_no_virtual_environment(sandbox: Sandbox) -> None:
    outcome = run(sandbox, f"os.listdir({sysconfig.get_path('purelib')!r})")
    assert outcome.status == "returned", outcome.detail
    assert outcome.output.decode().strip() != "0"


def test_no_readable_path_is_inside_a_virtual_environment() -> None:
    assert sys.prefix != sys.base_prefix, "the tests run in a virtual environment"
    assert not [path for path in readable_paths() if path.startswith(sys.prefix)]


@pytest.mark.parametrize("flags", ["O_RDONLY | os.O_TRUNC", "O_RDONLY | os.O_CREAT", "O_WRONLY", "O_RDWR"])
def test_seccomp_alone_refuses_to_open_for_writing(sandbox: Sandbox, flags: str) -> None:
    # Before ABI 3, Landlock lets a program empty a file by O_RDONLY | O_TRUNC.
    assert run(sandbox, f"os.open(os.__file__, os.{flags})").output.decode().strip() == EPERM


def test_seccomp_refuses_the_older_call_open_too(sandbox: Sandbox) -> None:
    syscall = "import ctypes; libc = ctypes.CDLL(None, use_errno=True)"
    call = "libc.syscall(2, os.__file__.encode(), os.O_TRUNC)"
    outcome = run(sandbox, f"{syscall}; {call}; raise OSError(ctypes.get_errno(), '')")
    assert outcome.output.decode().strip() == ("1" if sysconfig.get_platform() == "linux-x86_64" else "38")


def test_a_program_cannot_read_a_link(sandbox: Sandbox) -> None:
    assert run(sandbox, "os.readlink('/proc/self/exe')").output.decode().strip() == EPERM


def test_a_program_reads_the_standard_library(sandbox: Sandbox) -> None:
    assert run(sandbox, "import decimal, fractions; open(os.__file__).read()").output.decode().strip() == "0"


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
PROBES = {**READS, **{f"write {name}": probe for name, probe in WRITES.items()}, **NETWORK, **PROCESSES}


def test_every_attack_on_files_network_and_processes_is_refused(sandbox: Sandbox, tmp_path: Path):
    """Each probe is a program of its own, so that a probe that ends its program hides no other result."""
    (tmp_path / "ray_token").write_text("secret")
    values = {
        "parent": os.getpid(),
        "secret": tmp_path / "ray_token",
        "code": Path(module.__file__).with_name("server.py"),
        "project": Path(module.__file__).parents[2],
        "port": 9,
    }
    assert len(PROBES) >= 45
    successes = []
    for name, probe in PROBES.items():
        attempt = f"try:\n    {probe.format(**values)}\n    print('through')"
        source = f"{CALL}\n{attempt}\nexcept (OSError, ValueError) as error:\n    print('refused', error)"
        [outcome] = sandbox.run(Program(source=source, function=None, inputs=[""]))
        if not outcome.output.startswith(b"refused"):
            successes.append((name, outcome))
    assert successes == []
    assert not list(Path("/tmp").glob("rlframe_probe")) and not list(Path("/dev/shm").glob("rlframe_probe"))


def test_a_fence_before_endless_spaces_is_parsed_within_a_second() -> None:
    start = time.process_time()
    assert program_of("```" + " " * 200_000 + "x") is None
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize("fence", ["", "python", "py ", " Python3 \t"])
def test_every_spelling_of_python_opens_a_code_block(fence: str) -> None:
    assert program_of(f"```{fence}\nx = 1\n```") == "x = 1\n"
