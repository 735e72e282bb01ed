"""The sandboxes of two source trees, which take turns on one core: verdicts, a whole code reward, and cold starts.

    python benchmarks/sandbox_trees.py OTHER_TREE

Prints the other tree's seconds divided by this tree's: median and quartiles of the rounds for wall time, and the ratio
of the sums for CPU time (of worker, server and runners together; cold starts: of the worker). Above 1: this tree is
faster. A busy machine slows both trees alike, because rounds are short and alternate.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROUNDS, PROGRAMS, GROUP, STARTS = 40, 50, 16, 3
LEVELS = ("landlock", "bubblewrap")
PARTS = ("one case of stdin", "20 calls of a function", "a reward of four cases", "start to ready")
TERM = {
    "name": "code", "weight": 1.0, "partial": False, "min_isolation": "landlock", "case_s": 5.0, "program_s": 10.0,
    "memory_mib": 256, "output_bytes": 10_000, "max_chars": 5_000,
}  # fmt: skip
SUM = "print(sum(map(int, input().split())))"
ADD = "def add(a, b): return a + b"
COMPLETION = """A sum needs no loop.

```python
def add(a: int, b: int) -> int:
    return a + b

print(add(*map(int, input().split())))
```
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("other", type=Path, help="a checkout of another version")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--levels", nargs="+", default=LEVELS, choices=LEVELS)
    parser.add_argument("--turns", nargs=2, help=argparse.SUPPRESS)  # level and part: a process of one tree
    arguments = parser.parse_args()
    if arguments.turns:
        return take_turns(*arguments.turns)
    trees = [arguments.other, Path(__file__).resolve().parents[1]]
    for level in arguments.levels:
        for part in arguments.parts:
            report(f"{level}: {part}", *map(list, zip(*compare(trees, level, part), strict=True)))


def compare(trees: list[Path], level: str, part: str) -> list[tuple[dict[str, float], ...]]:
    """Seconds of each round, of both trees."""
    core = min(os.sched_getaffinity(0))
    processes = [
        subprocess.Popen(
            ["taskset", "-c", str(core), sys.executable, __file__, tree, "--turns", level, part],
            env=os.environ | {"PYTHONPATH": str(tree.resolve())},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for tree in trees
    ]
    try:
        rounds = [tuple(map(turn, processes)) for _ in range(ROUNDS + 1)]
    finally:
        for process in processes:
            process.communicate()
    return rounds[1:]  # the first one warms up


def turn(process: subprocess.Popen[str]) -> dict[str, float]:
    assert process.stdin and process.stdout
    process.stdin.write("\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def report(name: str, other: list[dict[str, float]], this: list[dict[str, float]]) -> None:
    ratios = [before["wall_s"] / after["wall_s"] for before, after in zip(other, this, strict=True)]
    figures = dict(zip(("first quartile", "median", "third quartile"), statistics.quantiles(ratios), strict=True))
    cpu = sum(turn["cpu_s"] for turn in other) / sum(turn["cpu_s"] for turn in this)
    median_ms = [statistics.median(turn["wall_s"] for turn in turns) * 1e3 for turns in (other, this)]
    rounded = {key: round(value, 3) for key, value in (figures | {"cpu": cpu}).items()}
    print(json.dumps({"part": name, **rounded, "ms a round": [round(ms, 2) for ms in median_ms]}), flush=True)


def take_turns(level: Any, part: str) -> None:
    """Does a round of the part for each line of stdin, and prints its seconds."""
    # The tree on PYTHONPATH decides which version is imported.
    from rlframe.sandbox import Limits, Program, Sandbox
    from rlframe.sandbox import sandbox as module

    limits = Limits(case_s=5.0, program_s=10.0, memory_mib=256, output_bytes=10_000)
    sandbox: Any = Sandbox(limits, "landlock")
    sandbox._server = module._start_tested_server(level)
    calls = [{"args": [n, 1], "kwargs": {}} for n in range(20)]
    programs = {
        "one case of stdin": Program(source=SUM, function=None, inputs=["1 2\n"]),
        "20 calls of a function": Program(source=ADD, function="add", inputs=calls),
    }
    group = rewards(sandbox)
    try:
        for _ in sys.stdin:
            cpu_s, start = used_s(sandbox), time.perf_counter()
            if program := programs.get(part):
                for _ in range(PROGRAMS):
                    list(sandbox.run(program))
            elif part == "start to ready":
                for _ in range(STARTS):
                    module._Server(level).kill()
            else:
                group()
            wall_s = time.perf_counter() - start
            print(json.dumps({"wall_s": wall_s, "cpu_s": used_s(sandbox) - cpu_s}), flush=True)
    finally:
        sandbox.close()


def rewards(sandbox: Any) -> Callable[[], object]:
    """Scores a group of completions of one prompt, whose programs have 4 cases each and pass."""
    from rlframe.reward import build
    from rlframe.types import Completion, Prompt

    code: Any = build(TERM)
    code._sandbox = sandbox
    cases = [{"stdin": f"{n} 2\n", "stdout": f"{n + 2}\n"} for n in range(4)]
    prompt = Prompt(id="p", messages=[], token_ids=[], reference=json.dumps({"cases": cases}), task="code")
    none: Any = []
    completion = Completion(token_ids=none, logprobs=none, versions=none, text=COMPLETION, finish_reason="stop")

    def group() -> None:
        scores = [code(prompt, completion).score for _ in range(GROUP)]
        assert scores == [1.0] * GROUP

    return group


def used_s(sandbox: Any) -> float:
    """CPU seconds of this process, of the server, and of the runners that have ended."""
    ticks = sum(map(int, Path(f"/proc/{server_of(sandbox)}/stat").read_text().rpartition(")")[2].split()[11:15]))
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def server_of(sandbox: Any) -> int:
    """The process number of the server's interpreter, which is the child of bubblewrap's child."""
    process = sandbox._server._process.pid
    while children := Path(f"/proc/{process}/task/{process}/children").read_text().split():
        if "bwrap" not in Path(f"/proc/{process}/comm").read_text():
            break
        process = int(children[0])
    return process


if __name__ == "__main__":
    main()
