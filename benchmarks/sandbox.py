"""The sandbox: start time compared with a bare interpreter, and verdicts per second of a running one, at each level.

    python benchmarks/sandbox.py

Prints medians and extremes. Ratios compare figures of the same run.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import time

from rlframe.sandbox import Limits, Program, execution
from rlframe.sandbox import sandbox as module
from rlframe.sandbox.levels import ISOLATIONS, PYTHON

ROUNDS, PROGRAMS = 15, 300
LIMITS = Limits(case_s=5.0, program_s=10.0, memory_mib=256, output_bytes=10_000)
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


def cold_start(level: str) -> float:
    start = time.perf_counter()
    server = module._Server(level)
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
