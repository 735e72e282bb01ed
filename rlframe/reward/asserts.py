"""`AssertTests`: tests of a program as Python code, which runs in a sandbox of its own and calls the program."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from functools import cached_property

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rlframe.reward.fault import Fault
from rlframe.reward.solution import Needs
from rlframe.reward.syntax import behind, bound_names, names_in, outside_of_definitions, parsed, tree_of
from rlframe.sandbox import Sandbox
from rlframe.sandbox.session import Session, SessionEnded
from rlframe.sandbox.values import PROGRAM

MAX_ASKS = 100_000  # calls of a program by all of its tests
SHOWN_CHARS = 200  # of an assert, in a fault

PROGRAM_SIDE = """from rlframe.sandbox.exchange_program import serve_program
serve_program(receive, reply, {source!r})
"""
TESTS_SIDE = """from rlframe.sandbox.exchange_tests import run_tests
run_tests(receive, reply, **{arguments!r})
"""


class BadTests(Exception):
    """The tests failed by themselves: no program has a verdict by them."""


class AssertTests(BaseModel):
    """Tests as code: `{"asserts": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"], "setup": "import math"}`.

    Each of `asserts` is a case: statements that raise nothing for a right program, functions `test…()`, or classes of
    unittest. `setup` runs before the first case. `prefix` is code that stands in front of the program, such as the
    imports of a prompt. Names that the tests use and do not define are names of the program; it runs in another sandbox
    than its tests.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    asserts: list[str] = Field(min_length=1)
    setup: str = ""
    prefix: str = ""

    @model_validator(mode="after")
    def _tests_are_code(self) -> AssertTests:
        for name, source in (("setup", self.setup), ("prefix", self.prefix), *self._named_asserts()):
            tree = tree_of(source, name)
            if not tree.body and name.startswith("asserts"):
                raise ValueError(f"{name}: is empty")
        if not self.names:
            raise ValueError("asserts: they use no name of the program, so they say nothing of it")
        for node in ast.walk(self._trees):
            bases = node.bases if isinstance(node, ast.ClassDef) else []
            if names := [base.id for base in bases if isinstance(base, ast.Name) and base.id in self.names]:
                raise ValueError(
                    f"asserts: a class extends {names[0]!r} of the program, which is in another process: "
                    "test the program's own objects"
                )
        return self

    @cached_property
    def names(self) -> list[str]:
        """Functions, classes and constants of the program that the tests use."""
        nodes = list(ast.walk(self._trees))
        imported = {
            alias.asname or alias.name
            for node in nodes
            if isinstance(node, ast.ImportFrom) and node.module == PROGRAM
            for alias in node.names
        }
        free = (names_in(nodes)[1] | imported) - {*self.modules}
        # A program may be asked to define a builtin, such as `sum`. It is what every assert calls then.
        first_calls = {_first_call(node.test) for node in nodes if isinstance(node, ast.Assert)}
        return sorted(free or (first_calls if len(first_calls) == 1 else set()) - {""})

    @cached_property
    def modules(self) -> list[str]:
        """Modules of the standard library that the tests use as `math.pi` and forgot to import."""
        nodes = list(ast.walk(self._trees))
        names = [node.id for node in nodes if isinstance(node, ast.Name)]
        roots = [
            node.value.id for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        ]
        free = names_in(nodes)[1] & sys.stdlib_module_names
        return sorted(name for name in free if names.count(name) == roots.count(name))

    @cached_property
    def _trees(self) -> ast.Module:
        sources = [self.setup, *self.asserts]
        return ast.Module([node for source in sources for node in tree_of(source, "asserts").body], [])

    def _named_asserts(self) -> list[tuple[str, str]]:
        return [(f"asserts.{index}", source) for index, source in enumerate(self.asserts)]

    def needs(self) -> Needs:
        return [{name} for name in self.names]

    def check_output(self, max_bytes: int) -> None:
        """Nothing to refuse: the tests expect values that only they know."""

    def faults(self, source: str, sandbox: Sandbox, tests_sandbox: Sandbox) -> Iterator[Fault | None]:
        """The fault of each case; None for a passed one. Raises BadTests, SandboxFailed, SandboxUnavailable."""
        arguments = {"setup": self.setup, "cases": self.asserts, "names": self.names, "modules": self.modules}
        program_side = PROGRAM_SIDE.format(source=self._with_prefix(source))
        with (
            sandbox.session(program_side, MAX_ASKS) as program,
            tests_sandbox.session(TESTS_SIDE.format(arguments=arguments), MAX_ASKS) as tests,
        ):
            ended: Fault | None = None
            for index, case in enumerate(self.asserts):
                if ended is not None:
                    yield Fault("skipped: an earlier case ended the program")
                    continue
                fault, is_end = _run_case(index, program, tests)
                ended = fault if is_end else None
                yield fault and Fault(f"{case.strip()[:SHOWN_CHARS]!r}: {fault.text}", fault.is_timeout)

    def _with_prefix(self, source: str) -> str:
        """The program behind the prefix. A program that only continues the prefix's last function is its body."""
        if not self.prefix:
            return source
        tree, body = parsed(source), "".join(f"    {line}" for line in source.splitlines(keepends=True))
        nodes = outside_of_definitions(tree) if tree else ()
        defined = {name for node in nodes for name in bound_names(node)}
        if not defined & {*self.names} and parsed(continued := f"{self.prefix.rstrip()}\n{body}"):
            return continued
        return behind(self.prefix, source)


def _first_call(test: ast.expr) -> str:
    """The function of the leftmost call in an assert's test: `sum` in `sum(10, 15) == 6`; an empty text for no call."""
    while isinstance(test, ast.Compare | ast.UnaryOp):
        test = test.left if isinstance(test, ast.Compare) else test.operand
    return test.func.id if isinstance(test, ast.Call) and isinstance(test.func, ast.Name) else ""


def _run_case(index: int, program: Session, tests: Session) -> tuple[Fault | None, bool]:
    """Carries the lines of a case between the program and its tests. Returns the fault, and True if it is the end."""
    calls = 0
    try:
        message = tests.ask(str(index))
        while not message.startswith("="):
            calls += 1
            try:
                answer = program.ask(message)
            except SessionEnded as end:
                return Fault.of(end.outcome), True
            message = tests.ask(answer)
    except SessionEnded as end:
        if calls <= (index == 0):  # the first call of the first case asks for names
            raise BadTests(f"the tests ended by themselves: {end}") from end
        return Fault(f"the tests ended on an answer of the program: {end}", end.outcome.status == "timeout"), True
    passed, is_by_program, text = json.loads(message[1:])
    if not passed and not is_by_program:
        raise BadTests(f"the tests failed before they called the program: {text}")
    return None if passed else Fault(text), False
