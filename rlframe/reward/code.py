"""Code reward: runs the completion's program against the tests in the prompt's reference."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, PrivateAttr, field_validator

from rlframe.actors.activity import note
from rlframe.reward.base import Reward
from rlframe.reward.fault import Fault
from rlframe.reward.references import read_tests
from rlframe.reward.solution import program_of
from rlframe.sandbox import Isolation, Limits, Sandbox
from rlframe.sandbox.levels import ISOLATIONS
from rlframe.sandbox.packages import Packages
from rlframe.sandbox.timer import WALL_PER_CPU
from rlframe.types import Completion, Prompt, Verdict

SPARE_S = 10.0  # to start a sandbox, and to read and compare outputs


class Code(Reward):
    """1 for a Python program that passes every test, else 0: R1's accuracy reward on code.

    The reference holds the tests (see `references`): inputs and outputs, or asserts. The program is read from the
    completion as a careful reader would (see `solution`). It runs in a sandbox that never holds the expected outputs.
    This process compares them; tests that are code themselves, such as asserts or a checker, run in a second sandbox.
    A program that loops, crashes or prints too much is wrong. Tests that fail by themselves give no verdict.
    """

    name: Literal["code"]
    partial: bool  # score the share of passed cases, instead of all or nothing
    min_isolation: Isolation
    case_s: float = Field(gt=0)
    program_s: float = Field(gt=0)
    memory_mib: int = Field(ge=64)
    output_bytes: int = Field(ge=1)
    max_chars: int = Field(ge=1)  # of a program
    # Optional settings default to off.
    packages: list[str] = Field(default_factory=list)  # that programs and tests may import; pip's requirements
    packages_folder: str | None = None  # of installed packages, shared by runs; None: in the user's cache

    _sandbox: Sandbox | None = PrivateAttr(default=None)
    _tests_sandbox: Sandbox | None = PrivateAttr(default=None)  # started where tests are code

    @field_validator("packages")
    @classmethod
    def _packages_are_requirements(cls, packages: list[str]) -> list[str]:
        Packages(packages, cache=None)
        return packages

    @field_validator("packages_folder")
    @classmethod
    def _is_the_same_in_every_process(cls, folder: str | None) -> str | None:
        return folder and str(Path(folder).expanduser().resolve())

    def check(self, reference: str) -> None:
        """Raises ValueError that names the wrong test case and its field."""
        read_tests(reference).check_output(self.output_bytes)

    def start(self) -> None:
        """Raises SandboxUnavailable if the machine offers less than `min_isolation`, PackagesUnavailable if programs
        cannot import the packages."""
        self._programs().start()

    def close(self) -> None:
        for sandbox in (self._sandbox, self._tests_sandbox):
            if sandbox is not None:
                sandbox.close()

    def slowest_s(self) -> float:
        """Seconds for the slowest program, and a spare: a program may wait for longer than it may compute."""
        return WALL_PER_CPU * self.program_s + SPARE_S

    def facts(self) -> dict[str, float]:
        """`isolation`: 1 landlock, 2 bubblewrap."""
        level = self._programs().level
        return {"isolation": float(ISOLATIONS.index(level) + 1)} if level else {}

    def __call__(self, prompt: Prompt, completion: Completion) -> Verdict:
        """Raises SandboxFailed for an error of the sandbox itself, BadTests for one of the tests alone; a program's
        error is a score."""
        started = time.perf_counter()
        tests = read_tests(prompt.reference)
        source = program_of(completion.text, tests.needs(), ended=completion.finish_reason == "stop")

        def verdict(score: float, status: Literal["scored", "unparseable", "timeout"], detail: str) -> Verdict:
            return Verdict(score=score, status=status, seconds=time.perf_counter() - started, detail=detail)

        if source is None:
            return verdict(0.0, "unparseable", "there is no block of Python")
        if len(source) > self.max_chars:
            return verdict(0.0, "unparseable", f"the program has {len(source)} characters, at most {self.max_chars}")
        passed, count, first_fault, is_timeout = _summary(tests.faults(source, self._programs(), self._tests()))
        score = passed / count if self.partial else float(passed == count)
        return verdict(score, "timeout" if is_timeout else "scored", f"{passed} of {count} cases{first_fault}")

    def _programs(self) -> Sandbox:
        self._sandbox = self._sandbox or self._new_sandbox()
        return self._sandbox

    def _tests(self) -> Sandbox:
        self._tests_sandbox = self._tests_sandbox or self._new_sandbox()
        return self._tests_sandbox

    def _new_sandbox(self) -> Sandbox:
        limits = Limits(
            case_s=self.case_s, program_s=self.program_s, memory_mib=self.memory_mib, output_bytes=self.output_bytes
        )
        packages = Packages(self.packages, self.packages_folder) if self.packages else None
        return Sandbox(limits, self.min_isolation, packages)


def _summary(faults: Iterator[Fault | None]) -> tuple[int, int, str, bool]:
    """Number of passed cases and of all cases, the first fault, and True if a case took too long."""
    passed, count, first_fault, is_timeout = 0, 0, "", False
    note("sandbox case 0")
    for index, fault in enumerate(faults):
        count += 1
        note(f"sandbox case {count}")
        if fault is None:
            passed += 1
        else:
            first_fault = first_fault or f"; case {index}: {fault.text}"
            is_timeout |= fault.is_timeout
    return passed, count, first_fault, is_timeout
