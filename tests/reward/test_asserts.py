"""Tests that are code: right programs pass, and no program forges a passed assert."""

import json
from collections.abc import Iterator

import pytest

from rlframe.reward.asserts import BadTests
from rlframe.reward.code import Code
from tests.reward.code_verdicts import judge, started

ADD = ["assert add(1, 2) == 3", "assert abs(add(0.1, 0.2) - 0.3) < 1e-6"]


@pytest.fixture(scope="module")
def code() -> Iterator[Code]:
    reward = started(partial=True)
    yield reward
    reward.close()


STACK = """
class Stack:
    def __init__(self, items=()): self.items = list(items)
    def push(self, item): self.items.append(item)
    def pop(self): return self.items.pop()
    def __len__(self): return len(self.items)
    def __iter__(self): return iter(self.items)
    def __getitem__(self, index): return self.items[index]
    def __setitem__(self, index, item): self.items[index] = item
    def __str__(self): return f"Stack of {len(self.items)}"
    def __enter__(self): return self
    def __exit__(self, *error): self.items.clear()
"""
VEC = """
class Vec:
    def __init__(self, x, y): self.x, self.y = x, y
    def __add__(self, other): return Vec(self.x + other.x, self.y + other.y)
    def __mul__(self, k): return Vec(self.x * k, self.y * k) if isinstance(k, int) else self.x * k.x + self.y * k.y
    __rmul__ = __mul__
    def __neg__(self): return Vec(-self.x, -self.y)
    def __lt__(self, other): return self.x < other.x
    def __eq__(self, other): return isinstance(other, Vec) and (self.x, self.y) == (other.x, other.y)
    def __hash__(self): return hash((self.x, self.y))
"""
RATIO = """
class Ratio:
    def __init__(self, a, b): self.a, self.b = a, b
    def __add__(self, other): return Ratio(self.a * other.b + other.a * self.b, self.b * other.b)
    def __eq__(self, other): return self.a * other.b == other.a * self.b
"""
POINT = "from dataclasses import dataclass\n@dataclass(order=True, slots=True)\nclass P:\n    x: int\n    y: int = 0\n"
NODE = "class Node:\n    def __init__(self, value): self.value, self.left = value, None\n"
RAISES = "class Empty(ValueError):\n    pass\n\ndef f(x):\n    raise Empty('no', x) if x else KeyError(x)\n"

RIGHT = {
    "values": (
        "def add(a, b): return a + b",
        [*ADD, "assert add((1,), (2,)) == (1, 2)", "assert add('a', 'b') == 'ab'"],
    ),
    "an object": (
        STACK,
        [
            "s = Stack()\ns.push(1)\nassert s.pop() == 1 and not s",
            "s = Stack([1, 2])\nassert len(s) == 2 and list(s) == [1, 2]",
            "s = Stack([1])\ns[0] = 5\nassert s[0] == 5 and s.items == [5]",
            "assert str(Stack([1])) == 'Stack of 1'",
            "s = Stack()\nassert s == s and s != Stack() and isinstance(s, Stack)",
            "s = Stack([1])\nwith s: pass\nassert len(s) == 0",
        ],
    ),
    "operators": (
        VEC,
        [
            "assert Vec(1, 2) + Vec(3, 4) == Vec(4, 6) and Vec(1, 2) * Vec(3, 4) == 11",
            "assert (Vec(1, 2) == Vec(1, 3)) is False and Vec(1, 2) != Vec(1, 3) and Vec(1, 2) != (1, 2)",
            "assert 2 * Vec(1, 2) == Vec(1, 2) * 2 == Vec(2, 4) == -Vec(-2, -4) and Vec(0, 1) in [Vec(0, 1)]",
            "assert min([Vec(2, 0), Vec(1, 5)]) == Vec(1, 5) and sum([Vec(1, 1)] * 3, Vec(0, 0)) == Vec(3, 3)",
            "assert {Vec(1, 2): 3}[Vec(1, 2)] == 3 and len({Vec(1, 2), Vec(1, 2)}) == 1",
            "v = Vec(1, 1)\nv += Vec(1, 1)\nassert v.x == 2",
        ],
    ),
    "a dataclass": (POINT, ["assert P(1, 2) == P(1, 2) != P(2, 1) and P(0) == P(0, 0)", "assert P(1, 2) < P(1, 3)"]),
    "equal objects with other attributes": (RATIO, ["assert Ratio(1, 2) + Ratio(1, 4) == Ratio(3, 4)"]),
    "objects without attributes": (
        "class Nil:\n    def __eq__(self, other): return isinstance(other, Nil)\n",
        ["assert Nil() == Nil() and Nil() != 5"],
    ),
    "unittest": (
        "def add(a, b): return a + b",
        [
            "import unittest\nclass T(unittest.TestCase):\n    def setUp(self): self.one = 1\n"
            "    def test_add(self): self.assertEqual(add(self.one, 2), 3)\n"
            "    def test_error(self):\n        with self.assertRaises(TypeError): add(1, 'a')\n",
        ],
    ),
    "attributes": (NODE, ["n = Node(1)\nn.left = Node(2)\nassert n.left.value == 2\nn.value = 7\nassert n.value == 7"]),
    "exceptions": (
        RAISES,
        [
            "try: f(1)\nexcept Empty as error: assert error.args == ('no', 1)\nelse: assert False",
            "try: f(1)\nexcept ValueError: pass",
            "try: f(0)\nexcept KeyError as error: assert error.args == (0,)",
        ],
    ),
    "changed arguments": (
        "def f(a, b): a.sort(); b[0].append(1); return None",
        [
            "a, b = [3, 1], [[0]]\nrow = b[0]\nf(a, b)\nassert (a, b, row) == ([1, 3], [[0, 1]], [0, 1])",
            "a, b = [], {0: []}\nf(a, b=b)\nassert b == {0: [1]}",
        ],
    ),
    "callbacks": (
        "def f(items, key): return sorted(items, key=key)",
        [
            "assert f([1, 3, 2], key=lambda item: -item) == [3, 2, 1]",
            "assert f(['bb', 'a'], len) == ['a', 'bb']",
            "assert f([1, 2], key=lambda item: f([item], abs)[0] * -1) == [2, 1]",
        ],
    ),
    "generators": (
        "def f(n):\n    yield from range(n)",
        ["assert list(f(3)) == [0, 1, 2]", "g = f(1)\nassert next(g) == 0"],
    ),
    "named tuples": (
        "from typing import NamedTuple\nclass P(NamedTuple):\n    x: int\n    y: int\n\ndef f(): return P(1, 2)",
        [
            "assert f() == (1, 2) and f().y == 2",
            "x, y = f()\nassert x == 1",
        ],
    ),
    "containers of its own": (
        "class L(list):\n    def top(self): return self[-1]\n",
        ["a = L([1, 2])\nassert a.top() == 2 and a == [1, 2]"],
    ),
    "known containers": (
        "from collections import Counter, deque\ndef f(s): return Counter(s)\ndef g(): return deque([1])",
        [
            "assert f('aab') == {'a': 2, 'b': 1}",
            "assert list(g()) == [1]",
        ],
    ),
    "an enumeration": (
        "import enum\nclass C(enum.Enum):\n    RED = 1\n\ndef f(): return C.RED",
        ["assert f() == C.RED and f().value == 1"],
    ),
    "a forgotten import": ("def f(): return 1 / 3", ["assert math.isclose(f(), 1 / 3)"]),
    "test functions": ("def f(): return 1", ["from solution import f\n\ndef test_it():\n    assert f() == 1\n"]),
    "objects of the tests": (
        "def f(n):\n    while n.next: n = n.next\n    n.next = n.add(2)\n    return n.value",
        [
            "class N:\n    def __init__(self, value, next): self.value, self.next = value, next\n"
            "    def add(self, other): return self.value + other\n\nlast = N(1, None)\n"
            "assert f(N(0, last)) == 1 and last.next == 3",
        ],
    ),
    "the name of a builtin": ("def sum(a, b): return a * b", ["assert sum(2, 3) == 6", "assert not sum(0, 3)"]),
    "prints": ("print('hi')\ndef f(): print('ho'); return 1", ["assert f() == 1"]),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_program_passes_its_asserts(code: Code, name: str):
    source, asserts = RIGHT[name]
    assert judge(code, source, asserts).detail == f"{len(asserts)} of {len(asserts)} cases"


# Lines of the exchange, sent by the program itself.
RAW = "import sys\nframe = sys._getframe()\nwhile 'peer' not in frame.f_locals: frame = frame.f_back\n"
RAW += "main = frame.f_locals['peer']\ndef add(a, b):\n"
REPLACED = "import rlframe.sandbox.exchange as exchange\nnumber = 0\ndef serve(self, *call):\n    self.reply({line})\n"
REPLACED += "exchange.Peer.serve = serve\n"
FORGED = {
    "wrong": "def add(a, b): return a - b",
    "ends with success": "import os\ndef add(a, b): os._exit(0)",
    "ends at once": "import os; os._exit(0)",
    "exits": "import sys\ndef add(a, b): sys.exit(0)",
    "raises AssertionError": "def add(a, b): assert False",
    "equals everything": (
        "class E:\n    def __getattr__(self, name): return lambda *a: True\n    def __eq__(self, other): return True\n"
        "    __lt__ = __le__ = __gt__ = __ge__ = __ne__ = __contains__ = __eq__\n    def __abs__(self): return self\n"
        "    __sub__ = __rsub__ = __add__ = __float__ = lambda self, *a: 0\n    __hash__ = lambda self: 3\n"
        "def add(a, b): return E()"
    ),
    "a number that equals everything": (
        "class E(float):\n    def __eq__(self, other): return True\n    __sub__ = lambda self, other: 0.0\n"
        "    __hash__ = None\ndef add(a, b): return E(7)"
    ),
    "a list that equals everything": "class E(list):\n    def __eq__(self, o): return True\ndef add(a, b): return E()",
    "replaces builtins": "import builtins\nbuiltins.abs = lambda x: 0\ndef add(a, b): return 0",
    "defines what the tests use": "def abs(x): return 0\ndef add(a, b): return 0",
    "a verdict as an answer": RAW + "    main.reply('=[true, true, \"\"]'); main.receive(); return 0",
    "answers with the verdict for ever": REPLACED.format(line="""'=[true, true, ""]'"""),
    "names of its own": REPLACED.format(
        line="""'["return", {"abs": 0, "add": 0, "__builtins__": {}, "AssertionError": 0}, []]'"""
    ),
    "makes a class in the tests": RAW
    + (
        '    main.reply(\'["call", {"$builtin": "type"}, ["X", {"$tuple": []}, {"__eq__": {"$builtin": "bool"}}],'
        ' {}]\')\n    main.reply(\'["return", {"$yours": 0}, null]\')\n    return 0'
    ),
    "calls a function of the tests": RAW
    + (
        '    main.reply(\'["call", "eval", ["1"], {}]\')\n    line = main.receive()\n'
        "    return 0 if 'raise' in line else a + b"
    ),
    "no JSON": REPLACED.format(line="'hello'"),
    "nested too deeply": REPLACED.format(line="'[' * 5000"),
    "reads the stack": (
        "import sys\ndef add(a, b):\n    frame, found = sys._getframe(), []\n    while frame:\n"
        "        found += [v for v in frame.f_locals.values() if isinstance(v, str) and 'assert' + ' add(1' in v]\n"
        "        frame = frame.f_back\n    return 3 if found else 0"
    ),
    "searches memory": (
        "import gc\ndef add(a, b):\n    return 3 if any(isinstance(o, list) and o and isinstance(o[0], str) and "
        "o[0].startswith('assert' + ' add') for o in gc.get_objects()) else 0"
    ),
    "loops": "def add(a, b):\n    while True: pass",
    "floods": "def add(a, b): return 'x' * 10**7",
    "an endless generator": "def add(a, b):\n    while True: yield 3",
    "a number for a function": "add = 3",
    "a type for a function": "add = int",
    "has another name": "def plus(a, b): return a + b",
}


@pytest.mark.parametrize("name", FORGED)
def test_no_program_forges_an_assert(code: Code, name: str):
    verdict = judge(code, FORGED[name], ADD)
    assert verdict.score == 0.0, verdict


def test_functions_of_the_tests_give_nothing_but_their_results(code: Code):
    spy = (
        "def f(key):\n    names = ('__globals__', '__code__', '__closure__', '__self__', '__call__', 'func_globals')\n"
    )
    spy += (
        "    return [name for name in names if hasattr(key, name) and name != '__call__'] + [repr(type(key).__name__)]"
    )
    assert judge(code, spy, ["secret = 3\nassert f(lambda x: secret) == [repr('Remote')]"]).score == 1.0


def test_each_assert_is_a_case(code: Code):
    verdict = judge(code, "def add(a, b): return 3", [*ADD, "assert add(2, 2) == 4", "assert add(3, 0) == 3"])
    assert (verdict.score, verdict.status) == (0.5, "scored")
    assert verdict.detail.startswith("2 of 4 cases; case 1: 'assert abs(add(0.1, 0.2) - 0.3) < 1e-6': AssertionError")


def test_a_program_that_ends_fails_the_later_cases(code: Code):
    verdict = judge(code, "def add(a, b):\n    while a: pass\n    return b", ["assert add(0, 1) == 1", *ADD])
    assert (verdict.score, verdict.status) == (pytest.approx(1 / 3), "timeout")


def test_tests_that_fail_by_themselves_give_no_verdict(code: Code):
    for asserts in (
        ["1 / 0\nassert add(1, 2) == 3"],
        ["import os\nos._exit(0)\nadd(1, 2)"],
        ["assert len(3) + add(1, 2)"],
    ):
        with pytest.raises(BadTests):
            judge(code, "def add(a, b): return a + b", asserts)


@pytest.mark.parametrize(
    ("reference", "what"),
    [
        ({"asserts": []}, "asserts: List should have at least 1 item"),
        ({"asserts": ["assert f(1) == 2", ""]}, "asserts.1: is empty"),
        ({"asserts": ["assert f(1) =="]}, "asserts.0: is no Python: invalid syntax"),
        ({"asserts": ["assert f(1)"], "setup": "import"}, "setup: is no Python"),
        ({"asserts": ["assert 1 + 1 == 2"]}, "asserts: they use no name of the program"),
        ({"asserts": ["class A(B): pass\nassert A().f()"]}, "asserts: a class extends 'B' of the program"),
        ({"asserts": ["assert f(1)"], "cases_": 1}, "cases_: Extra inputs are not permitted"),
    ],
)
def test_asserts_that_no_program_can_meet_are_refused(code: Code, reference: dict, what: str):
    with pytest.raises(ValueError, match=what.replace(".", r"\.")):
        code.check(json.dumps(reference))
