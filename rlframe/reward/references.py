"""Tests in a prompt's reference: rlframe's own formats, and those of common data sets as they are.

| keys of the reference | format | read as |
|---|---|---|
| `cases` | rlframe's own, inputs and outputs | `CaseTests` |
| `asserts`, or a list of texts | rlframe's own, code | `AssertTests` |
| `test`, `entry_point`, `prompt` | HumanEval | `AssertTests` of the prompt's function |
| `test_list`, `test_setup_code` or `test_imports` | MBPP, full or sanitized | `AssertTests`, a case for each assert |
| `input_output`, or its `inputs` and `outputs` | APPS, TACO | `CaseTests` of a program, or of `fn_name` |
| `public_test_cases`, `private_test_cases`, `metadata` | LiveCodeBench | `CaseTests` of a program, or of `func_name` |

Several fields of a record become such an object by `reference_field: [test, entry_point, prompt]`.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias

from rlframe.reward.asserts import AssertTests
from rlframe.reward.cases import CaseTests, validated
from rlframe.reward.livecodebench import livecodebench
from rlframe.reward.syntax import tree_of

Tests: TypeAlias = CaseTests | AssertTests

TOLERANCE = 1e-6  # of floats: what the judges of competitions allow


@lru_cache(maxsize=4)  # the completions of a group share a reference, which may have megabytes
def read_tests(reference: str) -> Tests:
    """Raises ValueError for a reference that no program can meet; the message names case and field."""
    try:
        value = json.loads(reference, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its tests are no JSON: {error}") from error
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        value = {"asserts": value}
    if isinstance(value, dict):
        for key, read in READERS.items():
            if key in value and "cases" not in value:
                try:
                    return read(value)
                except (KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
                    raise ValueError(f"{key}: has no tests as the format has them: {error!r}") from error
    return validated(CaseTests, value)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")


def _asserts(value: dict[str, Any]) -> AssertTests:
    if isinstance(value["asserts"], str):
        value = {**value, "asserts": [value["asserts"]]}
    return validated(AssertTests, value)


def _humaneval(value: dict[str, Any]) -> AssertTests:
    """The tests may use the prompt's imports and helpers, but of the program the entry point alone."""
    prompt, entry_point = value.get("prompt", ""), value["entry_point"]
    tree = tree_of(prompt, "prompt")
    helpers = [node for node in tree.body if getattr(node, "name", None) != entry_point]
    case = f"{value['test']}\n\ncheck({entry_point})\n"
    setup = ast.unparse(ast.Module(helpers, []))
    return validated(AssertTests, {"asserts": [case], "setup": setup, "prefix": prompt})


def _mbpp(value: dict[str, Any]) -> AssertTests:
    setup = [value.get("test_setup_code") or "", *(value.get("test_imports") or [])]
    asserts = [*value["test_list"], *(value.get("challenge_test_list") or [])]
    return validated(AssertTests, {"asserts": asserts, "setup": "\n".join(setup)})


def _apps(value: dict[str, Any]) -> CaseTests:
    tests = value["input_output"]
    if isinstance(tests, str):
        try:
            tests = json.loads(tests, parse_constant=_no_constant)
        except ValueError as error:
            raise ValueError(f"input_output: is no JSON: {error}") from error
    return _apps_tests(tests)


def _apps_tests(tests: dict[str, Any]) -> CaseTests:
    inputs, outputs, function = tests["inputs"], tests["outputs"], tests.get("fn_name")
    if len(inputs) != len(outputs):
        raise ValueError(f"inputs: there are {len(inputs)} of them, and {len(outputs)} outputs")
    pairs = zip(inputs, outputs, strict=True)
    if function is None:
        cases = [{"stdin": _lines(stdin), "stdout": _lines(stdout)} for stdin, stdout in pairs]
        return validated(CaseTests, {"stdout": "tokens", "tolerance": TOLERANCE, "cases": cases})
    cases = [
        {"args": [_with_int_keys(item) for item in _parsed(args)], "returns": _parsed(returns)}
        for args, returns in pairs
    ]
    wrapped = all(isinstance(case["returns"], list) and len(case["returns"]) == 1 for case in cases)
    comparison = {"numbers": "equal", "tolerance": TOLERANCE, "wrapped": wrapped}
    return validated(CaseTests, {"function": function, **comparison, "cases": cases})


def _lines(text: Any) -> str:
    """Input or output of a program; some records hold a list of lines."""
    if isinstance(text, list):
        return "\n".join(map(_lines, text))
    return text if isinstance(text, str) else json.dumps(text)


def _parsed(value: Any) -> Any:
    """Arguments or a result; some records hold them as JSON in a text, a line for each argument."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, parse_constant=_no_constant)
    except ValueError:
        return value


def _with_int_keys(value: Any) -> Any:
    """A dict whose keys are all whole numbers, with numbers as keys: JSON made texts of these numbers."""
    if isinstance(value, dict) and value and all(key.lstrip("-").isdecimal() for key in value):
        return {int(key): item for key, item in value.items()}
    return value


READERS: dict[str, Callable[[dict[str, Any]], Tests]] = {
    "asserts": _asserts,
    "test_list": _mbpp,
    "entry_point": _humaneval,
    "input_output": _apps,
    "inputs": _apps_tests,
    "public_test_cases": livecodebench,
    "private_test_cases": livecodebench,
}
