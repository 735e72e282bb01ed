"""The killable process: its bounds, its replacement, and no child that outlives its parent."""

import os
import pickle
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rlframe.sandbox.process import CallFailed, Process, ProcessDied

MEMORY = 2**30


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def process(function: str, *warm_up: object) -> Process:
    return Process(function, warm_up=list(warm_up), max_memory_bytes=MEMORY)


def is_alive(pid: int) -> bool:
    """False for a zombie too: an init process that does not reap leaves zombies behind."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_dead(pid: int, within_s: float = 5.0) -> bool:
    end = time.monotonic() + within_s
    while is_alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not is_alive(pid)


def test_a_call_returns_the_functions_result_from_another_process():
    child = process("os:getpid")
    pid = child.call(timeout_s=5)
    assert pid != os.getpid()
    assert child.call(timeout_s=5) == pid  # the child is reused
    child.close()
    assert wait_until_dead(pid)


def test_an_endless_call_is_killed_at_its_timeout_and_the_next_works():
    child = process("time:sleep", 0)
    child.call(0, timeout_s=5)
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"call of time:sleep took more than 0.3 s"):
        child.call(60, timeout_s=0.3)
    assert 0.3 <= time.monotonic() - start < 20
    assert child.call(0, timeout_s=5) is None
    child.close()


def test_a_call_that_holds_the_interpreter_lock_is_killed():
    child = process("builtins:pow", 2, 3)
    with pytest.raises(TimeoutError):
        child.call(9, 9**9, timeout_s=0.3)
    child.close()


def test_starting_does_not_count_against_a_calls_timeout():
    child = process("time:sleep", 1)  # ready after a second
    assert child.call(0, timeout_s=0.9) is None
    child.close()


def test_an_exception_has_the_childs_traceback_and_the_child_lives_on():
    child = process("json:loads", "1")
    with pytest.raises(CallFailed, match=r"(?s)Traceback.*JSONDecodeError: Expecting value"):
        child.call("[", timeout_s=5)
    assert child.call("[1]", timeout_s=5) == [1]
    child.close()


def test_a_failed_import_is_named():
    with pytest.raises(CallFailed, match="No module named 'no_such_module'"):
        process("no_such_module:f").call(timeout_s=5)


def test_a_childs_death_at_its_start_is_named():
    with pytest.raises(ProcessDied, match="ended at its start with exit status 3"):
        process("os:_exit", 3).call(timeout_s=5)


def test_a_child_that_dies_in_a_call_is_named_and_replaced():
    child = process("builtins:eval", "0")
    with pytest.raises(ProcessDied, match="SIGSEGV"):
        child.call("__import__('ctypes').string_at(0)", timeout_s=5)
    assert child.call("2 + 3", timeout_s=5) == 5
    child.close()


def test_a_worker_killed_between_calls_is_replaced_without_an_error():
    child = process("os:getpid")
    pid = child.call(timeout_s=5)
    os.kill(pid, signal.SIGKILL)
    assert wait_until_dead(pid)  # its socket has closed; the worker stays a zombie until its replacement
    assert child.call(timeout_s=5) not in (pid, os.getpid())
    child.close()


def test_a_nursery_killed_between_calls_is_replaced_with_its_worker():
    child = process("os:getppid")  # a worker's parent is the nursery
    nursery = child.call(timeout_s=5)
    (worker,) = children_of(nursery)
    os.kill(nursery, signal.SIGKILL)
    assert wait_until_dead(worker)
    assert child.call(timeout_s=5) not in (nursery, os.getpid())
    child.close()


def test_a_killed_worker_is_replaced_faster_than_a_child_starts():
    child = process("time:sleep", 1.5)
    child.call(0, timeout_s=5)
    nursery = child._child.nursery.pid
    seconds = []
    for _ in range(5):
        with pytest.raises(TimeoutError):
            child.call(60, timeout_s=0.05)
        start = time.monotonic()
        child.call(0, timeout_s=5)
        seconds.append(time.monotonic() - start)
    assert statistics.median(seconds) < 0.5
    assert child._child.nursery.pid == nursery
    child.close()
    assert wait_until_dead(nursery)


def test_a_killed_calls_result_never_reaches_the_next_call():
    child = process("operator:mul", "x", 1)
    timeouts = 0
    for size in range(20):
        try:
            child.call("x", 10**5 + 10**7 * (size % 2), timeout_s=0.0)  # killed anywhere: unread, computed, answered
        except TimeoutError:
            timeouts += 1
        except CallFailed:  # answered in no time: the result is too long
            pass
        assert child.call("y", size, timeout_s=5) == "y" * size
    assert timeouts >= 10
    child.close()


@pytest.fixture
def interrupts() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, also where a shell has started the tests in the background."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


def test_an_interrupted_calls_reply_never_reaches_the_next_call(interrupts: None):
    child = process("builtins:eval", "0")
    child.call("0", timeout_s=5)
    for delay_s in (0.01, 0.05, 0.1):
        with pytest.raises(KeyboardInterrupt):
            threading.Timer(delay_s, os.kill, [os.getpid(), signal.SIGINT]).start()
            child.call("__import__('time').sleep(0.05) or 'interrupted'", timeout_s=5)
            time.sleep(60)  # the call was faster than the signal
        assert child.call("'next'", timeout_s=5) == "next"
    child.close()


def test_a_call_that_waits_for_a_core_has_its_whole_cpu_time():
    child = process("builtins:eval", "0")
    child.call("0", timeout_s=5)
    worker = psutil.Process(child._child._worker_pid)
    worker.suspend()  # for longer than the call's timeout, as if other processes had the core
    start = time.monotonic()
    threading.Timer(1.5, worker.resume).start()
    assert child.call("sum(range(10**6))", timeout_s=1.0) == 499_999_500_000
    assert time.monotonic() - start >= 1.4
    child.close()


def test_a_call_that_only_sleeps_ends_at_five_times_its_timeout():
    child = process("time:sleep", 0)
    child.call(0, timeout_s=5)
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        child.call(60, timeout_s=0.2)
    assert 1.0 <= time.monotonic() - start < 10
    child.close()


def test_a_result_over_128_KiB_is_an_error_and_long_arguments_are_refused():
    child = process("operator:mul", "x", 1)
    assert len(child.call("x", 2**17 - 30, timeout_s=5)) == 2**17 - 30
    with pytest.raises(CallFailed, match="the result has 131101 bytes as JSON, at most 131072"):
        child.call("x", 2**17, timeout_s=5)
    with pytest.raises(ValueError, match="the arguments have 131079 bytes as JSON, at most 131072"):
        child.call("x" * 2**17, 1, timeout_s=5)
    assert child.call("x", 3, timeout_s=5) == "xxx"
    child.close()


def test_exceeding_the_memory_limit_is_an_error_in_the_child():
    child = process("operator:mul", "x", 1)
    with pytest.raises(CallFailed, match="MemoryError"):
        child.call("x", 2 * MEMORY, timeout_s=5)
    assert child.call("x", 3, timeout_s=5) == "xxx"
    child.close()


def test_the_child_imports_neither_torch_nor_ray_nor_sympy():
    child = process("builtins:eval", "0")
    loaded = child.call("sorted(m for m in __import__('sys').modules if m in ('torch', 'ray', 'sympy'))", timeout_s=5)
    assert loaded == []
    child.close()


def test_a_started_process_pickles_without_its_child():
    child = process("os:getpid")
    pid = child.call(timeout_s=5)
    copy = pickle.loads(pickle.dumps(child))
    assert copy.call(timeout_s=5) != pid
    child.close()
    copy.close()


def test_a_process_outlives_the_thread_that_started_it():
    child = process("os:getpid")
    thread = threading.Thread(target=child.start)
    thread.start()
    thread.join()
    time.sleep(0.2)  # the kernel kills the child when the thread that started the child ends
    assert child.call(timeout_s=5) > 0
    child.close()


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "in a call that holds the interpreter lock"])
def test_a_killed_parents_children_die(busy: bool):
    program = f"""
import sys, threading, time
from rlframe.sandbox.process import Process
child = Process("builtins:pow", warm_up=[2, 3], max_memory_bytes={MEMORY})
child.call(2, 3, timeout_s=5)
if {busy}:
    threading.Thread(target=child.call, args=(9, 9**9), kwargs=dict(timeout_s=60), daemon=True).start()
    time.sleep(0.3)
print(child._child.nursery.pid, flush=True)
time.sleep(60)
"""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-P", "-c", program], stdout=subprocess.PIPE, text=True, env=env) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        (worker,) = children_of(pid)
        parent.kill()
        assert wait_until_dead(pid)
        assert wait_until_dead(worker)
