"""A program in the sandbox behaves like a file that a bare interpreter runs, at each level of isolation."""

import subprocess
from pathlib import Path

import pytest

from rlframe.sandbox import Limits, Outcome, Program, Sandbox
from rlframe.sandbox.levels import PYTHON

LIMITS = Limits(case_s=5.0, program_s=20.0, memory_mib=512, output_bytes=100_000)
STDIN = "3 4\nsecond line\n\nlast é line"

# Each script prints the same text as a file under a bare interpreter does, with `STDIN` as its input.
SCRIPTS = {
    "a dataclass with postponed annotations": (
        "from __future__ import annotations\nfrom dataclasses import dataclass, fields, replace\nimport typing\n"
        "@dataclass(order=True, slots=True)\nclass Point:\n    x: int\n    y: 'int' = 0\n"
        "    name: typing.ClassVar[str] = ''\n"
        "print(replace(Point(1), y=2), len(fields(Point)), typing.get_type_hints(Point))"
    ),
    "a named tuple and an enumeration": (
        "from typing import NamedTuple\nfrom enum import Enum, auto\nimport typing\nclass Edge(NamedTuple):\n"
        "    to: 'int'\n    cost: float = 1.0\nclass Color(Enum):\n    RED = auto()\n"
        "print(Edge(2), Color.RED, repr(Color.RED), typing.get_type_hints(Edge), Edge)"
    ),
    "pickle and copy of its own class": (
        "import copy, pickle\nclass Node:\n    def __init__(self): self.next = self\n"
        "for twin in (pickle.loads(pickle.dumps(Node())), copy.deepcopy(Node())): print(twin.next is twin, "
        "type(twin))"
    ),
    "its own module": (
        '"""The module\'s text."""\nimport __main__, sys\nx = 5\nfrom __main__ import x as y\n'
        "print(__main__.x, y, sys.modules[__name__] is __main__, __name__, __doc__, __package__, __spec__)\n"
        "print(sorted(set(vars()) - {'__loader__', '__builtins__', 'sys', 'x', 'y'}), __builtins__.len('ab'))"
    ),
    "its own source": (
        "import inspect, linecache\ndef f(x):\n    return x + 1  # a comment\nclass A:\n    y = 1\n"
        "print(inspect.getsource(f), inspect.getsource(A), inspect.getsourcelines(f)[1], inspect.signature(f))"
    ),
    "its file's folder": (
        "import os, sys\nprint(os.path.isabs(__file__), __file__ == os.path.abspath(sys.argv[0]), len(sys.argv))\n"
        "print(os.path.exists('input.txt'), os.path.exists(os.path.join(os.path.dirname(__file__), 'in.txt')))"
    ),
    "a main block": "def main(): print(input())\nif __name__ == '__main__':\n    main()",
    "doctest": (
        "import doctest\ndef f(x):\n    '''\n    >>> f(1)\n    2\n    '''\n    return x + 1\nprint(doctest.testmod())"
    ),
    "unittest": (
        "import unittest, sys\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(1, 1)\n"
        "unittest.main(exit=False, testRunner=unittest.TextTestRunner(stream=open('/dev/null')) and None or "
        "unittest.TextTestRunner(stream=__import__('io').StringIO()))\nprint('done')"
    ),
    "timeit": "import timeit\ndef f(): return 1\nprint(timeit.timeit('f()', 'from __main__ import f', number=9) < 9)",
    "input": "print([input(), input(), input(), input()])\ntry: input()\nexcept EOFError as e: print(e)",
    "lines of stdin": "import sys\nprint(sys.stdin.readline(), [line for line in sys.stdin])",
    "bytes of stdin": "import sys\nprint(sys.stdin.buffer.readline(), sys.stdin.buffer.read())",
    "stdin by number": "print(open(0, closefd=False).read().split(), open(0).read())",
    "stdin in binary by number": "print(open(0, 'rb').read())",
    "stdin by name": "print(open('/dev/stdin').read())",
    "stdin by name, line by line": "with open('/dev/stdin', 'r', encoding='utf-8') as f: print([line for line in f])",
    "stdin as a path": "from pathlib import Path\nprint(Path('/dev/stdin').read_text(), Path('/dev/fd/0').name)",
    "stdin by another name": "print(open('/dev/fd/0', 'rb').read())",
    "stdin of the process": "print(open('/proc/self/fd/0').read())",
    "stdin replaced": "import sys\nsys.stdin = open('/dev/stdin')\nprint(input(), sys.stdin.name)",
    "a descriptor by name": "import os\nf = os.open('/dev/stdin', os.O_RDONLY)\nprint(os.read(f, 9))\nos.close(f)",
    "stdout by name": "with open('/dev/stdout', 'w') as f: f.write('out')",
    "the size of stdin": "import io, os\nprint(io.BytesIO(os.read(0, os.fstat(0).st_size)).read())",
    "mapped stdin": "import mmap\nprint(mmap.mmap(0, 0, access=mmap.ACCESS_READ).readline())",
    "fileinput": "import fileinput\nprint([line for line in fileinput.input()])",
    "numbers from stdin": "from sys import stdin\nread = stdin.readline\nprint(sum(map(int, read().split())))",
    "a reconfigured stream": "import sys\nsys.stdout.reconfigure(line_buffering=True)\nprint('é')",
    "bytes of stdout": "import sys\nprint('a', end='')\nsys.stdout.flush()\nsys.stdout.buffer.write(b'\\xff\\n')",
    "sys.exit in the middle": "import sys\nprint(1)\nsys.exit()\nprint(2)",
    "sys.exit in a function": "import sys\ndef f():\n    print(1)\n    sys.exit(0)\nf()",
    "an unflushed file": "out = open(1, 'w', closefd=False)\nout.write('unflushed')",
    "an unflushed buffer": (
        "import io\nout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, 'w', closefd=False)))\nout.write('x')"
    ),
    "an object's end": "class A:\n    def __del__(self): print('end')\na = A()",
    "a fast output": (
        "import sys\nclass Out:\n    def __init__(self): self.parts = []\n"
        "    def write(self, text): self.parts.append(text)\n    def flush(self):\n"
        "        sys.__stdout__.write(''.join(self.parts)); self.parts = []\nsys.stdout = Out()\nprint('buffered')"
    ),
    "the default recursion limit": (
        "def depth(n):\n    try: return depth(n + 1)\n    except RecursionError: return n\nprint(depth(0) >= 990)\n"
        "def f(n): return n and 1 + f(n - 1)\nprint(f(990))"
    ),
    "a deep recursion": (
        "import sys\nsys.setrecursionlimit(10**6)\ndef f(n): return n and 1 + f(n - 1)\nprint(f(50000))"
    ),
    "a deep recursion in a thread": (
        "import sys, threading\nsys.setrecursionlimit(10**6)\nthreading.stack_size(128 * 2**20)\n"
        "def f(n): return n and 1 + f(n - 1)\nthread = threading.Thread(target=lambda: print(f(40000)))\n"
        "thread.start()\nthread.join()"
    ),
    "a deep recursion with a cache": (
        "import functools, resource, sys\nsys.setrecursionlimit(10**6)\n"
        "resource.setrlimit(resource.RLIMIT_STACK, (64 << 20, resource.getrlimit(resource.RLIMIT_STACK)[1]))\n"
        "@functools.lru_cache(None)\ndef f(n): return n and 1 + f(n - 1)\nprint(f(20000))"
    ),
    "an int of many digits": "try: print(len(str(10**5000)))\nexcept ValueError as error: print(error)",
    "more digits by request": "import sys\nsys.set_int_max_str_digits(0)\nprint(len(str(10**5000)))",
    "an alarm": (
        "import signal, time\nclass Late(Exception): pass\ndef late(*_): raise Late\n"
        "signal.signal(signal.SIGALRM, late)\nsignal.setitimer(signal.ITIMER_REAL, 0.05)\ntry: time.sleep(5)\n"
        "except Late: print('late')\nprint(signal.alarm(0))"
    ),
    "clocks": (
        "import datetime, time\na = time.perf_counter(), time.process_time(), time.monotonic(), time.time()\n"
        "print(all(x > 0 for x in a), datetime.datetime.now().year > 2000, time.strftime('%Y', time.gmtime(0)))"
    ),
    "a time zone": (
        "from zoneinfo import ZoneInfo\nfrom datetime import datetime\n"
        "print(datetime(2024, 7, 1, tzinfo=ZoneInfo('Europe/Paris')))"
    ),
    "a seed": "import random\nrandom.seed(7)\nprint(random.random(), random.sample(range(99), 3))",
    "two seeds": "import random, os\nprint(0 <= random.random() < 1, len(os.urandom(4)))",
    "a locale": (
        "import locale\nlocale.setlocale(locale.LC_ALL, '')\n"
        "print(locale.localeconv()['decimal_point'], f'{1234567:,}')"
    ),
    "a data base in memory": "import sqlite3\nprint(sqlite3.connect(':memory:').execute('select 1 + 1').fetchall())",
    "a heap, a bisection and an ordered list": (
        "import heapq, bisect\nh = [3, 1]\nheapq.heapify(h)\nprint(h, bisect.bisect([1, 2], 1))"
    ),
    "an evaluation": (
        "x = 4\nprint(eval('x + 1'), [eval('x') for _ in '1'])\nexec('y = x')\nprint(y, globals() is locals())"
    ),
    "a byte order mark": "\ufeffprint('mark')",
    "an encoding line": "# -*- coding: utf-8 -*-\nprint('é')",
    "a nested generator and a walrus": "print([y := 1, y**2], (lambda: (yield 1))().__next__())",
    "an empty environment": (
        "import os\nprint(os.environ.get('ONLINE_JUDGE'), os.getenv('HOME'), 'LOCAL' in os.environ)"
    ),
    "a weak reference": (
        "import weakref, gc\nclass A: pass\na = A()\na.a = a\nr = weakref.ref(a)\ndel a\ngc.collect()\nprint(r())"
    ),
    "warnings": (
        "import warnings\nwith warnings.catch_warnings(record=True) as w:\n    warnings.warn('x')\nprint(len(w))"
    ),
    "help": (
        "def f():\n    '''Adds.'''\nprint(f.__doc__)\nimport pydoc\n"
        "print(pydoc.render_doc(f, renderer=pydoc.plaintext))"
    ),
}


def run(sandbox: Sandbox, source: str, stdin: str = STDIN, function: str | None = None) -> Outcome:
    inputs = [stdin] if function is None else [{"args": [], "kwargs": {}}]
    [outcome] = sandbox.run(Program(source=source, function=function, inputs=inputs))
    return outcome


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_prints_what_a_bare_interpreter_prints(sandbox: Sandbox, name: str, tmp_path: Path):
    (tmp_path / "solution.py").write_text(SCRIPTS[name])
    (tmp_path / "stdin").write_text(STDIN)
    with (tmp_path / "stdin").open() as stdin:
        bare = subprocess.run(
            [PYTHON, tmp_path / "solution.py"], stdin=stdin, capture_output=True, env={}, cwd=tmp_path
        )
    assert bare.returncode == 0, bare.stderr.decode()
    outcome = run(sandbox, SCRIPTS[name])
    assert outcome.status == "returned", outcome
    assert outcome.output.decode(errors="replace") == bare.stdout.decode(errors="replace")


FUNCTIONS = {  # each returns its last value
    "a dataclass with postponed annotations": (
        "from __future__ import annotations\nfrom dataclasses import dataclass\nimport typing\n@dataclass\nclass P:\n"
        "    x: int\n    y: typing.ClassVar[int] = 3\ndef f(): return [P(1).x, P.y, len(typing.get_type_hints(P))]",
        b"[1, 3, 2]",
    ),
    "pickle of its own class": (
        "import pickle\nclass A: x = 1\ndef f(): return pickle.loads(pickle.dumps(A())).x",
        b"1",
    ),
    "its own module": (
        "import __main__, sys, solution\nx = 5\ndef f():\n    from __main__ import x\n"
        "    return [x, __main__.x, solution.x, sys.modules[__name__].x]",
        b"[5, 5, 5, 5]",
    ),
    "a main block": ("x = 1\nif __name__ == '__main__':\n    x = 2\ndef f(): return x", b"1"),
    "its own source": ("import inspect\ndef f(): return inspect.getsource(f)[:7]", b'"def f()"'),
    "an empty stdin": ("import sys\ndef f():\n    print('unseen')\n    return sys.stdin.read()", b'""'),
    "the default recursion limit": ("def g(n): return n and 1 + g(n - 1)\ndef f(): return g(990)", b"990"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_finds_its_module_as_an_imported_file_does(sandbox: Sandbox, name: str):
    source, expected = FUNCTIONS[name]
    outcome = run(sandbox, source, function="f")
    assert (outcome.status, outcome.output) == ("returned", expected), outcome


ERRORS = {  # source -> what stderr says of it
    "def f(x):\n    return 1 / x  # the line\nf(0)": "return 1 / x  # the line",
    "def f(:": "SyntaxError",
    "raise SystemExit('the message')": "the message",
    "import sys\nsys.exit(3)": "exit status 3",
    "import os\nos._exit(4)": "exit status 4",
    "exit(1)": "exit status 1",
    "x = 1\n" * 5 + "undefined": "line 6, in <module>",
    "import multiprocessing\nmultiprocessing.Pool(2)": "PermissionError",
    "import subprocess\nsubprocess.run(['ls'])": "PermissionError",
}


@pytest.mark.parametrize("source", ERRORS)
def test_an_error_shows_the_line_of_the_program_and_no_other_file(sandbox: Sandbox, source: str):
    outcome = run(sandbox, source)
    assert outcome.status == "raised" and ERRORS[source] in outcome.detail, outcome
    assert "rlframe" not in outcome.detail
