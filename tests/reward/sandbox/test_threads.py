"""A case's threads: as many as ordinary programs want, and no more, whoever the sandbox runs as."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from rlframe.reward.sandbox import Limits, Program, Sandbox
from rlframe.reward.sandbox import sandbox as module
from rlframe.reward.sandbox.levels import ISOLATIONS
from rlframe.reward.sandbox.threads import MOST

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


def test_seen_from_outside_no_process_has_more_than_sixty_four_beside_its_first(sandbox: Sandbox):
    assert sandbox._server is not None
    server = psutil.Process(sandbox._server._process.pid)
    again = (
        "while time.time() < end:\n    try: _thread.start_new_thread(time.sleep, (.01,))\n    except RuntimeError: pass"
    )
    seen: list[int] = []

    def watch() -> None:
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            try:
                seen.extend(child.num_threads() for child in server.children(recursive=True))
            except psutil.NoSuchProcess:
                continue

    with ThreadPoolExecutor() as pool:
        watching = pool.submit(watch)
        printed(sandbox, "import time; end = time.time() + 1.5\n" + BOMB + again)
        watching.result()
    assert 32 < max(seen) <= MOST + 1


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
