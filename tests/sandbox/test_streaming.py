"""Outcomes come one at a time, and the worker holds one case's output, whatever a program prints."""

import select
import tracemalloc
from typing import Any

import pytest

from rlframe.sandbox import Limits, Program, Sandbox
from rlframe.sandbox.values import MAX_CONTAINERS, MAX_ITEMS, decode

LIMITS = Limits(case_s=2.0, program_s=20.0, memory_mib=256, output_bytes=1_000_000)
ENDLESS_SECOND = "def f(n):\n    while n == 2: pass\n    return n"


def calls(source: str, *arguments: Any) -> Program:
    return Program(source=source, function="f", inputs=[{"args": [value], "kwargs": {}} for value in arguments])


def script(source: str, *inputs: str) -> Program:
    return Program(source=source, function=None, inputs=list(inputs or [""]))


def test_the_first_result_comes_while_the_second_call_runs(sandbox: Sandbox):
    outcomes = sandbox.run(calls(ENDLESS_SECOND, 1, 2))
    assert next(outcomes).output == b"1"
    assert sandbox._server and not select.select([sandbox._server.control], [], [], 0)[0]  # no report of an end
    assert [outcome.status for outcome in outcomes] == ["timeout"]


@pytest.mark.parametrize("program", [calls(ENDLESS_SECOND, 1, 2), script("print(input())", "1", "2")])
def test_a_sandbox_is_free_once_an_iterator_is_closed_or_forgotten(sandbox: Sandbox, program: Program):
    outcomes = sandbox.run(program)
    assert next(outcomes).output.strip() == b"1"
    outcomes.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert [outcome.output for outcome in sandbox.run(script("print(3)"))] == [b"3\n"]
    assert next(sandbox.run(program)).output.strip() == b"1"
    forgotten = sandbox.run(program)
    next(forgotten)
    assert [outcome.output for outcome in sandbox.run(script("print(4)"))] == [b"4\n"]
    assert list(forgotten) == []  # the next program has ended it


FLOODS = {
    "newlines": "while True: os.write(3, b'\\n' * 65536)",
    "forged results": "while True: os.write(3, b'1\\n' * 1000)",
    "a line without end": "while True: os.write(3, b'x' * 65536)",
    "long lines": "while True: os.write(3, b'x' * 999_999 + b'\\n')",
    "stderr": "while True: os.write(2, b'x' * 65536)",
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_of_a_hundred_calls_stays_below_the_size_of_four(sandbox: Sandbox, name: str):
    program = calls(f"import os\ndef f(n):\n    {FLOODS[name]}", *range(100))
    tracemalloc.start()
    statuses = [outcome.status for outcome in sandbox.run(program)]
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(statuses) == 100 and statuses[-1] != "returned"
    assert peak_bytes < 4 * LIMITS.output_bytes


@pytest.mark.parametrize("stream", ["1", "2", "n % 2 + 1"])
def test_a_flood_of_a_script_stays_below_the_size_of_four(sandbox: Sandbox, stream: str):
    source = f"import os\nn = 0\nwhile True:\n    n += 1\n    os.write({stream}, b'\\n' * 65536)"
    tracemalloc.start()
    outcomes = [(outcome.status, len(outcome.output)) for outcome in sandbox.run(script(source, *"abcd"))]
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    expected = [("timeout", 0)] + [("skipped", 0)] * 3 if stream == "2" else [("output", 1_000_001)] * 4
    assert outcomes == expected
    assert peak_bytes < 4 * LIMITS.output_bytes


def test_a_line_of_too_many_parts_never_becomes_a_value():
    assert decode("[" + "0," * 9 + "0]") == [0] * 10
    for text in ("[" * (MAX_CONTAINERS + 1), "{" * (MAX_CONTAINERS + 1), "," * (MAX_ITEMS + 1), "1" * 10_000_001):
        with pytest.raises(ValueError, match="it has more than 10,000,000 bytes, 250,000 lists and dicts, or 1,000,0"):
            decode(text)
    with pytest.raises(ValueError, match="ascii"):
        decode('"é"'.encode())
