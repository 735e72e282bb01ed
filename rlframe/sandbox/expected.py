"""`ProgramTests`: inputs and expected outputs of a program. Outputs are compared outside the sandbox."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rlframe.sandbox.comparison import as_json, equal, same_lines
from rlframe.sandbox.program import Outcome
from rlframe.sandbox.values import decode

QUOTED_CHARS = 200  # of an output, in a fault


class Case(BaseModel):
    """One test: input and expected output, of a program (stdin, stdout) or of a function."""

    model_config = ConfigDict(extra="forbid", strict=True)

    stdin: str | None = None
    stdout: str | None = None
    args: list[Any] = Field(default_factory=list)
    kwargs: dict[str, Any] = Field(default_factory=dict)
    returns: Any = None


class ProgramTests(BaseModel):
    """Tests as JSON. For a program: `{"cases": [{"stdin": "1 2\\n", "stdout": "3\\n"}]}`; for a function, or a method
    such as `Solution.add`: `{"function": "add", "cases": [{"args": [1, 2], "returns": 3}]}`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    function: str | None = None
    tolerance: float = Field(default=0.0, ge=0, allow_inf_nan=False)  # absolute, for returned floats
    cases: list[Case] = Field(min_length=1)

    @model_validator(mode="after")
    def _cases_fit(self) -> ProgramTests:
        allowed = {"args", "kwargs", "returns"} if self.function else {"stdin", "stdout"}
        required = {"returns"} if self.function else {"stdin", "stdout"}
        for index, case in enumerate(self.cases):
            if missing := sorted(required - case.model_fields_set):
                raise ValueError(f"cases.{index}.{missing[0]}: is missing")
            if unknown := sorted(case.model_fields_set - allowed):
                kind = "a function's" if self.function else "a program's"
                raise ValueError(f"cases.{index}.{unknown[0]}: is nothing of {kind} test case")
        return self

    @classmethod
    def parse(cls, text: str) -> ProgramTests:
        """Raises ValueError for bad JSON, and names the wrong case and field."""
        try:
            return cls.model_validate(json.loads(text))
        except json.JSONDecodeError as error:
            raise ValueError(f"its tests are no JSON: {error}") from error
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            path = ".".join(str(key) for key in first["loc"])
            message = str(first.get("ctx", {}).get("error", first["msg"]))  # without pydantic's prefix "Value error, "
            raise ValueError(f"{path}: {message}" if path else message) from error

    def inputs(self) -> list[Any]:
        """Inputs of a `Program`, one for each case."""
        if self.function is None:
            return [case.stdin for case in self.cases]
        return [{"args": case.args, "kwargs": case.kwargs} for case in self.cases]

    def fault(self, case: Case, outcome: Outcome) -> str | None:
        """The fault of a case's outcome; None for a passed case."""
        if outcome.status != "returned":
            return f"{outcome.status}: {outcome.detail[-QUOTED_CHARS:]}" if outcome.detail else outcome.status
        output = outcome.output.decode(errors="replace")
        quoted = output[:QUOTED_CHARS]
        if self.function is None:
            stdout = case.stdout or ""
            return None if same_lines(output, stdout) else f"printed {quoted!r}, not {stdout[:QUOTED_CHARS]!r}"
        try:
            value = as_json(decode(output))
        except (ValueError, RecursionError):
            return f"returned no JSON value: {quoted!r}"
        if equal(value, case.returns, self.tolerance):
            return None
        return f"returned {quoted}, not {case.returns!r:.{QUOTED_CHARS}}"
