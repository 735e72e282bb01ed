"""Code: does the completion's program pass its tests?"""

from __future__ import annotations

import json
import re
import time
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from rlframe.reward.base import Reward
from rlframe.sandbox import Isolation, Limits, Outcome, Program, Sandbox
from rlframe.sandbox.levels import ISOLATIONS
from rlframe.types import Completion, Prompt, Verdict

FENCE = re.compile(r"```[ \t]*(?:(?:python3?|py)[ \t]*)?\r?\n(.*?)```", re.DOTALL | re.IGNORECASE)
SHOWN = 200  # characters of an output that a verdict quotes


class Case(BaseModel):
    """One test: what goes in, and what must come out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    stdin: str | None = None
    stdout: str | None = None
    args: list[Any] = Field(default_factory=list)
    kwargs: dict[str, Any] = Field(default_factory=dict)
    returns: Any = None


class Tests(BaseModel):
    """A prompt's reference, as JSON: `{"cases": [{"stdin": "1 2\\n", "stdout": "3\\n"}]}` for a program, or
    `{"function": "add", "cases": [{"args": [1, 2], "returns": 3}]}` for a function or a method `Solution.add`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    function: str | None = None
    tolerance: float = Field(default=0.0, ge=0, allow_inf_nan=False)  # absolute, for floats that are returned
    cases: list[Case] = Field(min_length=1)

    @model_validator(mode="after")
    def _cases_fit(self) -> Tests:
        asked = {"args", "kwargs", "returns"} if self.function else {"stdin", "stdout"}
        needed = {"returns"} if self.function else {"stdin", "stdout"}
        for place, case in enumerate(self.cases):
            if missing := sorted(needed - case.model_fields_set):
                raise ValueError(f"cases.{place}.{missing[0]}: is missing")
            if beside := sorted(case.model_fields_set - asked):
                kind = "a function's" if self.function else "a program's"
                raise ValueError(f"cases.{place}.{beside[0]}: is nothing of {kind} test case")
        return self


class Code(Reward):
    """1 where the completion's Python program passes every test, else 0: R1's accuracy reward on code.

    The program is the last fenced block inside `<answer>…</answer>`, or of the whole text. It runs in a sandbox, where
    nothing is known of what is expected: outputs are compared here, as text line by line without trailing white space,
    or as JSON values of exactly the expected types. A program that loops, crashes or prints too much is wrong.
    """

    name: Literal["code"]  # pyright: ignore[reportIncompatibleVariableOverride] (frozen, so narrowing is sound)
    partial: bool  # the share of cases passed, instead of all or nothing
    min_isolation: Isolation
    case_s: float = Field(gt=0)
    program_s: float = Field(gt=0)
    memory_mib: int = Field(ge=64)
    output_bytes: int = Field(ge=1)
    max_chars: int = Field(ge=1)  # of a program

    _sandbox: Sandbox | None = PrivateAttr(default=None)

    def check(self, reference: str) -> None:
        """Raises ValueError naming the test case and the field that will not do."""
        parse(reference)

    def start(self) -> None:
        """Raises SandboxUnavailable where the machine gives less than `min_isolation`."""
        self._started().start()

    def close(self) -> None:
        if self._sandbox is not None:
            self._sandbox.close()

    def facts(self) -> dict[str, float]:
        """`isolation`: 1 landlock, 2 bubblewrap."""
        level = self._started().level
        return {"isolation": float(ISOLATIONS.index(level) + 1)} if level else {}

    def __call__(self, prompt: Prompt, completion: Completion) -> Verdict:
        """Raises SandboxFailed where the sandbox broke, not the program."""
        started = time.perf_counter()
        tests, source = parse(prompt.reference), program_of(completion.text)

        def verdict(score: float, status: Literal["scored", "unparseable", "timeout"], detail: str) -> Verdict:
            return Verdict(score=score, status=status, seconds=time.perf_counter() - started, detail=detail)

        if source is None:
            return verdict(0.0, "unparseable", "there is no fenced block of code")
        if len(source) > self.max_chars:
            return verdict(0.0, "unparseable", f"the program has {len(source)} characters, at most {self.max_chars}")
        outcomes = self._started().run(Program(source=source, function=tests.function, inputs=inputs_of(tests)))
        faults = [fault(tests, case, outcome) for case, outcome in zip(tests.cases, outcomes, strict=True)]
        passed = faults.count(None)
        score = passed / len(faults) if self.partial else float(passed == len(faults))
        status = "timeout" if any(outcome.status == "timeout" for outcome in outcomes) else "scored"
        first = next((f"; case {place}: {text}" for place, text in enumerate(faults) if text is not None), "")
        return verdict(score, status, f"{passed} of {len(faults)} cases{first}")

    def _started(self) -> Sandbox:
        if self._sandbox is None:
            limits = Limits(
                case_s=self.case_s,
                program_s=self.program_s,
                memory_mib=self.memory_mib,
                output_bytes=self.output_bytes,
            )
            self._sandbox = Sandbox(limits, self.min_isolation)
        return self._sandbox


def parse(reference: str) -> Tests:
    """Raises ValueError: no JSON, no cases, or the case and the field that will not do."""
    try:
        return Tests.model_validate(json.loads(reference))
    except json.JSONDecodeError as error:
        raise ValueError(f"its tests are no JSON: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"])
        message = str(first.get("ctx", {}).get("error", first["msg"]))  # ours without pydantic's "Value error, "
        raise ValueError(f"{path}: {message}" if path else message) from error


def program_of(text: str) -> str | None:
    """The last fenced block of the answer, or of the whole text where there is no answer with one."""
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, end) if end >= 0 else -1
    inside = FENCE.findall(text[start:end]) if start >= 0 else []
    blocks = inside or FENCE.findall(text)
    return blocks[-1] if blocks else None


def inputs_of(tests: Tests) -> list[Any]:
    if tests.function is None:
        return [case.stdin for case in tests.cases]
    return [{"args": case.args, "kwargs": case.kwargs} for case in tests.cases]


def fault(tests: Tests, case: Case, outcome: Outcome) -> str | None:
    """What is wrong with a case's outcome; None: nothing."""
    if outcome.status != "returned":
        return f"{outcome.status}: {outcome.detail[-SHOWN:]}" if outcome.detail else outcome.status
    said = outcome.output.decode(errors="replace")
    if tests.function is None:
        same = lines_of(said) == lines_of(case.stdout or "")
        return None if same else f"printed {said[:SHOWN]!r}, not {(case.stdout or '')[:SHOWN]!r}"
    try:
        value = json.loads(said, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return f"returned no JSON value: {said[:SHOWN]!r}"
    return (
        None
        if equal(value, case.returns, tests.tolerance)
        else f"returned {said[:SHOWN]}, not {case.returns!r:.{SHOWN}}"
    )


def lines_of(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def equal(value: Any, expected: Any, tolerance: float) -> bool:
    """Whether two JSON values are the same, types included, to any depth: 1 is not 1.0 and not true."""
    if type(value) is not type(expected):
        return False
    if isinstance(value, float):
        return value == expected or abs(value - expected) <= tolerance
    if isinstance(value, list):
        return len(value) == len(expected) and all(map(equal, value, expected, [tolerance] * len(value)))
    if isinstance(value, dict):
        return value.keys() == expected.keys() and all(equal(value[key], expected[key], tolerance) for key in value)
    return value == expected


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
