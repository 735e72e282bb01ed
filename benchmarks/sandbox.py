"""The sandbox at each level: start time compared with a bare interpreter, verdicts per second, seconds of sessions and
cells, and the same with packages.

    python benchmarks/sandbox.py

Prints medians and extremes. Ratios compare figures of the same run.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import time

from rlframe.sandbox import Cells, Limits, Program, Sandbox, execution
from rlframe.sandbox import sandbox as module
from rlframe.sandbox.levels import ISOLATIONS, PYTHON
from rlframe.sandbox.packages import Packages

ROUNDS, PROGRAMS = 15, 300
LIMITS = Limits(case_s=5.0, program_s=10.0, memory_mib=256, output_bytes=10_000)
SESSION_LIMITS = Limits(case_s=5.0, program_s=60.0, memory_mib=256, output_bytes=10_000)
SUM = Program(source="print(sum(map(int, input().split())))", function=None, inputs=["1 2\n"])
ADD = Program(
    source="def add(a, b): return a + b",
    function="add",
    inputs=[{"args": [n, 1], "kwargs": {}} for n in range(20)],
)


def main() -> None:
    bare = [
        seconds(lambda: subprocess.run([PYTHON, "-I", "-S", "-c", "pass"], env={}, check=True)) for _ in range(ROUNDS)
    ]
    report("bare python -I -S", bare, 1e3, "ms")
    packages = Packages(["numpy", "sympy"], cache=None)
    print(json.dumps({"part": "packages installed", "seconds": round(seconds(packages.install), 2)}))
    for level in ISOLATIONS:
        cold = [cold_start(level) for _ in range(ROUNDS)]
        report(f"{level}: start to ready", cold, 1e3, "ms")
        ratio = statistics.median(cold) / statistics.median(bare)
        print(f"{level}: a cold start takes {ratio:.2f} of a bare interpreter")
        server = module._start_tested_server(level)
        try:
            for name, program in (("one case of stdin", SUM), ("20 calls of a function", ADD)):
                list(execution.run(server, program, LIMITS))
                rates = [
                    PROGRAMS
                    / 5
                    / seconds(
                        lambda s=server, p=program: [list(execution.run(s, p, LIMITS)) for _ in range(PROGRAMS // 5)]
                    )
                    for _ in range(5)
                ]
                report(f"{level}: {name}", rates, 1, "verdicts/s, one after the other")
        finally:
            server.kill()
        sessions(level)
        with_packages(level, packages)


def sessions(level: str) -> None:
    """Seconds of a session's start with its first cell, of a cell, and of a message to a program without cells."""
    sandbox = Sandbox(SESSION_LIMITS, "landlock")
    sandbox._server = module._start_tested_server(level)

    def first_cell() -> None:
        with Cells(sandbox, max_cells=1) as cells:
            assert cells.run("6 * 7").value == "42"

    try:
        report(f"{level}: a session and its first cell", [seconds(first_cell) for _ in range(ROUNDS)], 1e3, "ms")
        with Cells(sandbox, max_cells=PROGRAMS) as cells:
            cell_s = [seconds(lambda: cells.run("x = 6\nx * 7")) for _ in range(PROGRAMS)]
        with sandbox.session("while True: reply(receive())", max_asks=PROGRAMS) as session:
            ask_s = [seconds(lambda: session.ask("42")) for _ in range(PROGRAMS)]
        report(f"{level}: a later cell", cell_s, 1e3, "ms")
        report(f"{level}: a message and its reply", ask_s, 1e3, "ms")
    finally:
        sandbox.close()


def with_packages(level: str, packages: Packages) -> None:
    """Start and verdicts of a sandbox that has imported numpy and sympy for all programs."""
    start_s, servers = [], []
    for _ in range(5):
        start_s.append(seconds(lambda: servers.append(module._start_tested_server(level, packages))))
        if len(servers) > 1:
            servers.pop().kill()
    [server] = servers
    report(f"{level}: start and self-test, with numpy and sympy", start_s, 1e3, "ms")
    try:
        rates = [30 / seconds(lambda: [list(execution.run(server, SUM, LIMITS)) for _ in range(30)]) for _ in range(5)]
        report(f"{level}: one case of stdin, with numpy and sympy", rates, 1, "verdicts/s, one after the other")
    finally:
        server.kill()


def cold_start(level: str) -> float:
    start = time.perf_counter()
    server = module._Server(level, None)
    elapsed_s = time.perf_counter() - start
    server.kill()
    return elapsed_s


def seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def report(name: str, values: list[float], scale: float, unit: str) -> None:
    figures = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    print(json.dumps({"part": name, **{key: round(value * scale, 2) for key, value in figures.items()}, "unit": unit}))


if __name__ == "__main__":
    main()
