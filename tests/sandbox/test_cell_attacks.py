"""A cell that attacks reaches nothing, and a cell that falsifies harms its own session at most, at each level."""

import gc
import os
import select
import threading
import time
from pathlib import Path

import pytest

from rlframe.sandbox import CellResult, Cells, Limits, Program, Sandbox
from tests.tiny.attacks import CALL, PROBES, probe_values
from tests.tiny.killed_worker import assert_a_killed_worker_leaves_no_process

LIMITS = Limits(case_s=1.0, program_s=4.0, memory_mib=256, output_bytes=2000)


def run(sandbox: Sandbox, *sources: str) -> list[CellResult]:
    with Cells(sandbox, max_cells=100) as cells:
        return [cells.run(source) for source in sources]


def test_every_attack_on_files_network_and_processes_is_refused(sandbox: Sandbox, tmp_path: Path) -> None:
    values, successes = probe_values(tmp_path), []
    with Cells(sandbox, max_cells=100) as cells:
        cells.run(CALL)
        for name, probe in PROBES.items():
            attempt = f"try:\n    {probe.format(**values)}\n    print('through')"
            result = cells.run(f"{attempt}\nexcept (OSError, ValueError) as error:\n    print('refused', error)")
            if not result.printed.startswith("refused"):
                successes.append((name, result))
    assert successes == []
    assert not list(Path("/tmp").glob("rlframe_probe")) and not list(Path("/dev/shm").glob("rlframe_probe"))


# A cell that finds the channel of its notebook.
CHANNEL = "import gc, os\nchannel = next(o for o in gc.get_objects() if type(o).__name__ == 'Channel')\n"
FORGED = '{{"printed": "", "background": "", "value": "{value}", "error": null}}'
FORGERIES = {
    "a line of another size": "import os\nos.write(3, b'9\\n')",
    "a result without a token": f"import os\nos.write(3, b'{FORGED.format(value='forged')}\\n')",
    "a partial line": "import os\nos.write(3, b'9')",
    "a result of its own": f"{CHANNEL}channel.reply('{FORGED.format(value='forged')}')",
    "two results": f"{CHANNEL}token = channel._token\nchannel.reply('1')\nos.write(3, token + b' 2\\n')",
    "a result for later": f"{CHANNEL}os.write(3, channel._token + b' 1\\n' + channel._token + b' 1\\n')",
    "a result that is no result": f"{CHANNEL}channel.reply('[1]')",
    "deep brackets": f"{CHANNEL}channel.reply('[' * 1900)",
    "a line that never ends": "import os\nwhile True: os.write(3, b'x' * 1000)",
    "lines from a thread": (
        "import os, threading, time\ndef flood():\n    while True: time.sleep(0.001); os.write(3, b'9\\n')\n"
        "threading.Thread(target=flood).start()"
    ),
    "taking the next message": "import os, threading\nthreading.Thread(target=os.read, args=(4, 1000)).start()",
    "closed descriptors": "import os\nos.closerange(0, 100)",
    "a closed channel": "import os\nos.close(3)",
    "a closed stdout": "import os\nos.close(1)",
    "no modules": "import sys\nsys.modules.clear()",
    "no json": "import json\ndel json.dumps, json.loads",
    "a lying json": "import json\njson.dumps = lambda *_, **__: 'forged'",
    "no time": "import time\ntime.sleep(60)",
    "an end": "import os\nos._exit(0)",
    "a crash": "import ctypes\nctypes.string_at(0)",
    "all memory": "x = []\ntry:\n    while True: x.append(bytearray(10**5))\nexcept MemoryError: pass",
    "a tracer": "import sys\nsys.settrace(lambda *_: 1 / 0)",
    "a low limit of recursion": "import sys\nsys.setrecursionlimit(sys.getrecursionlimit() // 40)",
    "an evil error": "class E(BaseException):\n    __traceback__ = __class__ = property(lambda self: 1 / 0)\nraise E",
    "an evil exit": "class N:\n    def __bool__(self): return 1 / 0\nimport sys\nsys.exit(N())",
}


@pytest.mark.parametrize("name", FORGERIES)
def test_after_a_forgery_the_next_cell_is_right_or_the_session_is_over(sandbox: Sandbox, name: str) -> None:
    start = time.monotonic()
    _, after = run(sandbox, FORGERIES[name], "6 * 7")
    assert after.value == "42" or (after.session_is_over and "the session is over: " in (after.error or "")), after
    assert time.monotonic() - start < 60  # on an idle machine: at most 4
    assert run(sandbox, "1")[0].value == "1"


def test_a_cell_finds_nothing_of_an_earlier_session(sandbox: Sandbox) -> None:
    run(sandbox, "SECRET = 'alpha' + 'omega'; import builtins, json; builtins.leak = json.leak = 1")
    source = (
        "import builtins, gc, json\nsecret = ''.join(['alpha', 'omega'])\n"
        "found = [o for o in gc.get_objects() if secret in str(o)[:9999] and o is not globals()]\n"
        "hasattr(builtins, 'leak'), hasattr(json, 'leak'), 'SECRET' in globals(), len(found)"
    )
    assert run(sandbox, source)[0].value == "(False, False, False, 0)"


def test_the_bounds_of_a_session_end_it(sandbox: Sandbox) -> None:
    with Cells(sandbox, max_cells=2) as cells:
        results = [cells.run("1") for _ in range(3)]
    assert [result.status for result in results] == ["returned", "returned", "skipped"]
    work = "import time\nend = time.process_time() + 0.9\nwhile time.process_time() < end: pass"
    results = run(sandbox, *[work] * 6, "1")
    assert [result.status for result in results] == ["returned"] * 4 + ["timeout", "skipped", "skipped"]


def test_a_thread_that_works_between_cells_uses_up_the_sessions_time() -> None:
    """Between two cells nobody watches the clock but the kernel, which allows twice program_s, and a second."""
    sandbox = Sandbox(Limits(case_s=0.4, program_s=0.5, memory_mib=256, output_bytes=2000), "landlock")
    spin = "import threading\ndef spin():\n    while True: pass\nthreading.Thread(target=spin).start()"
    with Cells(sandbox, max_cells=10) as cells:
        assert cells.run(spin).status == "returned"
        assert sandbox._server and select.select([sandbox._server.control], [], [], 60)[0]  # the report of its end
        assert cells.run("1").status == "timeout"
    sandbox.close()


def test_another_program_waits_until_the_session_is_closed(sandbox: Sandbox) -> None:
    with Cells(sandbox, max_cells=2), pytest.raises(RuntimeError, match="has an open session: close it"):
        sandbox.run(Program(source="print(1)", function=None, inputs=[""]))
    [outcome] = sandbox.run(Program(source="print(1)", function=None, inputs=[""]))
    assert outcome.output == b"1\n"


def test_eight_sessions_in_eight_threads_keep_their_own_state() -> None:
    totals: dict[int, str | None] = {}

    def count(number: int) -> None:
        sandbox = Sandbox(LIMITS, "landlock")
        try:
            for _ in range(3):
                with Cells(sandbox, max_cells=100) as cells:
                    cells.run(f"total = {number}")
                    for _ in range(20):
                        cells.run("total += 1")
                    totals[number] = cells.run("total").value
        finally:
            sandbox.close()

    gc.collect()  # files that earlier tests left to the collector would close during the count
    open_files = len(os.listdir("/proc/self/fd"))
    threads = [threading.Thread(target=count, args=(number * 100,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert totals == {number * 100: str(number * 100 + 20) for number in range(8)}
    gc.collect()
    # A file left by each sandbox would be 8; other threads of this process may open one meanwhile.
    assert len(os.listdir("/proc/self/fd")) < open_files + 8


def test_a_killed_worker_leaves_no_process_of_its_sessions(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "from rlframe.sandbox import *\n"
        "s = Sandbox(Limits(case_s=60.0, program_s=60.0, memory_mib=256, output_bytes=2000), 'landlock')\n"
        "cells = Cells(s, 10); cells.run('import threading, time'); print(s._server._process.pid, flush=True)\n"
        "cells.run('threading.Thread(target=time.sleep, args=(60,)).start()\\nwhile True: pass')\n"
    )
    assert_a_killed_worker_leaves_no_process(script)
