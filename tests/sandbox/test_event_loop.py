"""asyncio in the sandbox: event loops work, and no socket opens."""

from pathlib import Path

from rlframe.sandbox import Limits, Program, Sandbox
from tests.tiny.attacks import CALL, NETWORK, probe_values

LIMITS = Limits(case_s=5.0, program_s=10.0, memory_mib=512, output_bytes=4096)

TOUR = """
import asyncio, time

async def square(x, queue):
    await asyncio.sleep(0.3 * (3 - x))
    await queue.put(x * x)

async def slow():
    try:
        await asyncio.wait_for(asyncio.sleep(60), 0.02)
    except TimeoutError:
        return "late"

async def main():
    queue = asyncio.Queue()
    await asyncio.gather(*(square(x, queue) for x in range(3)))
    print([queue.get_nowait() for _ in range(3)])
    print(await asyncio.to_thread(lambda: time.sleep(0.02) or "thread"), await slow())
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(square(x, queue)) for x in range(2)]
    print([task.done() for task in tasks], await asyncio.to_thread(input))
    event = asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, event.set)
    await event.wait()
    return "end"

print(asyncio.run(main()), asyncio.new_event_loop().run_until_complete(asyncio.sleep(0, "again")))
"""


def run(sandbox: Sandbox, source: str, stdin: str = "") -> str:
    [outcome] = sandbox.run(Program(source=source, function=None, inputs=[stdin]))
    assert outcome.status == "returned", outcome.detail
    return outcome.output.decode()


def test_tasks_queues_timers_and_threads_work(sandbox: Sandbox):
    lines = run(sandbox, TOUR, "a\n").splitlines()
    assert lines == ["[4, 1, 0]", "thread late", "[True, True] a", "end again"]


def test_another_thread_wakes_a_loop_that_waits_for_ever(sandbox: Sandbox):
    source = "import asyncio, threading, time\nloop = asyncio.new_event_loop()\n"
    source += "def later():\n    time.sleep(0.05)\n    loop.call_soon_threadsafe(loop.stop)\n"
    source += "threading.Thread(target=later).start()\nloop.run_forever()\nloop.close()\nprint('stopped')\n"
    assert run(sandbox, source) == "stopped\n"


def test_loops_of_several_threads_wake_apart(sandbox: Sandbox):
    source = "import asyncio, threading\nfound = []\nasync def main(n):\n    await asyncio.sleep(0.01)\n"
    source += "    found.append(await asyncio.to_thread(lambda: n))\n"
    source += "threads = [threading.Thread(target=asyncio.run, args=[main(n)]) for n in range(4)]\n"
    source += "for thread in threads: thread.start()\nfor thread in threads: thread.join()\nprint(sorted(found))\n"
    assert run(sandbox, source) == "[0, 1, 2, 3]\n"


def test_every_attack_on_the_network_is_refused_beside_a_loop(sandbox: Sandbox, tmp_path: Path):
    values = probe_values(tmp_path)
    for name, probe in {**NETWORK, "a stream": "asyncio.run(connect())"}.items():
        source = f"{CALL}\nimport asyncio\nasyncio.run(asyncio.sleep(0))\n"
        source += "async def connect(): await asyncio.open_connection('127.0.0.1', 9)\n"
        source += (
            f"try:\n    {probe.format(**values)}\n    print('through')\nexcept OSError as error:\n    print('refused')"
        )
        assert run(sandbox, source) == "refused\n", name
