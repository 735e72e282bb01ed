"""A program in the sandbox can compute and nothing else, at each level of isolation."""

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from rlframe.sandbox import Limits, Outcome, Program, Sandbox, SandboxFailed, SandboxUnavailable
from rlframe.sandbox import sandbox as module
from tests.tiny.killed_worker import assert_a_killed_worker_leaves_no_process

LIMITS = Limits(case_s=1.0, program_s=6.0, memory_mib=256, output_bytes=100_000)


def run(sandbox: Sandbox, source: str, *inputs: str) -> list[Outcome]:
    return list(sandbox.run(Program(source=source, function=None, inputs=list(inputs or [""]))))


def call(sandbox: Sandbox, source: str, *arguments: list) -> list[Outcome]:
    inputs = [{"args": args, "kwargs": {}} for args in arguments]
    return list(sandbox.run(Program(source=source, function="f", inputs=inputs)))


# Processes below the started one while no case runs: two runners that wait, and bubblewrap's own process and server.
IDLE_PROCESSES = {"landlock": 2, "bubblewrap": 4}


def count_processes(sandbox: Sandbox) -> int:
    """Processes below the started one, once their number is stable: idle ones, and any that a program left behind."""
    assert sandbox._server is not None
    counts = []
    while len(counts) < 3 or len(set(counts[-3:])) > 1:
        time.sleep(0.02)
        counts.append(len(psutil.Process(sandbox._server._process.pid).children(recursive=True)))
    return counts[-1]


def test_a_script_reads_stdin_and_a_function_takes_arguments(sandbox: Sandbox):
    printed = run(sandbox, "a, b = map(int, input().split())\nprint(a + b)", "1 2\n", "30 12")
    assert [(case.status, case.output) for case in printed] == [("returned", b"3\n"), ("returned", b"42\n")]
    returned = call(sandbox, "from math import hypot\ndef f(a, b): return [hypot(a, b)]", [3, 4], [5, 12])
    assert [(case.status, case.output) for case in returned] == [("returned", b"[5.0]"), ("returned", b"[13.0]")]


def test_a_program_can_use_the_standard_library_and_threads(sandbox: Sandbox):
    source = (
        "import collections, heapq, itertools, random, re, decimal, fractions, hashlib, zlib, sys, threading\n"
        "sys.setrecursionlimit(10**6); threading.stack_size(64 * 2**20); found = []\n"
        "def deep(n): return 0 if n == 0 else 1 + deep(n - 1)\n"
        "thread = threading.Thread(target=lambda: found.append(deep(20000))); thread.start(); thread.join()\n"
        "print(found, hashlib.sha256(b'').hexdigest()[:6])"
    )
    assert run(sandbox, source)[0].output == b"[20000] e3b0c4\n"


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
def test_a_bomb_stays_within_its_bounds_and_the_next_program_runs(sandbox: Sandbox, name: str):
    source, expected = BOMBS[name]
    start = time.monotonic()
    outcome = run(sandbox, source)[0]
    assert outcome.status in expected, outcome
    assert time.monotonic() - start < 30  # on an idle machine: at most 3
    assert len(outcome.output) <= LIMITS.output_bytes + 1 and len(outcome.detail) <= 2100
    assert run(sandbox, "print(1)")[0].output == b"1\n"
    deadline = time.monotonic() + 30
    while count_processes(sandbox) != IDLE_PROCESSES[sandbox.level] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert count_processes(sandbox) == IDLE_PROCESSES[sandbox.level]


def test_output_bytes_that_are_not_text_arrive_unchanged(sandbox: Sandbox):
    source = "import sys; sys.stdout.buffer.write(b'\\x00\\xff\\n')"
    assert run(sandbox, source)[0].output == b"\x00\xff\n"


def test_a_program_that_ends_itself_keeps_its_printed_output(sandbox: Sandbox):
    outcomes = run(sandbox, "import os, sys; print(input()); sys.stdout.flush(); os._exit(0)", "a", "b")
    assert [(outcome.status, outcome.output) for outcome in outcomes] == [("returned", b"a\n"), ("returned", b"b\n")]


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
def test_a_script_ends_as_it_does_in_a_plain_interpreter(sandbox: Sandbox, name: str):
    [outcome] = run(sandbox, ENDS[name])
    assert (outcome.status, outcome.output) == ("returned", b"2\n")


def test_after_an_endless_case_the_remaining_cases_are_skipped(sandbox: Sandbox):
    outcomes = run(sandbox, "n = int(input())\nwhile n == 1: pass\nprint(n)", "0", "1", "0", "0")
    assert [outcome.status for outcome in outcomes] == ["returned", "timeout", "skipped", "skipped"]


def test_a_surplus_of_results_invalidates_the_last_result(sandbox: Sandbox):
    source = "import os\ndef f(n):\n    os.write(3, b'1\\n2\\n3\\n4\\n')\n    return n"
    assert [outcome.status for outcome in call(sandbox, source, [1], [2])] == ["returned", "raised"]


def test_each_result_has_the_output_limit_of_one_case(sandbox: Sandbox):
    outcomes = call(sandbox, "def f(n): return 'x' * n", [10], [LIMITS.output_bytes + 1], [10])
    assert [outcome.status for outcome in outcomes] == ["returned", "output", "returned"]
    assert max(len(outcome.output) for outcome in outcomes) == LIMITS.output_bytes + 1


def test_a_script_that_keeps_printing_gets_no_extra_time(sandbox: Sandbox):
    [outcome] = run(sandbox, "import time\nfor n in range(60): print(n, flush=True); time.sleep(0.1)")
    assert outcome.status == "timeout" and outcome.output.startswith(b"0\n1\n")


def test_a_program_finds_nothing_of_the_previous_program(sandbox: Sandbox):
    run(sandbox, "SECRET_OF_THE_FIRST = 'alpha' + 'omega'; import builtins, json; builtins.leak = 1; json.leak = 1")
    source = (
        "import builtins, gc, json\n"
        "texts = [o for o in gc.get_objects() if isinstance(o, (str, bytes, dict))]\n"
        "texts = [o for o in texts if 'SECRET_OF' + '_THE_FIRST' in str(o)[:9999]]\n"
        "print(hasattr(builtins, 'leak'), hasattr(json, 'leak'), len([t for t in texts if t is not globals()]))"
    )
    assert run(sandbox, source)[0].output == b"False False 0\n"


def test_a_killed_server_fails_one_program_and_the_next_runs():
    sandbox = Sandbox(LIMITS, "landlock")
    sandbox.start()
    assert sandbox._server is not None
    children = psutil.Process(sandbox._server._process.pid).children(recursive=True)
    os.killpg(sandbox._server._process.pid, signal.SIGKILL)
    assert psutil.wait_procs(children, timeout=5)[1] == []  # namespaces end a moment after their first process
    with pytest.raises(SandboxFailed):
        run(sandbox, "print(1)")
    assert run(sandbox, "print(2)")[0].output == b"2\n"
    sandbox.close()


def test_a_killed_worker_leaves_no_process_of_the_sandbox(tmp_path: Path):
    script = tmp_path / "parent.py"
    script.write_text(
        "from rlframe.sandbox import *\n"
        "s = Sandbox(Limits(case_s=60.0, program_s=60.0, memory_mib=256, output_bytes=100), 'landlock')\n"
        "s.start(); print(s._server._process.pid, flush=True)\n"
        "list(s.run(Program(source='while True: pass', function=None, inputs=[''])))\n"
    )
    assert_a_killed_worker_leaves_no_process(script)


def test_without_landlock_no_program_runs_and_the_error_says_why(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "landlock_abi", lambda: 0)
    with pytest.raises(SandboxUnavailable, match=r"landlock: the kernel has no Landlock"):
        run(Sandbox(LIMITS, "landlock"), "print(1)")


def test_a_missing_isolation_level_is_refused(monkeypatch: pytest.MonkeyPatch):
    def without_bwrap(level: str, packages: str | None) -> list[str]:
        raise FileNotFoundError("there is no bwrap")

    monkeypatch.setattr(module, "command", without_bwrap)
    message = r"min_isolation=bubblewrap or not at all[\s\S]*bubblewrap: there is no bwrap"
    with pytest.raises(SandboxUnavailable, match=message):
        Sandbox(LIMITS, "bubblewrap").start()


def test_a_server_that_fails_its_self_test_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "PROBES", "print('open: reads /etc/passwd')")
    with pytest.raises(SandboxUnavailable, match="its self-test found it open: reads /etc/passwd"):
        Sandbox(LIMITS, "landlock").start()


def test_a_failed_system_call_is_named_and_no_program_runs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module.seccomp, "build", lambda: bytes(8))  # an invalid filter, without a return
    with pytest.raises(SandboxUnavailable, match=r"the server ended\n *OSError.*system call \d+: Invalid argument"):
        Sandbox(LIMITS, "landlock").start()
