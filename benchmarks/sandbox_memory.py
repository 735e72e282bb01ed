"""Memory of the trusted worker while programs flood every way out of the sandbox, with 100 cases each.

    python benchmarks/sandbox_memory.py

Prints, for each flood, by how much the worker's resident memory grew at its peak. The bound on an output is 16 MiB; a
worker that held the outputs of all cases would grow by 1,600 MiB.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from rlframe.reward import build
from rlframe.sandbox.levels import ISOLATIONS
from rlframe.types import Completion, Prompt

CASES, OUTPUT_MIB = 100, 16
TERM = {
    "name": "code", "weight": 1.0, "partial": True, "min_isolation": "landlock", "case_s": 4.0, "program_s": 60.0,
    "memory_mib": 512, "output_bytes": OUTPUT_MIB << 20, "max_chars": 5_000,
}  # fmt: skip
WRITE = (
    "import os\ndef write(fd, data):\n    data = memoryview(data)\n    while data: data = data[os.write(fd, data):]\n"
)
FILL = f"N = ({OUTPUT_MIB} << 20) - 64\n"
FOREVER = "while True: write({fd}, {data})"
SCRIPTS = {
    "stdout: full of newlines": "write(1, b'\\n' * N)",
    "stdout: full of short lines": "write(1, b'1\\n' * (N // 2))",
    "stdout: a long line": "write(1, b'x' * N)",
    "stdout: a long line and a wide character": "write(1, b'x' * N + '\\U0001f600'.encode())",
    "stdout: bytes that are no text": "write(1, b'\\xff' * N)",
    "stdout: without end": FOREVER.format(fd=1, data="b'x' * 65536"),
    "stderr: without end": FOREVER.format(fd=2, data="b'x' * 65536"),
    "stdout and stderr in turn, without end": "while True: write(1, b'x' * 512); write(2, b'\\n' * 65536)",
}
RESULTS = {
    "results: newlines without end": FOREVER.format(fd=3, data="b'\\n' * 65536"),
    "results: a line without end": FOREVER.format(fd=3, data="b'x' * 65536"),
    "results: forged lines": "while True: write(3, b'1\\n' * 32768)",
    "results: full lines": "write(3, b'x' * N + b'\\n')",
    "results: full lists of lists": "write(3, b'[' + b'[],' * (N // 3) + b'0]\\n')",
    "results: full lists of dicts": "write(3, b'[' + b'{},' * (N // 3) + b'0]\\n')",
    "results: full lists of numbers": "write(3, b'[' + b'1,' * (N // 2) + b'0]\\n')",
    "results: as many lists as are read": "write(3, b'[' + b'[[]],' * 124_000 + b'0]\\n')",
    "results: as many dicts as are read": "write(3, b'[' + b'{\"a\":{}},' * 124_000 + b'0]\\n')",
    "results: as many texts as are read": "write(3, b'[' + b'\"abc\",' * 999_000 + b'0]\\n')",
    "results: as many sets as are read": "write(3, b'[' + b'{\"$set\":[1]},' * 120_000 + b'0]\\n')",
    "results: a long text with a wide character": "write(3, b'\"' + b'x' * N + '\\U0001f600'.encode() + b'\"\\n')",
    "results: escapes": "write(3, b'\"' + b'\\\\u1234' * (N // 6) + b'\"\\n')",
    "results: digits": "write(3, b'1' * N + b'\\n')",
    "results: depth": "write(3, b'[' * N + b'\\n')",
}


def main() -> None:
    worst_mib = 0.0
    code = build(TERM)
    code.start()
    level = ISOLATIONS[int(code.facts()["isolation"]) - 1]
    script_tests = {"cases": [{"stdin": "", "stdout": "1\n"}] * CASES}
    call_tests = {"function": "f", "cases": [{"args": [], "returns": [1]}] * CASES}
    floods = [(name, source, script_tests) for name, source in SCRIPTS.items()]
    floods += [(name, f"def f():\n    {source}\n    return 1", call_tests) for name, source in RESULTS.items()]
    for name, source, tests in floods:
        prompt = Prompt(id="p", messages=[], token_ids=[], reference=json.dumps(tests), task="code")
        text = f"```python\n{WRITE}{FILL}{source}\n```"
        completion = Completion(token_ids=[1], logprobs=[], versions=[], text=text, finish_reason="stop")
        before_mib, start = reset_peak(), time.perf_counter()
        verdict = code(prompt, completion)
        growth_mib = memory("VmHWM") - before_mib
        worst_mib = max(worst_mib, growth_mib)
        figures = {"growth_mib": round(growth_mib, 1), "seconds": round(time.perf_counter() - start, 1)}
        print(json.dumps({"part": f"{level}: {name}", **figures, "score": verdict.score}), flush=True)
    code.close()
    print(json.dumps({"part": "largest growth", "growth_mib": round(worst_mib, 1)}))


def reset_peak() -> float:
    """Resets the peak of this process's resident memory. Returns the resident memory in MiB."""
    Path("/proc/self/clear_refs").write_text("5")  # see proc(5)
    return memory("VmRSS")


def memory(field: str) -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
