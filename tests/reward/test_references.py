"""Formats of data sets, read as they are: a right program scores 1, a wrong one 0."""

import base64
import json
import pickle
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from rlframe.reward.code import Code
from rlframe.reward.livecodebench import unpacked
from rlframe.reward.references import read_tests
from tests.reward.code_verdicts import judge, started

HUMANEVAL = {
    "prompt": (
        "import math\nfrom typing import List\n\n\ndef scale(xs: List[float]) -> List[float]:\n"
        "    return [x * 2 for x in xs]\n\n\n"
        'def total(xs: List[float]) -> float:\n    """ Sum of scaled numbers.\n    >>> total([1.0])\n    2.0\n    """\n'
    ),
    "entry_point": "total",
    "test": (
        "\n\nMETADATA = {'author': 'x'}\n\n\ndef check(candidate):\n"
        "    assert math.fabs(candidate([1.0, 2.0]) - 6.0) < 1e-6\n"
        "    assert candidate(scale([1.0])) == 4.0\n"
    ),
}
MBPP = {
    "test_list": ["assert first_two((1, 2, 3)) == (1, 2)", "assert first_two((4, 5)) == (4, 5)"],
    "test_setup_code": "",
}
SANITIZED = {
    "test_list": ["assert math.isclose(third(1), 1 / 3)", "assert third(0) == 0"],
    "test_imports": ["import math"],
}
NODE = {"test_setup_code": "root = Node(1)\nroot.left = Node(2)", "test_list": ["assert depth(root) == 2"]}
APPS = {"inputs": ["1 2\n", "0.5 0.25\n"], "outputs": ["3\n", "0.75\n"]}
APPS_LINES = {"inputs": [["1", "2"]], "outputs": [["1", "2"]]}
APPS_FUNCTION = {"fn_name": "double", "inputs": [[[1, 2]], [[]]], "outputs": [[[2, 4]], [[]]]}
BARE_FUNCTION = {"fn_name": "count", "inputs": [[{"1": 2}], [{}]], "outputs": [1, 0]}
STDIN_TEST = [{"input": "1 2\n", "output": "3", "testtype": "stdin"}]
FUNCTIONAL = [{"input": "[1, 2]\n3", "output": "[4, 5]", "testtype": "functional"}]


def packed(tests: Any) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


def lcb(public: Any, private: Any, function: str | None) -> dict[str, str]:
    metadata = {"func_name": function} if function else {}
    return {"public_test_cases": json.dumps(public), "private_test_cases": private, "metadata": json.dumps(metadata)}


ADD = "print(sum(map(float, input().split())))"
SOLUTION = "class Solution:\n    def shifted(self, xs, by): return [x + by for x in xs]"
# reference, right programs, wrong programs
FORMATS = {
    "HumanEval": (
        HUMANEVAL,
        [
            "def total(xs: List[float]) -> float:\n    return sum(scale(xs))",
            "from __future__ import annotations\ndef total(xs): return math.fsum(scale(xs))",
            "return sum(scale(xs))",
            "total = lambda xs: 2 * sum(xs)",
        ],
        [
            "def total(xs): return sum(xs)",
            "def scale(xs): return [3]\ndef total(xs): return 4.0",
            "pass",
            "math.fabs = lambda x: 0\ndef total(xs): return 4.0",
            "def check(candidate): pass\ndef total(xs): return 0",
        ],
    ),
    "MBPP": (MBPP, ["def first_two(t): return t[:2]"], ["def first_two(t): return list(t[:2])"]),
    "sanitized MBPP": (
        SANITIZED,
        ["def third(x): return x / 3"],
        ["def third(x): return x // 3", "math = None\ndef third(x): return 0"],
    ),
    "MBPP with a class": (
        NODE,
        [
            "class Node:\n    left = None\n    def __init__(self, v): pass\n"
            "def depth(n): return 1 + depth(n.left) if n else 0"
        ],
        ["class Node:\n    def __init__(self, v): pass\ndef depth(n): return 1"],
    ),
    "a list of asserts": (MBPP["test_list"], ["def first_two(t): return t[:2]"], ["def first_two(t): return t"]),
    "APPS": (APPS, [ADD, "print('%.4f' % sum(map(float, input().split())))"], ["print(3)"]),
    "APPS in a field": ({"input_output": json.dumps(APPS)}, [ADD], ["print(3)"]),
    "lists of lines": (APPS_LINES, ["print(input(), input())"], ["print(input())"]),
    "APPS' functions": (
        APPS_FUNCTION,
        [
            "def double(xs): return [2 * x for x in xs]",
            "class Solution:\n    def double(self, xs): return [2 * x for x in xs]",
        ],
        ["def double(xs): return xs", "def double(xs): return [2, 4]"],
    ),
    "TACO's bare outputs": (
        BARE_FUNCTION,
        ["def count(d): return sum(type(key) is int for key in d)"],
        ["def count(d): return [1]"],
    ),
    "LiveCodeBench": (
        lcb(STDIN_TEST, packed([{"input": "5 5", "output": "10", "testtype": "stdin"}]), None),
        [ADD],
        ["print(3)"],
    ),
    "LiveCodeBench's functions": (
        lcb(FUNCTIONAL, packed(FUNCTIONAL), "shifted"),
        [SOLUTION],
        [SOLUTION.replace("+", "-")],
    ),
    "plain private tests": (lcb([], json.dumps(STDIN_TEST), None), [ADD], ["print(4)"]),
}


@pytest.fixture(scope="module")
def code() -> Iterator[Code]:
    reward = started()
    yield reward
    reward.close()


@pytest.mark.parametrize("name", FORMATS)
def test_a_data_sets_format_is_read_as_it_is(code: Code, name: str):
    reference, right, wrong = FORMATS[name]
    code.check(json.dumps(reference))
    for program in right:
        verdict = judge(code, program, reference)
        assert verdict.score == 1.0, (program, verdict)
    for program in wrong:
        verdict = judge(code, program, reference)
        assert verdict.score == 0.0, (program, verdict)


def test_the_helpers_of_a_prompt_are_the_tests_own():
    tests = read_tests(json.dumps(HUMANEVAL))
    assert tests.names == ["total"]
    assert "def scale" in tests.setup and "def total" not in tests.setup


class Evil:
    def __reduce__(self) -> Any:
        return (eval, ("1 + 1",))


@pytest.mark.parametrize(
    ("field", "what"),
    [
        (base64.b64encode(zlib.compress(pickle.dumps(Evil()))).decode(), "the pickle names builtins.eval"),
        (base64.b64encode(zlib.compress(pickle.dumps([1]))).decode(), "are neither JSON nor packed"),
        ("%%%", "are neither JSON nor packed"), (base64.b64encode(b"abc").decode(), "incorrect header check"),
        (base64.b64encode(zlib.compress(bytes(300 << 20), 1)).decode(), "more than 256 MiB"),
    ],
    ids=["a function", "a list", "no base64", "no zlib", "a bomb"],
)  # fmt: skip
def test_private_tests_are_unpacked_without_running_anything(field: str, what: str):
    with pytest.raises(ValueError, match=what):
        unpacked(field)


@pytest.mark.parametrize(
    ("reference", "what"),
    [
        ({"inputs": ["1"], "outputs": []}, "inputs: there are 1 of them, and 0 outputs"),
        ({"inputs": [], "outputs": []}, "cases: List should have at least 1 item"),
        ({"input_output": ""}, "input_output: is no JSON"), ({"inputs": ["1"]}, "inputs: has no tests as the format"),
        ({"inputs": [[1]], "outputs": [1], "fn_name": "a b"}, "function: 'a b' is no name"),
        ({"test_list": []}, "asserts: List should have at least 1 item"), ({"test_list": 3}, "test_list: has no tests"),
        ({"entry_point": "f", "prompt": "def f(x):\n"}, "prompt: is no Python"),
        ({"entry_point": "f", "prompt": "def f(x):\n    '''d'''"}, "entry_point: has no tests"),
        (lcb(FUNCTIONAL, "", None), "metadata: names no func_name"), (lcb([], "", None), "at least 1 item"),
        ({"name": "x"}, "cases: Field required"),
    ],
)  # fmt: skip
def test_a_record_without_usable_tests_is_refused(code: Code, reference: Any, what: str):
    with pytest.raises(ValueError, match=what):
        code.check(json.dumps(reference))
