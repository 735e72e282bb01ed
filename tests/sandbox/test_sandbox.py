"""What a program can do in the sandbox, at every level that this machine has: compute, and nothing else."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rlframe.sandbox import Limits, Outcome, Program, Sandbox, SandboxFailed, SandboxUnavailable
from rlframe.sandbox import sandbox as module

LIMITS = Limits(case_s=2.0, program_s=6.0, memory_mib=256, output_bytes=100_000)


@pytest.fixture(scope="module", params=["landlock", "bubblewrap"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """At exactly the level of the parameter; both are there wherever `make setup` has run on x86-64 Linux."""
    made = Sandbox(LIMITS, "landlock")
    made._server, made.level = module._tested(request.param), request.param
    yield made
    made.close()


def run(sandbox: Sandbox, source: str, *inputs: str) -> list[Outcome]:
    return sandbox.run(Program(source=source, function=None, inputs=list(inputs or [""])))


def call(sandbox: Sandbox, source: str, *arguments: list) -> list[Outcome]:
    inputs = [{"args": args, "kwargs": {}} for args in arguments]
    return sandbox.run(Program(source=source, function="f", inputs=inputs))


# Helpers while nothing runs: those that wait for the next two programs; with namespaces, their own and the server.
AT_REST = {"landlock": 2, "bubblewrap": 4}


def helpers(sandbox: Sandbox) -> int:
    """Processes below the one that was started, at rest: namespaces' own, those that wait for a case, and whatever a
    program has left."""
    assert sandbox._server is not None
    counts = []
    while len(counts) < 3 or len(set(counts[-3:])) > 1:
        time.sleep(0.02)
        counts.append(len(psutil.Process(sandbox._server._process.pid).children(recursive=True)))
    return counts[-1]


def test_a_program_reads_stdin_and_prints_and_a_function_takes_arguments_and_returns(sandbox: Sandbox):
    printed = run(sandbox, "a, b = map(int, input().split())\nprint(a + b)", "1 2\n", "30 12")
    assert [(one.status, one.output) for one in printed] == [("returned", b"3\n"), ("returned", b"42\n")]
    returned = call(sandbox, "from math import hypot\ndef f(a, b): return [hypot(a, b)]", [3, 4], [5, 12])
    assert [(one.status, one.output) for one in returned] == [("returned", b"[5.0]"), ("returned", b"[13.0]")]


def test_the_standard_library_is_there_and_so_are_threads(sandbox: Sandbox):
    source = (
        "import collections, heapq, itertools, random, re, decimal, fractions, hashlib, zlib, sys, threading\n"
        "sys.setrecursionlimit(10**6); threading.stack_size(64 * 2**20); found = []\n"
        "def deep(n): return 0 if n == 0 else 1 + deep(n - 1)\n"
        "thread = threading.Thread(target=lambda: found.append(deep(20000))); thread.start(); thread.join()\n"
        "print(found, hashlib.sha256(b'').hexdigest()[:6])"
    )
    assert run(sandbox, source)[0].output == b"[20000] e3b0c4\n"


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
PROBES = {**READS, **{f"write {k}": v for k, v in WRITES.items()}, **NETWORK, **PROCESSES}


def test_every_probe_of_files_network_and_processes_is_refused(sandbox: Sandbox, tmp_path: Path):
    """One program with all probes, so that one that ends the program hides none of the others' answers."""
    (tmp_path / "ray_token").write_text("secret")
    values = {
        "parent": os.getpid(),
        "secret": tmp_path / "ray_token",
        "code": Path(module.__file__).with_name("server.py"),
        "project": Path(module.__file__).parents[2],
        "port": 9,
    }
    assert len(PROBES) >= 45
    through = []
    for name, probe in PROBES.items():
        attempt = f"try:\n    {probe.format(**values)}\n    print('through')"
        source = f"{CALL}\n{attempt}\nexcept (OSError, ValueError) as error:\n    print('refused', error)"
        outcome = run(sandbox, source)[0]
        if not outcome.output.startswith(b"refused"):
            through.append((name, outcome))
    assert through == []
    assert not list(Path("/tmp").glob("rlframe_probe")) and not list(Path("/dev/shm").glob("rlframe_probe"))


BOMBS = {
    "a loop": ("while True: pass", {"timeout"}),
    "a sleep": ("import time; time.sleep(60)", {"timeout"}),
    "a regular expression": ("import re; re.match('(a+)+$', 'a' * 40 + 'b')", {"timeout"}),
    "an endless recursion": ("def f(): f()\nf()", {"raised"}),
    "a recursion without a limit": (
        "import sys; sys.setrecursionlimit(10**9)\ndef f(): f()\nf()",
        {"died", "raised", "timeout"},
    ),
    "memory": ("x = bytearray(10**9)", {"raised"}),
    "growing memory": ("x = []\nwhile True: x.append(bytearray(10**7))", {"raised"}),
    "a huge power": ("x = 10 ** (10 ** 10)", {"timeout", "raised"}),
    "threads": (
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(60,)).start()",
        {"raised", "timeout"},
    ),
    "open files": ("x = []\nwhile True: x.append(open(1, closefd=False)); import os; os.dup(1)", {"raised"}),
    "output": ("while True: print('x' * 1000)", {"output"}),
    "output on stderr": ("import sys\nwhile True: sys.stderr.write('x' * 1000)", {"timeout"}),
    "waiting for input that does not come": ("input(); input()", {"raised"}),
    "a closed stdout and a loop": ("import os; os.close(1); os.close(2)\nwhile True: pass", {"timeout"}),
    "a crash": ("import ctypes; ctypes.string_at(0)", {"died"}),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_ends_within_its_bounds_leaves_nothing_and_the_next_program_runs(sandbox: Sandbox, name: str):
    source, expected = BOMBS[name]
    began = time.monotonic()
    outcome = run(sandbox, source)[0]
    assert outcome.status in expected, outcome
    assert time.monotonic() - began < LIMITS.program_s
    assert len(outcome.output) <= LIMITS.output_bytes + 1 and len(outcome.detail) <= 2100
    assert run(sandbox, "print(1)")[0].output == b"1\n"
    deadline = time.monotonic() + 3
    while helpers(sandbox) != AT_REST[sandbox.level] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert helpers(sandbox) == AT_REST[sandbox.level]


def test_nul_and_bytes_that_are_no_utf8_come_out_as_they_went_in(sandbox: Sandbox):
    source = "import sys; sys.stdout.buffer.write(b'\\x00\\xff\\n')"
    assert run(sandbox, source)[0].output == b"\x00\xff\n"


def test_a_program_that_ends_itself_keeps_what_it_had_printed(sandbox: Sandbox):
    outcomes = run(sandbox, "import os, sys; print(input()); sys.stdout.flush(); os._exit(0)", "a", "b")
    assert [(one.status, one.output) for one in outcomes] == [("returned", b"a\n"), ("returned", b"b\n")]


ENDS = {
    "a thread that nobody waits for": (
        "import threading, time\nthreading.Thread(target=lambda: (time.sleep(.1), print(2))).start()"
    ),
    "a pool that nobody waits for": "from concurrent.futures import ThreadPoolExecutor as P\nP(1).submit(print, 2)",
    "output at exit": (
        "import atexit, io, sys\nkept, sys.stdout = sys.stdout, io.StringIO()\n"
        "atexit.register(lambda: (kept.write(sys.stdout.getvalue()), kept.flush()))\nprint(2)"
    ),
    "the first stdout": "import io, sys\nsys.stdout = io.StringIO()\nsys.__stdout__.write('2\\n')",
    "two stdouts in turn": "import sys\nprint(end='2')\nsys.__stdout__.write('\\n')",
    "another stdout": "import sys\nsys.stdout.close()\nsys.stdout = open(1, 'w', closefd=False)\nprint(2)",
    "exit()": "print(2)\nexit()\nprint(3)",
    "quit(0)": "print(2)\nquit(0)",
}


@pytest.mark.parametrize("name", ENDS)
def test_a_script_ends_as_it_does_in_an_interpreter_of_its_own(sandbox: Sandbox, name: str):
    [outcome] = run(sandbox, ENDS[name])
    assert (outcome.status, outcome.output) == ("returned", b"2\n")


def test_after_a_case_that_loops_the_others_are_not_run(sandbox: Sandbox):
    began = time.monotonic()
    outcomes = run(sandbox, "n = int(input())\nwhile n == 1: pass\nprint(n)", "0", "1", "0", "0")
    assert [one.status for one in outcomes] == ["returned", "timeout", "skipped", "skipped"]
    assert time.monotonic() - began < LIMITS.program_s


def test_more_results_than_were_asked_for_are_none(sandbox: Sandbox):
    source = "import os\ndef f(n):\n    os.write(3, b'1\\n2\\n3\\n4\\n')\n    return n"
    assert {one.status for one in call(sandbox, source, [1], [2])} == {"raised"}


def test_a_result_beyond_the_bound_of_a_case_is_none_though_others_leave_room(sandbox: Sandbox):
    outcomes = call(sandbox, "def f(n): return 'x' * n", [10], [LIMITS.output_bytes + 1], [10])
    assert [one.status for one in outcomes] == ["returned", "output", "returned"]
    assert max(len(one.output) for one in outcomes) == LIMITS.output_bytes + 1


def test_a_script_that_goes_on_printing_gets_no_more_time_for_it(sandbox: Sandbox):
    began = time.monotonic()
    [outcome] = run(sandbox, "import time\nfor n in range(60): print(n, flush=True); time.sleep(0.1)")
    assert outcome.status == "timeout" and outcome.output.startswith(b"0\n1\n")
    assert time.monotonic() - began < LIMITS.program_s


def test_one_program_finds_nothing_of_the_one_before(sandbox: Sandbox):
    run(sandbox, "SECRET_OF_THE_FIRST = 'alpha' + 'omega'; import builtins, json; builtins.leak = 1; json.leak = 1")
    source = (
        "import builtins, gc, json\n"
        "texts = [o for o in gc.get_objects() if isinstance(o, (str, bytes, dict))]\n"
        "texts = [o for o in texts if 'SECRET_OF' + '_THE_FIRST' in str(o)[:9999]]\n"
        "print(hasattr(builtins, 'leak'), hasattr(json, 'leak'), len([t for t in texts if t is not globals()]))"
    )
    assert run(sandbox, source)[0].output == b"False False 0\n"


def test_when_its_server_is_killed_a_program_has_no_outcome_and_the_next_one_runs():
    sandbox = Sandbox(LIMITS, "landlock")
    sandbox.start()
    assert sandbox._server is not None
    inside = psutil.Process(sandbox._server._process.pid).children(recursive=True)
    os.killpg(sandbox._server._process.pid, signal.SIGKILL)
    assert psutil.wait_procs(inside, timeout=5)[1] == []  # namespaces follow their first process a moment later
    with pytest.raises(SandboxFailed):
        run(sandbox, "print(1)")
    assert run(sandbox, "print(2)")[0].output == b"2\n"
    sandbox.close()


def test_when_the_trusted_process_is_killed_nothing_of_the_sandbox_stays(tmp_path: Path):
    script = tmp_path / "parent.py"
    script.write_text(
        "from rlframe.sandbox import *\n"
        "s = Sandbox(Limits(case_s=60.0, program_s=60.0, memory_mib=256, output_bytes=100), 'landlock')\n"
        "s.start(); print(s._server._process.pid, flush=True)\n"
        "s.run(Program(source='while True: pass', function=None, inputs=['']))\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    server = psutil.Process(int(parent.stdout.readline()))
    time.sleep(0.5)
    family = [server, *server.children(recursive=True)]
    assert len(family) >= 3
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(family, timeout=5)
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []


def test_without_landlock_nothing_is_run_and_the_message_says_what_is_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "landlock_abi", lambda: 0)
    with pytest.raises(SandboxUnavailable, match=r"landlock: the kernel has no Landlock"):
        run(Sandbox(LIMITS, "landlock"), "print(1)")


def test_a_level_that_is_asked_for_and_not_there_is_refused_rather_than_replaced(monkeypatch: pytest.MonkeyPatch):
    def without_bwrap(level: str) -> list[str]:
        raise FileNotFoundError("there is no bwrap")

    monkeypatch.setattr(module, "command", without_bwrap)
    with pytest.raises(
        SandboxUnavailable, match=r"min_isolation=bubblewrap or not at all[\s\S]*bubblewrap: there is no bwrap"
    ):
        Sandbox(LIMITS, "bubblewrap").start()


def test_a_server_whose_doors_are_open_does_not_pass_its_self_test(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "PROBES", "print('open: reads /etc/passwd')")
    with pytest.raises(SandboxUnavailable, match="its self-test found it open: reads /etc/passwd"):
        Sandbox(LIMITS, "landlock").start()


def test_where_a_process_cannot_give_up_its_rights_no_program_runs_and_the_message_names_the_call_that_failed(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(module.seccomp, "build", lambda: bytes(8))  # an instruction that loads nothing and ends nothing
    with pytest.raises(SandboxUnavailable, match=r"the server ended\n *OSError.*system call \d+: Invalid argument"):
        Sandbox(LIMITS, "landlock").start()
