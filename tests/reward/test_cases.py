"""Inputs and expected outputs: values as Python has them, tolerances, checkers, and references that nobody can meet."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from rlframe.reward.cases import method_in
from rlframe.reward.code import Code
from tests.reward.code_verdicts import judge, started


@pytest.fixture(scope="module")
def code() -> Iterator[Code]:
    reward = started()
    yield reward
    reward.close()


def returns(expected: Any, **settings: Any) -> dict[str, Any]:
    return {"function": "f", "cases": [{"returns": expected}], **settings}


def returning(expression: str) -> str:
    return (
        f"from collections import *\nfrom fractions import Fraction\nfrom math import *\ndef f(): return {expression}"
    )


@pytest.mark.parametrize(
    ("expression", "tests", "score"),
    [
        # JSON: a tuple may be returned for a list, and keys of dicts are texts
        ("(1, 2)", returns([1, 2]), 1), ("{1: (2,)}", returns({"1": [2]}), 1), ("{True: 1}", returns({"true": 1}), 1),
        ("240.0", returns(240), 0), ("True", returns(1), 0), ("{1}", returns([1]), 0),
        ("{(1, 2): 3}", returns({"a": 3}), 0),
        ("240.0", returns(240, numbers="equal"), 1), ("True", returns(1, numbers="equal"), 1),
        ("[1, [2.0]]", returns([1.0, [2]], numbers="equal"), 1), ("'1'", returns(1, numbers="equal"), 0),
        ("Fraction(1, 2)", returns(0.5, numbers="equal"), 0), ("inf", returns(1), 0), ("nan", returns(1), 0),
        # Python's literals: types of containers count
        ("(1, 2)", returns("(1, 2)", values="python"), 1), ("[1, 2]", returns("(1, 2)", values="python"), 0),
        ("((1, [2]),)", returns("((1, [2]),)", values="python"), 1),
        ("{1: 'a'}", returns("{1: 'a'}", values="python"), 1),
        ("{'1': 'a'}", returns("{1: 'a'}", values="python"), 0), ("{2, 1}", returns("{1, 2}", values="python"), 1),
        ("frozenset({1})", returns("{1}", values="python"), 0), ("b'a'", returns("b'a'", values="python"), 1),
        ("frozenset({1})", returns("{1}", values="python", numbers="equal"), 1),
        ("1j", returns("1j", values="python"), 1),
        ("Counter('aab')", returns("{'a': 2, 'b': 1}", values="python"), 1),
        ("set()", returns("set()", values="python"), 1),
        ("(1.0, {2.0: 3})", returns("(1, {2: 3.0})", values="python", numbers="equal"), 1),
        ("(1.0, {2.0: 3})", returns("(1, {2: 3.0})", values="python"), 0),
        ("Fraction(1, 2)", returns("0.5", values="python", numbers="equal"), 1),
        ("2**20000 + 1", returns(hex(2**20000 + 1), values="python"), 1),
        # Tolerance: absolute up to 1, relative beyond
        ("0.1 + 0.2", returns(0.3), 0), ("0.1 + 0.2", returns(0.3, tolerance=1e-9), 1),
        ("[{'a': 0.5009}]", returns([{"a": 0.5}], tolerance=1e-3), 1), ("0.5011", returns(0.5, tolerance=1e-3), 0),
        ("1000.9", returns(1000.0, tolerance=1e-3), 1), ("1001.1", returns(1000.0, tolerance=1e-3), 0),
        ("1001", returns(1000, tolerance=0.1), 0), ("nan", returns(0.5, tolerance=0.1), 0),
        ("inf", returns(0.5, tolerance=0.1), 0),
        ("3", returns(3.0001, numbers="equal", tolerance=1e-3), 1),
        ("10**400", returns(0.5, numbers="equal", tolerance=0.1), 0),
        ("{0.1 + 0.2}", returns("{0.3}", values="python", tolerance=1e-9), 1),
    ],
)  # fmt: skip
def test_values_are_compared_as_the_reference_says(code: Code, expression: str, tests: dict, score: int):
    verdict = judge(code, returning(expression), tests)
    assert verdict.score == score, verdict


def test_arguments_are_pythons_literals(code: Code):
    source = "def f(a, b, *, c=0): return type(a), a[0], b[3], c\n".replace("type(a)", "type(a).__name__")
    case = {"args": "((1, 2), {3: 'a'})", "kwargs": "{'c': {4}}", "returns": "('tuple', 1, 'a', {4})"}
    assert judge(code, source, {"function": "f", "values": "python", "cases": [case]}).score == 1.0


@pytest.mark.parametrize(
    ("printed", "stdout", "settings", "score"),
    [
        ("1 2\\n3 \\n", "1 2\n3", {}, 1), ("1  2", "1 2", {}, 0), ("1\\n2", "1 2", {}, 0),
        ("1\\r\\n2", "1\n2\n", {}, 1),
        ("1\\n\\n 2", "1 2\n", {"stdout": "tokens"}, 1), ("12", "1 2", {"stdout": "tokens"}, 0),
        ("1 2 3", "1 2", {"stdout": "tokens"}, 0), ("0.3333", "0.33333333", {"tolerance": 1e-3}, 1),
        ("0.35", "0.33333333", {"tolerance": 1e-3}, 0), ("(1.0001, x2)", "(1.0, x2)", {"tolerance": 1e-3}, 1),
        ("x 1.0", "y 1.0", {"tolerance": 1e-3}, 0), ("1000001", "1000000", {"tolerance": 1e-3}, 0),
        ("1e0", "1", {"tolerance": 1e-6}, 1), ("nan", "1.0", {"tolerance": 1e-3}, 0),
        ("inf", "1.0", {"tolerance": 1e-3}, 0),
        ("1.0\\n2", "1.0 2", {"tolerance": 1e-3}, 0), ("1.0\\n2", "1.0 2", {"tolerance": 1e-3, "stdout": "tokens"}, 1),
        ("1e999999999", "1.0", {"tolerance": 1e-3}, 0), ("9" * 500 + ".0", "1.0", {"tolerance": 1e-3}, 0),
    ],
)  # fmt: skip
def test_printed_texts_are_compared_as_the_reference_says(code, printed: str, stdout: str, settings: dict, score: int):
    verdict = judge(code, f"print('{printed}', end='')", {"cases": [{"stdin": "", "stdout": stdout}], **settings})
    assert verdict.score == score, verdict


ROOT = "def check(input, output, expected):\n    x = float(output)\n    return abs(x * x - float(input)) < 1e-6"
DIVISOR = "def check(input, output, expected):\n    return 1 < output < input[0] and input[0] % output == 0"


def test_a_checker_decides_in_place_of_the_comparison(code: Code):
    roots = {"cases": [{"stdin": "4"}, {"stdin": "2", "stdout": "1.414"}], "checker": ROOT}
    assert judge(code, "print(float(input()) ** 0.5)", roots).score == 1.0
    assert judge(code, "print(-(float(input()) ** 0.5))", roots).score == 1.0
    assert judge(code, "print(1.414)", roots).detail == "0 of 2 cases; case 0: the checker says: False"
    assert "ValueError: could not convert" in judge(code, "print('root')", roots).detail
    divisors = {"function": "f", "cases": [{"args": [12], "returns": None}, {"args": [35]}], "checker": DIVISOR}
    assert judge(code, "def f(n): return next(d for d in range(2, n) if n % d == 0)", divisors).score == 1.0
    assert judge(code, "def f(n): return 2", divisors).detail.startswith("1 of 2 cases")


FORGED_OUTPUTS = {
    "an object": (
        "class E:\n    def __eq__(self, o): return True\n    __lt__ = __gt__ = __mod__ = __rmod__ = __eq__\n"
        "def f(n): return E()"
    ),
    "a number with methods of its own": "class E(int):\n    def __lt__(self, o): return True\ndef f(n): return E(7)",
    "a text": "def f(n): return 'True'",
    "a verdict": "import os\ndef f(n):\n    os.write(3, b'[true, \"\"]\\n')\n    return True",
    "an object of the exchange": "import os\ndef f(n):\n    os.write(3, b'{\"$builtin\": \"int\"}\\n'); os._exit(0)",
    "nothing": "def f(n): pass",
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED_OUTPUTS)
def test_no_output_forges_a_checkers_verdict(code: Code, name: str):
    verdict = judge(code, FORGED_OUTPUTS[name], {"function": "f", "cases": [{"args": [12]}], "checker": DIVISOR})
    assert verdict.score == 0.0, verdict


def test_an_output_on_which_the_checker_never_ends_is_wrong(code: Code):
    checker = "def check(input, output, expected):\n    while output == 'a\\n': pass\n    return output == 'b\\n'"
    tests = {"cases": [{"stdin": "a"}, {"stdin": "b"}], "checker": checker}
    verdict = judge(code, "print(input())", tests)
    assert (verdict.score, verdict.status) == (0.0, "timeout")
    assert verdict.detail.startswith("1 of 2 cases; case 0: the checker ended on this output: timeout")


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("def f(): ...", "f"), ("class Solution:\n    def f(self): ...", "Solution.f"), ("x = 1", "f"), ("def f(", "f"),
        ("class Solution:\n    def f(self): ...\nf = Solution().f", "Solution.f"),
        ("class A:\n    def g(self): ...\ndef f(): ...", "f"),
    ],
)  # fmt: skip
def test_a_function_may_be_a_method_of_a_class(source: str, path: str):
    assert method_in(source, "f") == path


F = {"function": "f", "cases": [{"args": [1], "returns": 2}]}


@pytest.mark.parametrize(
    ("reference", "what"),
    [
        ('{"function": "f", "cases": [{"returns": NaN}]}', "NaN is no number in JSON"),
        ('{"function": "f", "cases": [{"returns": -Infinity}]}', "-Infinity is no number in JSON"),
        ('{"function": "f", "cases": [{"returns": [1e999]}]}', "cases.0.returns: no program can return it"),
        ({**F, "function": "f(x)"}, r"function: 'f\(x\)' is no name of a function"),
        ({**F, "function": "Solution."}, "function: 'Solution.' is no name"),
        ({**F, "function": "class"}, "function: 'class' is no name"),
        ({**F, "function": ""}, "function: '' is no name"),
        ({**F, "tolerance": -1e-9}, "tolerance: Input should be greater"),
        ({**F, "tolerance": 1.0}, "tolerance: Input should be less than 1"),
        ({**F, "stdout": "tokens"}, "stdout: has no effect: these are tests of a function"),
        ({"cases": [{"stdin": "", "stdout": ""}], "numbers": "equal"}, "numbers: has no effect"),
        ({**F, "numbers": "same"}, "numbers: Input should be 'exact' or 'equal'"),
        ({**F, "values": "python"}, "cases.0.args: is no text of a Python literal"),
        (returns("{1: }", values="python"), "cases.0.returns: '{1: }' is no Python literal"),
        (returns("add(1)", values="python"), "is no Python literal"),
        (returns("[" * 1000, values="python"), "is no Python literal"),
        ({"cases": [{"stdin": "", "stdout": "x" * 10_001}]}, "cases.0.stdout: has 10001 bytes.* output_bytes=10000"),
        (returns("x" * 10_001), "cases.0.returns: has 10003 bytes"),
        ('{"cases": [{"stdin": "", "stdout": "\\ud800"}]}', "cases.0.stdout: no program can print it"),
        (returns([[]] * 250_000), "cases.0.returns: no program can return it: it has more than"),
        ({**F, "imports": ["os"]}, "imports: 'os' is none of typing"),
        ({**F, "checker": "def verify(a, b, c): pass"}, "checker: defines no function check"),
        ({**F, "checker": "def check(a, b, c)"}, "checker: is no Python"),
        ({**F, "checker": DIVISOR, "tolerance": 0.1}, "tolerance: has no effect: a checker decides"),
    ],
)
def test_a_reference_that_no_program_can_meet_is_refused(code: Code, reference: Any, what: str):
    with pytest.raises(ValueError, match=what):
        code.check(reference if isinstance(reference, str) else json.dumps(reference))


def test_a_method_is_called_on_a_new_object_each_time(code: Code):
    counts = "class Solution:\n    def __init__(self): self.n = 0\n    def f(self): self.n += 1; return self.n\n"
    tests = {"function": "Solution.f", "cases": [{"args": [], "returns": 1}] * 3}
    assert judge(code, counts, tests).score == 1.0
    assert judge(code, counts, {**tests, "function": "f"}).score == 1.0
