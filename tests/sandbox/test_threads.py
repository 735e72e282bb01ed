"""A case's threads: as many as ordinary programs want, and no more, whoever the sandbox runs as."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from rlframe.sandbox import Limits, Program, Sandbox
from rlframe.sandbox import sandbox as module
from rlframe.sandbox.levels import ISOLATIONS
from rlframe.sandbox.threads import MOST

LIMITS = Limits(case_s=3.0, program_s=10.0, memory_mib=512, output_bytes=4096)
# Stacks of 32 KiB: thousands would fit into the address space.
BOMB = """
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


@pytest.fixture(scope="module", params=ISOLATIONS)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    made = Sandbox(LIMITS, "landlock")
    made._server = module._tested(request.param)
    yield made
    made.close()


def printed(sandbox: Sandbox, source: str, *inputs: str) -> list[bytes]:
    return [one.output for one in sandbox.run(Program(source=source, function=None, inputs=list(inputs or [""])))]


def test_a_thread_bomb_makes_sixty_four_in_every_case(sandbox: Sandbox):
    assert MOST == 64
    assert printed(sandbox, BOMB, "", "", "") == [b"64", b"64", b"64"]


def most_seen(sandbox: Sandbox, source: str) -> int:
    """Threads of one process, from outside, while a program runs."""
    assert sandbox._server is not None
    server = psutil.Process(sandbox._server._process.pid)
    seen: list[int] = []

    def watch() -> None:
        while not ended.is_set():
            try:
                seen.extend(child.num_threads() for child in server.children(recursive=True))
            except psutil.NoSuchProcess:
                continue

    ended = threading.Event()
    with ThreadPoolExecutor() as pool:
        watching = pool.submit(watch)
        printed(sandbox, source)
        ended.set()
        watching.result()
    return max(seen)


def test_seen_from_outside_no_process_has_more_than_sixty_four_beside_its_first(sandbox: Sandbox):
    again = (
        "while time.time() < end:\n    try: _thread.start_new_thread(time.sleep, (.01,))\n    except RuntimeError: pass"
    )
    assert 32 < most_seen(sandbox, "import time; end = time.time() + 1.5\n" + BOMB + again) <= MOST + 1


# For a thread that ends the kernel reads a list of futexes: here in memory whose pages another thread takes away.
LASTING = """
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


def test_a_thread_counts_until_it_is_gone_not_until_it_says_that_it_ends(sandbox: Sandbox):
    assert most_seen(sandbox, LASTING) <= MOST + 1


def test_a_first_thread_that_ends_makes_no_room_for_another(sandbox: Sandbox):
    source = (
        f"def bomb(): exec({BOMB!r}, {{}}); import os, time; time.sleep(0.5); os._exit(0)\n"
        "import _thread, ctypes, os; _thread.start_new_thread(bomb, ())\n"
        "ctypes.CDLL(None).syscall({'x86_64': 60, 'aarch64': 93}[os.uname().machine], 0)"
    )
    assert most_seen(sandbox, source) == MOST + 1


def test_a_pool_of_forty_and_three_hundred_one_after_the_other_compute_as_anywhere(sandbox: Sandbox):
    source = (
        "import threading\nfrom concurrent.futures import ThreadPoolExecutor\n"
        "barrier, found = threading.Barrier(40), []\n"
        "with ThreadPoolExecutor(40) as pool: print(sum(pool.map(lambda n: (barrier.wait(), n * n)[1], range(40))))\n"
        "for n in range(300):\n"
        "    thread = threading.Thread(target=found.append, args=(n,)); thread.start(); thread.join()\n"
        "print(sum(found))\n"
    )
    assert printed(sandbox, source) == [b"20540\n44850\n"]
