"""CPU time bounds a program, whatever else the machine does; a kill from outside is no verdict."""

import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
import pytest

from rlframe.sandbox import Limits, Outcome, Program, Sandbox, SandboxFailed
from rlframe.sandbox.case import Case
from rlframe.sandbox.timer import WALL_PER_CPU

LIMITS = Limits(case_s=1.0, program_s=2.5, memory_mib=256, output_bytes=1000)
# Uses the CPU for so many seconds by the program's own clock.
BURN = (
    "import time\ndef burn(s):\n    end = time.process_time() + s\n"
    "    while time.process_time() < end: pass\n    return s\n"
)
BURN_IN_THREADS = (
    "import hashlib, threading\n"  # a hash of much data lets other threads run
    "def burn():\n    while True: hashlib.sha256(bytes(10**7))\n"
    "threads = [threading.Thread(target=burn) for _ in range(4)]\nfor thread in threads: thread.start()\n"
    "threads[0].join()"
)


def run(sandbox: Sandbox, source: str, *inputs: str) -> list[Outcome]:
    return list(sandbox.run(Program(source=source, function=None, inputs=list(inputs or [""]))))


def call(sandbox: Sandbox, *seconds: float) -> list[str]:
    inputs = [{"args": [s], "kwargs": {}} for s in seconds]
    return [outcome.status for outcome in sandbox.run(Program(source=BURN, function="burn", inputs=inputs))]


@contextmanager
def hogs(count: int) -> Iterator[None]:
    """Processes that use every core for as long as the block runs."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.parametrize("hogs_per_core", [0, 8])
def test_a_verdict_on_time_does_not_depend_on_the_load(sandbox: Sandbox, hogs_per_core: int):
    """With eight other processes for each core, a program of 0.6 CPU seconds takes about 5 seconds of wall time."""
    with hogs(hogs_per_core * len(os.sched_getaffinity(0))):
        assert [outcome.status for outcome in run(sandbox, BURN + "burn(0.6)")] == ["returned"]
        assert [outcome.status for outcome in run(sandbox, BURN + "burn(1.05)")] == ["timeout"]


def test_the_time_of_all_cases_is_bounded_too(sandbox: Sandbox):
    statuses = [outcome.status for outcome in run(sandbox, BURN + "burn(float(input()))", "0.9", "0.9", "0.9", "0")]
    assert statuses == ["returned", "returned", "timeout", "skipped"]


def test_each_call_has_its_own_time_within_that_of_all_calls(sandbox: Sandbox):
    assert call(sandbox, 0.6, 0.6, 0.6) == ["returned"] * 3
    assert call(sandbox, 0.1, 1.2, 0.1) == ["returned", "timeout", "skipped"]
    assert call(sandbox, 0.9, 0.9, 0.9, 0.1) == ["returned", "returned", "timeout", "skipped"]


def test_waiting_programs_have_a_multiple_of_the_time(sandbox: Sandbox):
    assert WALL_PER_CPU == 3
    assert [outcome.status for outcome in run(sandbox, "import time; time.sleep(2)")] == ["returned"]
    start = time.monotonic()
    assert [outcome.status for outcome in run(sandbox, "import time; time.sleep(60)", "", "")] == ["timeout", "skipped"]
    assert 3 <= time.monotonic() - start < 30


def test_the_kernels_limit_leaves_room_for_its_coarse_clock():
    """Its count of ticks was up to an eighth above the CPU time of programs that often wait for a moment."""
    calls, script = Case(LIMITS, calls=3), Case(LIMITS)
    for case, total_s in ((calls, LIMITS.program_s), (script, LIMITS.case_s)):
        soft, hard, _, _ = struct.unpack("4Q", case.bounds())
        assert soft == hard and soft >= 1.25 * total_s + 1
        case.close()


ESCAPES = {
    "threads": BURN_IN_THREADS,
    "a handler": "import signal\nsignal.signal(signal.SIGXCPU, lambda *_: None)\nwhile True: pass",
    "a blocked signal": "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass",
    "a higher limit": (
        "import resource\ntry: resource.setrlimit(resource.RLIMIT_CPU, (99, 99))\nexcept (ValueError, OSError): pass\n"
        "while True: pass"
    ),
    "the main thread's end": (
        "import ctypes, os, threading\ndef burn():\n    while True: pass\nthreading.Thread(target=burn).start()\n"
        "ctypes.CDLL(None).syscall({'x86_64': 60, 'aarch64': 93}[os.uname().machine], 0)"
    ),
    "a caught interrupt": "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
}


@pytest.mark.parametrize("name", ESCAPES)
def test_no_program_escapes_its_cpu_time(sandbox: Sandbox, name: str):
    start = time.monotonic()
    assert [outcome.status for outcome in run(sandbox, ESCAPES[name])] == ["timeout"]
    assert time.monotonic() - start < 30  # on an idle machine: about 1


def cpu_seconds(server: psutil.Process) -> dict[psutil.Process, float]:
    """Process of the sandbox -> its CPU time."""
    seconds = {}
    for process in server.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            seconds[process] = times.user + times.system
    return seconds


def test_a_runner_killed_from_outside_has_no_verdict(sandbox: Sandbox):
    """So the kernel kills where memory is short. The next program runs."""
    assert sandbox._server is not None
    server = psutil.Process(sandbox._server._process.pid)
    before_s = cpu_seconds(server)

    def kill() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for process, cpu_s in cpu_seconds(server).items():
                if cpu_s - before_s.get(process, 0.0) > 0.2:
                    return process.kill()
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(SandboxFailed, match="killed the program, probably the kernel for lack of memory"):
        run(sandbox, "while True: pass")
    killer.join()
    assert run(sandbox, "print(1)")[0].output == b"1\n"


# Each would end by SIGKILL, which only a kill from outside may do without a score.
SUICIDES = {
    "kill": "os.kill(os.getpid(), 9)",
    "killpg": "os.killpg(0, 9)",
    "raise": "signal.raise_signal(9)",
    "pthread_kill": "signal.pthread_kill(threading.get_ident(), 9)",
    "tkill": "ctypes.CDLL(None).syscall(200, threading.get_native_id(), 9)",
    "sigqueue": "ctypes.CDLL(None).sigqueue(os.getpid(), 9, 0)",
    "a pidfd": "signal.pidfd_send_signal(os.pidfd_open(os.getpid()), 9)",
    "a parent's end": "ctypes.CDLL(None).prctl(1, 9)",
    "a CPU limit": "resource.setrlimit(resource.RLIMIT_CPU, (0, 0))",
    "a real-time limit": "resource.setrlimit(resource.RLIMIT_RTTIME, (0, 0))",
    "a foreign call": "ctypes.CDLL(None).syscall(0x40000000, 0)",
    "abort": "os.abort()",
    "a stack": "resource.setrlimit(resource.RLIMIT_STACK, (4096, resource.RLIM_INFINITY)); f()",
    "all memory": "[bytearray(2**20) for _ in range(10**6)]",
    "a deep recursion": "sys.setrecursionlimit(10**9); f()",
    "a bad jump": "ctypes.CFUNCTYPE(None)(8)()",
    "no memory left": "ctypes.CDLL(None).munmap(ctypes.c_void_p(0x1000), ctypes.c_size_t(2**47 - 2**13))",
}


@pytest.mark.parametrize("name", SUICIDES)
def test_no_program_ends_itself_without_a_verdict(sandbox: Sandbox, name: str):
    source = (
        f"import ctypes, os, resource, signal, sys, threading\ndef f(): return [f() for _ in '1']\n{SUICIDES[name]}"
    )
    assert run(sandbox, source)[0].status in {"raised", "died", "timeout", "returned"}
