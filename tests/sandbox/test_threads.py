"""Threads of a case: enough for ordinary programs, and at most 64 beside the main thread, under any user."""

import threading
from concurrent.futures import ThreadPoolExecutor

import psutil

from rlframe.sandbox import Limits, Program, Sandbox
from rlframe.sandbox.threads import MAX_THREADS

LIMITS = Limits(case_s=3.0, program_s=10.0, memory_mib=512, output_bytes=4096)
# Stacks of 32 KiB: the address space has room for thousands.
THREAD_BOMB = """
import _thread, os, time
_thread.stack_size(32768)
made = 0
try:
    while made < 10_000:
        _thread.start_new_thread(time.sleep, (60,))
        made += 1
except RuntimeError:
    os.write(1, b"%d" % made)
"""


def printed(sandbox: Sandbox, source: str, *inputs: str) -> list[bytes]:
    return [
        outcome.output for outcome in sandbox.run(Program(source=source, function=None, inputs=list(inputs or [""])))
    ]


def test_a_thread_bomb_starts_sixty_four_threads_in_every_case(sandbox: Sandbox):
    assert MAX_THREADS == 64
    assert printed(sandbox, THREAD_BOMB, "", "", "") == [b"64", b"64", b"64"]


def max_threads(sandbox: Sandbox, source: str) -> int:
    """The largest thread count of a process while a program runs, as counted from outside."""
    assert sandbox._server is not None
    server = psutil.Process(sandbox._server._process.pid)
    counts: list[int] = []

    def watch() -> None:
        while not program_ended.is_set():
            try:
                counts.extend(child.num_threads() for child in server.children(recursive=True))
            except psutil.NoSuchProcess:
                continue

    program_ended = threading.Event()
    with ThreadPoolExecutor() as pool:
        watcher = pool.submit(watch)
        printed(sandbox, source)
        program_ended.set()
        watcher.result()
    return max(counts)


def test_no_process_has_more_than_65_threads_as_counted_from_outside(sandbox: Sandbox):
    repeat = (
        "while time.time() < end:\n    try: _thread.start_new_thread(time.sleep, (.01,))\n    except RuntimeError: pass"
    )
    assert 32 < max_threads(sandbox, "import time; end = time.time() + 1.5\n" + THREAD_BOMB + repeat) <= MAX_THREADS + 1


# When a thread ends, the kernel reads its list of futexes. The pages of this list are taken away by another thread, so
# that the end takes long.
SLOW_ENDS = """
import _thread, ctypes, time
_thread.stack_size(32768)
libc, page, pages = ctypes.CDLL(None), 4096, 2000
libc.mmap.restype = ctypes.c_void_p
def memory(size): return libc.mmap(None, ctypes.c_size_t(size), 3, 0x22, -1, ctypes.c_long(0))
words, entries, head = memory(64 << 20), memory(pages * page), memory(page)
ctypes.memset(words + (16 << 20), 1, 48 << 20)
for n in range(pages):
    after = entries + (n + 1) * page if n + 1 < pages else head
    ctypes.c_uint64.from_address(entries + n * page).value = after
ctypes.c_uint64.from_address(head).value = entries
ctypes.c_int64.from_address(head + 8).value = words - entries
def take():
    while True:
        libc.madvise(ctypes.c_void_p(words), ctypes.c_size_t(16 << 20), 4)
        for access in (1, 3): libc.mprotect(ctypes.c_void_p(words), ctypes.c_size_t(64 << 20), access)
_thread.start_new_thread(take, ())
SET_ROBUST_LIST = {"x86_64": 273, "aarch64": 99}[__import__("os").uname().machine]
def last(): libc.syscall(ctypes.c_long(SET_ROBUST_LIST), ctypes.c_void_p(head), ctypes.c_long(24))
end = time.time() + 1.5
while time.time() < end:
    try: _thread.start_new_thread(last, ())
    except RuntimeError: time.sleep(.0005)
"""


def test_a_thread_counts_until_the_kernel_has_removed_it(sandbox: Sandbox):
    assert max_threads(sandbox, SLOW_ENDS) <= MAX_THREADS + 1


def test_the_end_of_the_main_thread_makes_no_room_for_another(sandbox: Sandbox):
    source = (
        f"def bomb(): exec({THREAD_BOMB!r}, {{}}); import os, time; time.sleep(2); os._exit(0)\n"
        "import _thread, ctypes, os; _thread.start_new_thread(bomb, ())\n"
        "ctypes.CDLL(None).syscall({'x86_64': 60, 'aarch64': 93}[os.uname().machine], 0)"
    )
    assert max_threads(sandbox, source) == MAX_THREADS + 1


def test_forty_threads_at_once_and_three_hundred_in_turn_work(sandbox: Sandbox):
    source = (
        "import threading\nfrom concurrent.futures import ThreadPoolExecutor\n"
        "barrier, found = threading.Barrier(40), []\n"
        "with ThreadPoolExecutor(40) as pool: print(sum(pool.map(lambda n: (barrier.wait(), n * n)[1], range(40))))\n"
        "for n in range(300):\n"
        "    thread = threading.Thread(target=found.append, args=(n,)); thread.start(); thread.join()\n"
        "print(sum(found))\n"
    )
    assert printed(sandbox, source) == [b"20540\n44850\n"]
