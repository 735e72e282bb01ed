"""Objects of a program that claim to be equal, smaller or zero, in the asserts of another sandbox."""

from collections.abc import Iterator

import pytest

from rlframe.reward.code import Code
from tests.reward.code_verdicts import judge, started


@pytest.fixture(scope="module")
def code() -> Iterator[Code]:
    reward = started(partial=True)
    yield reward
    reward.close()


OPERATORS = [f"__{name}__" for name in ("add", "radd", "sub", "rsub", "mul", "rmul", "pow", "neg", "abs", "mod", "and")]
CLAIM = (
    "class E:\n    x = y = 0\n    def __init__(self, *args): {init}\n    def __eq__(self, other): return {equal}\n"
    "    def __hash__(self): return 1\n    __lt__ = __le__ = __gt__ = __ge__ = lambda self, other: True\n"
    "    def __float__(self): return 0.0\n    __int__ = __index__ = lambda self: 0\n"
    f"for name in {OPERATORS}: setattr(E, name, lambda self, *other: {{result}})\nVec = E\ndef f(*args): return E()\n"
)
CLAIMS = {
    "always": CLAIM.format(init="self.args = args", equal="True", result="self"),
    "always of a class": CLAIM.format(init="self.args = args", equal="isinstance(other, E)", result="self"),
    "zero": CLAIM.format(init="self.args = args", equal="True", result="0"),
    "true": CLAIM.format(init="self.args = args", equal="1", result="True"),
}


@pytest.mark.parametrize("name", CLAIMS)
@pytest.mark.parametrize(
    "case",
    [
        "assert f(1) == 5", "assert 5 == f(1)", "assert f(1) == 'a'", "assert f(1) == None", "assert f(1) == [1]",
        "assert not f(1) != 5", "assert f(1) in [5, 'a']", "assert f(1) in {1: 2}", "assert f(1) < 5",
        "assert 5 >= f(1)", "assert abs(f(1) - 0.3) < 1e-6", "assert abs(0.3 - f(1)) < 1e-6",
        "assert f(1) - 5 == 0", "assert -f(1) == 0", "assert abs(f(1)) == 0", "assert round(f(1), 2) == 0",
        "assert sum([f(1), 2]) == 0", "assert math.isclose(f(1), 0)", "assert [f(1)] == [0]", "assert f(1) ** 2 == 0",
        "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertAlmostEqual(f(1), 5)",
        "assert Vec(1, 2) + Vec(3, 4) == Vec(4, 6)", "assert not Vec(1, 2) != Vec(1, 3)", "assert f(1) == Vec(1, 2)",
    ],
)  # fmt: skip
def test_no_object_claims_to_be_the_expected_one(code: Code, name: str, case: str):
    assert judge(code, CLAIMS[name], [case]).score == 0.0
