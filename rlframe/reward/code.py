"""Code reward: runs the completion's program against the tests in the prompt's reference."""

from __future__ import annotations

import time
from typing import Literal

from pydantic import Field, PrivateAttr

from rlframe.reward.base import Reward
from rlframe.reward.solution import program_of
from rlframe.sandbox import Isolation, Limits, Program, Sandbox
from rlframe.sandbox.expected import ProgramTests
from rlframe.sandbox.levels import ISOLATIONS
from rlframe.types import Completion, Prompt, Verdict


class Code(Reward):
    """1 for a Python program that passes every test, else 0: R1's accuracy reward on code.

    The reference holds `ProgramTests` as JSON. The program is the last fenced block inside `<answer>…</answer>`, else
    of the whole text. It runs in a sandbox that never holds the expected outputs. This process compares: text line by
    line without trailing white space, JSON values by value and exact type. A program that loops, crashes or prints too
    much is wrong.
    """

    name: Literal["code"]
    partial: bool  # score the share of passed cases, instead of all or nothing
    min_isolation: Isolation
    case_s: float = Field(gt=0)
    program_s: float = Field(gt=0)
    memory_mib: int = Field(ge=64)
    output_bytes: int = Field(ge=1)
    max_chars: int = Field(ge=1)  # of a program

    _sandbox: Sandbox | None = PrivateAttr(default=None)

    def check(self, reference: str) -> None:
        """Raises ValueError that names the wrong test case and its field."""
        ProgramTests.parse(reference)

    def start(self) -> None:
        """Raises SandboxUnavailable if the machine offers less than `min_isolation`."""
        self._started().start()

    def close(self) -> None:
        if self._sandbox is not None:
            self._sandbox.close()

    def facts(self) -> dict[str, float]:
        """`isolation`: 1 landlock, 2 bubblewrap."""
        level = self._started().level
        return {"isolation": float(ISOLATIONS.index(level) + 1)} if level else {}

    def __call__(self, prompt: Prompt, completion: Completion) -> Verdict:
        """Raises SandboxFailed for an error of the sandbox itself; a program's error is a score."""
        started = time.perf_counter()
        tests = ProgramTests.parse(prompt.reference)
        source = self._program(tests, completion)

        def verdict(score: float, status: Literal["scored", "unparseable", "timeout"], detail: str) -> Verdict:
            return Verdict(score=score, status=status, seconds=time.perf_counter() - started, detail=detail)

        if source is None:
            return verdict(0.0, "unparseable", "there is no fenced block of code")
        if len(source) > self.max_chars:
            return verdict(0.0, "unparseable", f"the program has {len(source)} characters, at most {self.max_chars}")
        outcomes = self._started().run(Program(source=source, function=tests.function, inputs=tests.inputs()))
        faults: list[str | None] = []
        has_timeout = False
        for case, outcome in zip(tests.cases, outcomes, strict=True):  # one output at a time is in memory
            faults.append(tests.fault(case, outcome))
            has_timeout = has_timeout or outcome.status == "timeout"
        passed = faults.count(None)
        score = passed / len(faults) if self.partial else float(passed == len(faults))
        status = "timeout" if has_timeout else "scored"
        first_fault = next((f"; case {index}: {text}" for index, text in enumerate(faults) if text is not None), "")
        return verdict(score, status, f"{passed} of {len(faults)} cases{first_fault}")

    def _program(self, tests: ProgramTests, completion: Completion) -> str | None:
        needs = [{tests.function.partition(".")[0]}] if tests.function else []
        return program_of(completion.text, needs, ended=completion.finish_reason == "stop")

    def _started(self) -> Sandbox:
        if self._sandbox is None:
            limits = Limits(
                case_s=self.case_s, program_s=self.program_s, memory_mib=self.memory_mib, output_bytes=self.output_bytes
            )
            self._sandbox = Sandbox(limits, self.min_isolation)
        return self._sandbox
