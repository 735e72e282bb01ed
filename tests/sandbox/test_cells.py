"""Cells behave as in a notebook, and a cell that attacks or falsifies harms its own session at most, at each level."""

import pytest

from rlframe.sandbox import CellResult, Cells, Limits, Sandbox

LIMITS = Limits(case_s=1.0, program_s=4.0, memory_mib=256, output_bytes=2000)


def run(sandbox: Sandbox, *sources: str) -> list[CellResult]:
    with Cells(sandbox, max_cells=100) as cells:
        return [cells.run(source) for source in sources]


def test_cells_share_variables_and_show_prints_and_the_last_value(sandbox: Sandbox) -> None:
    results = run(sandbox, "x = 6", "print('hello')\nx * 7", "None", "if x: x")
    assert [(result.printed, result.value) for result in results] == [
        ("", None),
        ("hello\n", "42"),
        ("", None),
        ("", None),
    ]
    assert {(result.status, result.error, result.session_is_over) for result in results} == {("returned", None, False)}


def test_an_error_shows_the_lines_of_its_cells_and_the_session_goes_on(sandbox: Sandbox) -> None:
    _, error, after = run(sandbox, "def f():\n    return 1 / 0", "print(1)\nf()", "2")
    assert (error.status, error.printed, error.session_is_over) == ("raised", "1\n", False)
    assert error.error == (
        "Traceback (most recent call last):\n"
        '  File "<cell 2>", line 2, in <module>\n    f()\n'
        '  File "<cell 1>", line 2, in f\n    return 1 / 0\n            ~~^~~\n'
        "ZeroDivisionError: division by zero\n"
    )
    assert after.value == "2"


LAST_VALUES = {
    "a class defined in an earlier cell is pickled": (
        ["class A: x = 7", "import pickle\npickle.loads(pickle.dumps(A())).x"],
        "7",
    ),
    "a data class": (["from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int", "P(3)"], "P(x=3)"),
    "a function's source": (
        ["def f():\n    return 1", "import inspect\ninspect.getsource(f)"],
        r"'def f():\n    return 1'",
    ),
    "a class's newest source": (
        ["class A:\n    x = 1\n", "class A:\n    x = 2\n", "import inspect\ninspect.getsource(A)"],
        r"'class A:\n    x = 2\n'",
    ),
    "a future import holds for later cells": (
        ["from __future__ import annotations", "def f(x: missing): pass", "f.__annotations__"],
        "{'x': 'missing'}",
    ),
    "annotations of variables": (["x: int = 3", "__annotations__"], "{'x': <class 'int'>}"),
    "a main guard": (["if __name__ == '__main__':\n    x = 3", "import __main__\n__main__.x"], "3"),
    "a redirected stdout ends with its cell": (["import io, sys\nsys.stdout = io.StringIO()", "print(1) or 2"], "2"),
    "a closed stdout ends with its cell": (
        ["import sys\nsys.stdout.close()\nsys.stdout.detach()", "print(1) or 2"],
        "2",
    ),
    "deleted builtins come back": (["import builtins\nbuiltins.__dict__.clear()\nraise ValueError", "len('ab')"], "2"),
    "a replaced builtin comes back": (["import builtins\nbuiltins.repr = builtins.len = None", "len('ab')"], "2"),
    "a name is deleted": (["x = 1", "del x", "'x' in globals()"], "False"),
    "an exit ends its cell only": (["x = 1\nexit()\nx = 2", "x"], "1"),
    "an empty representation": (["class A:\n    def __repr__(self): return ''", "A()"], ""),
    "a lost surrogate": (["'\\ud800'", "chr(0xd800)"], r"'\ud800'"),
    "a limit of recursion that is exceeded": (["def f(): f()\nf()", "1"], "1"),
    "too much memory for one value": (["x = bytearray(10**9)", "1"], "1"),
    "a syntax error": (["if True print(1)", "1"], "1"),
    "a null byte": (["'\0'", "1"], "1"),
    "ten thousand brackets": (["(" * 10_000, "1"], "1"),
}


@pytest.mark.parametrize("name", LAST_VALUES)
def test_the_last_of_some_cells_has_the_value_of_a_notebook(sandbox: Sandbox, name: str) -> None:
    sources, value = LAST_VALUES[name]
    last = run(sandbox, *sources)[-1]
    assert last == CellResult(
        status="returned", printed=last.printed, background="", value=value, error=None, session_is_over=False
    )


ERRORS = {
    "input('name? ')": "EOFError: a cell has no input: write the value into the cell",
    "import sys; sys.stdin.read()": "EOFError: a cell has no input: write the value into the cell",
    "import sys; sys.exit(3)": "SystemExit: 3",
    "exit('bad')": "SystemExit: bad",
    "class A:\n    def __repr__(self): return 1 / 0\nA()": "ZeroDivisionError: division by zero",
    "raise KeyboardInterrupt": "KeyboardInterrupt",
    "class E(Exception):\n    def __str__(self): return 1 / 0\nraise E": "E: <exception str() failed>",
    "print(": "SyntaxError: '(' was never closed",
}


@pytest.mark.parametrize("source", ERRORS)
def test_a_cell_ends_with_a_plain_error_and_the_next_one_runs(sandbox: Sandbox, source: str) -> None:
    error, after = run(sandbox, source, "1")
    assert error.status == "raised" and error.error is not None and error.error.splitlines()[-1] == ERRORS[source]
    assert "solution" not in error.error and after.value == "1"


def test_each_text_is_cut_in_the_middle_and_says_how_much(sandbox: Sandbox) -> None:
    printed, value, error = run(
        sandbox, "print('a' * 3000, end='b')", "'é' * 10**6", "raise ValueError('\\x00' * 10**6 + 'end')"
    )
    assert printed.printed.startswith("aaa") and printed.printed.endswith("aab")
    kept = len(printed.printed.replace("\n", "")) - len("[... 1501 bytes cut ...]")
    assert f"\n[... {3001 - kept} bytes cut ...]\n" in printed.printed and 1000 < kept <= 2000
    assert value.value is not None and "bytes cut" in value.value and len(value.value.encode()) <= 2000
    assert error.error is not None and error.error.startswith("Traceback") and error.error.endswith("end\n")


def test_endless_prints_use_no_memory_and_the_end_is_shown(sandbox: Sandbox) -> None:
    [result] = run(sandbox, "n = 0\nwhile True:\n    n += 1\n    print('x' * 100_000, n)")
    assert result.status == "timeout" and result.session_is_over
    assert result.error is not None and "xxx" in result.error and len(result.error) < 2300


def test_prints_of_an_earlier_cells_threads_are_kept_apart(sandbox: Sandbox) -> None:
    noise = "import threading, time\ndef noise():\n    while True: time.sleep(0.01); print('noise')\n"
    start = "threading.Thread(target=noise).start()"
    [_, quiet, mixed] = run(
        sandbox,
        noise + start,
        "time.sleep(0.5); print('main')",
        "t = threading.Thread(target=print, args=('own thread',)); t.start(); t.join(); time.sleep(0.5)",
    )
    assert (quiet.printed, mixed.printed) == ("main\n", "own thread\n")
    assert set(quiet.background.split()) == set(mixed.background.split()) == {"noise"}
