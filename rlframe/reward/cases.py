"""`CaseTests`: inputs of a program and its expected outputs, which never enter the program's sandbox."""

from __future__ import annotations

import ast
import keyword
from collections.abc import Iterator
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rlframe.reward.checker import Checker, check_of
from rlframe.reward.comparison import Numbers, Stdout, as_json, equal, same_text
from rlframe.reward.fault import QUOTED_CHARS, Fault
from rlframe.reward.solution import Needs
from rlframe.reward.syntax import parsed
from rlframe.sandbox import Outcome, Program, Sandbox
from rlframe.sandbox.values import decode, encode

MAX_LITERAL_CHARS = 1_000_000
T = TypeVar("T", bound=BaseModel)


class Case(BaseModel):
    """One test: input and expected output, of a program (stdin, stdout) or of a function."""

    model_config = ConfigDict(extra="forbid", strict=True)

    stdin: str | None = None
    stdout: str | None = None
    args: list[Any] = Field(default_factory=list)
    kwargs: dict[str, Any] = Field(default_factory=dict)
    returns: Any = None


class CaseTests(BaseModel):
    """Tests as JSON. For a program: `{"cases": [{"stdin": "1 2\\n", "stdout": "3\\n"}]}`; for a function, or a method
    such as `Solution.add`: `{"function": "add", "cases": [{"args": [1, 2], "returns": 3}]}`.

    | key | meaning |
    |---|---|
    | `values: python` | `args`, `kwargs`, `returns` are texts of literals, such as "((1, 2), {3})", whose types count |
    | `values: json` | the default: a tuple may be returned for a list, and all keys of dicts are texts |
    | `numbers: equal` | numbers as Python's `==`: 240.0 is 240. The default is `exact`: their types count too |
    | `tolerance: 1e-6` | floats may differ by that much, beyond 1 by that share; of printed numbers too |
    | `stdout: tokens` | all white space is alike. The default is `lines`: white space counts, except at line ends |
    | `checker` | Python code with `def check(input, output, expected)`, which decides in place of a comparison |
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    function: str | None = None
    values: Literal["json", "python"] = "json"
    numbers: Numbers = "exact"
    tolerance: float = Field(default=0.0, ge=0, lt=1, allow_inf_nan=False)  # 1 would accept 0 for every number
    stdout: Stdout = "lines"
    checker: str | None = None
    wrapped: bool = False  # `returns` is a list that may hold the value in place of being the value, as in APPS
    cases: list[Case] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _literals_are_values(cls, tests: Any) -> Any:
        if not isinstance(tests, dict) or tests.get("values") != "python" or not isinstance(tests.get("cases"), list):
            return tests
        return {**tests, "cases": [_with_values(case, f"cases.{index}") for index, case in enumerate(tests["cases"])]}

    @model_validator(mode="after")
    def _cases_fit(self) -> CaseTests:
        is_function = self.function is not None
        allowed = {"args", "kwargs", "returns"} if is_function else {"stdin", "stdout"}
        required = {"returns"} if is_function else {"stdin", "stdout"}
        for index, case in enumerate(self.cases):
            missing = sorted(required - case.model_fields_set - ({"returns", "stdout"} if self.checker else set()))
            if missing:
                raise ValueError(f"cases.{index}.{missing[0]}: is missing")
            if unknown := sorted(case.model_fields_set - allowed):
                kind = "a function's" if is_function else "a program's"
                raise ValueError(f"cases.{index}.{unknown[0]}: is nothing of {kind} test case")
        return self

    @model_validator(mode="after")
    def _settings_fit(self) -> CaseTests:
        unused = {"stdout"} if self.function is not None else {"values", "numbers"}
        unused |= {"tolerance", "numbers", "stdout"} if self.checker else set()
        if unused := sorted(unused & self.model_fields_set):
            kind = "a checker decides" if self.checker else "these are tests of a function" if self.function else ""
            raise ValueError(f"{unused[0]}: has no effect: {kind or 'these are tests of a program, not of a function'}")
        if self.function is not None:
            for part in self.function.split("."):
                if not part.isidentifier() or keyword.iskeyword(part):
                    raise ValueError(f"function: {self.function!r} is no name of a function, nor a path of names")
        if self.checker is not None:
            check_of(self.checker)
        return self

    @model_validator(mode="after")
    def _expected_outputs_exist(self) -> CaseTests:
        for index, case in enumerate(self.cases):
            try:
                if self.values == "json":
                    as_json(case.returns)
                encode(case.returns)
            except (ValueError, TypeError, RecursionError) as error:
                raise ValueError(f"cases.{index}.returns: no program can return it: {error}") from error
            try:
                (case.stdout or "").encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"cases.{index}.stdout: no program can print it: {error}") from error
        return self

    def check_output(self, max_bytes: int) -> None:
        """Raises ValueError for an expected output that is longer than a program's output may be."""
        for index, case in enumerate(self.cases):
            field = "returns" if self.function else "stdout"
            size = len(encode(case.returns)) if self.function else len((case.stdout or "").rstrip().encode())
            if size > max_bytes:
                raise ValueError(
                    f"cases.{index}.{field}: has {size} bytes, and a program may write output_bytes={max_bytes}"
                )

    def needs(self) -> Needs:
        if self.function is None:
            return []
        first, _, method = self.function.partition(".")
        return [{first} if method else {first, "Solution"}]

    def faults(self, source: str, sandbox: Sandbox, checker_sandbox: Sandbox) -> Iterator[Fault | None]:
        """The fault of each case; None for a passed one. Raises SandboxFailed, SandboxUnavailable."""
        function = self.function and method_in(source, self.function)
        program = Program(source=source, function=function, inputs=self.inputs())
        checker = Checker(self.checker, checker_sandbox) if self.checker else None
        try:
            for case, outcome in zip(self.cases, sandbox.run(program), strict=True):
                yield self._fault(case, outcome, checker)
        finally:
            if checker:
                checker.close()

    def inputs(self) -> list[Any]:
        """Inputs of a `Program`, one for each case."""
        if self.function is None:
            return [case.stdin or "" for case in self.cases]
        return [{"args": case.args, "kwargs": case.kwargs} for case in self.cases]

    def _fault(self, case: Case, outcome: Outcome, checker: Checker | None) -> Fault | None:
        if outcome.status != "returned":
            return Fault.of(outcome)
        quoted = outcome.output[: 4 * QUOTED_CHARS].decode(errors="replace")[:QUOTED_CHARS]
        if self.function is None:
            text = outcome.output.decode(errors="replace")
            if checker:
                return checker.fault(case.stdin or "", text, case.stdout)
            stdout = case.stdout or ""
            is_right = same_text(text, stdout, self.stdout, self.tolerance)
            return None if is_right else Fault(f"printed {quoted!r}, not {stdout[:QUOTED_CHARS]!r}")
        try:
            value = decode(outcome.output)
            if checker:
                inputs = {"args": case.args, "kwargs": case.kwargs} if case.kwargs else case.args
                return checker.fault(inputs, value, case.returns)
            value = as_json(value) if self.values == "json" else value
            is_right = any(equal(value, expected, self.tolerance, self.numbers) for expected in self._expected(case))
        except (ValueError, RecursionError) as error:
            return Fault(f"returned no value that can be compared: {quoted!r} ({error})")
        return None if is_right else Fault(f"returned {quoted}, not {case.returns!r:.{QUOTED_CHARS}}")

    def _expected(self, case: Case) -> list[Any]:
        is_wrapped = self.wrapped and isinstance(case.returns, list) and len(case.returns) == 1
        return [case.returns, case.returns[0]] if is_wrapped else [case.returns]


def method_in(source: str, function: str) -> str:
    """The function's path in a program that defines it as a method, as solutions of LeetCode do.

    >>> method_in("class Solution:\\n    def add(self, a, b): return a + b", "add"), method_in("def add(): ...", "add")
    ('Solution.add', 'add')
    """
    tree = parsed(source) if "." not in function else None
    statements = tree.body if tree else []
    if function in {getattr(statement, "name", None) for statement in statements}:
        return function
    classes = [statement for statement in statements if isinstance(statement, ast.ClassDef)]
    names = [
        kind.name
        for kind in classes
        if any(isinstance(item, ast.FunctionDef) and item.name == function for item in kind.body)
    ]
    return f"{names[-1]}.{function}" if names else function


def validated(kind: type[T], value: Any) -> T:
    """The tests in a JSON value. Raises ValueError that starts with the path of what is wrong."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(str(key) for key in first["loc"])
        message = str(first.get("ctx", {}).get("error", first["msg"]))  # without pydantic's prefix "Value error, "
        raise ValueError(f"{path}: {message}" if path else message) from error


def _with_values(case: Any, place: str) -> Any:
    """The case with values in place of literals. Raises ValueError that starts with the literal's place."""
    if not isinstance(case, dict):
        return case
    values = dict(case)
    for field in ("args", "kwargs", "returns"):
        if field not in case:
            continue
        if not isinstance(case[field], str) or len(case[field]) > MAX_LITERAL_CHARS:
            raise ValueError(f"{place}.{field}: is no text of a Python literal, as values=python says")
        try:
            values[field] = ast.literal_eval(case[field].strip())
        except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
            raise ValueError(
                f"{place}.{field}: {case[field][:QUOTED_CHARS]!r} is no Python literal: {error}"
            ) from error
    if isinstance(values.get("args"), tuple):
        values["args"] = list(values["args"])
    return values
