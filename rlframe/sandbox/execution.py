"""Executes a program's cases on a fork server, and yields their outcomes as they come."""

from __future__ import annotations

import marshal
import os
import socket
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Protocol

from rlframe.sandbox.case import Case, memory_file
from rlframe.sandbox.failures import SandboxFailed
from rlframe.sandbox.program import Limits, Outcome, Program
from rlframe.sandbox.timer import Timer


class Server(Protocol):
    """A fork server as its worker sees it; see `sandbox.py`."""

    control: socket.socket  # readable when the runner has ended

    def start_runner(self, bounds: bytes, descriptors: list[int]) -> int: ...

    def kill_runner(self) -> None: ...

    def receive_report(self) -> tuple[int, float]: ...


def run(server: Server, program: Program, limits: Limits) -> Generator[Outcome, None, None]:
    """Yields an outcome for each input. Raises SandboxFailed."""
    job = memory_file(marshal.dumps((program.source, program.function, program.inputs if program.function else [])))
    try:
        if program.function is None:
            yield from _run_scripts(server, program.inputs, job, limits)
        else:
            yield from _run_calls(server, len(program.inputs), job, limits)
    except (OSError, EOFError, ValueError) as error:
        raise SandboxFailed(f"{type(error).__name__}: {error}") from error
    finally:
        os.close(job)


def _run_scripts(server: Server, inputs: list[str], job: int, limits: Limits) -> Iterator[Outcome]:
    """Runs the program once for each input, until an input takes too long."""
    remaining_s = limits.program_s
    for text in inputs:
        if remaining_s <= 0:
            yield _skipped("the program had used up its time")
            continue
        stdin = memory_file(text.encode(errors="surrogatepass"))
        try:
            with _case(server, Case(limits), [job, stdin], min(limits.case_s, remaining_s)) as case:
                output = case.read_output(server.control.fileno())
        finally:
            os.close(stdin)
        outcome = case.outcome(output)
        remaining_s = 0.0 if outcome.status == "timeout" else remaining_s - case.used_s
        yield outcome


def _run_calls(server: Server, count: int, job: int, limits: Limits) -> Iterator[Outcome]:
    """Runs all calls of a function in one runner, which writes a line for each result."""
    results, last = 0, None
    with _case(server, Case(limits, count), [job], limits.program_s) as case:
        for line in case.lines(server.control.fileno()):
            results += 1
            if results > count:
                break
            status = "returned" if len(line) <= limits.output_bytes else "output"
            last = Outcome(status=status, output=line, detail="")
            if results < count:  # the last outcome is held until the runner has ended without a surplus
                yield last
    if results > count:
        yield Outcome(status="raised", output=b"", detail="it wrote more results than it was asked for")
    elif results == count and last:
        yield last
    else:
        end = case.outcome(b"")
        status = "raised" if end.status == "returned" else end.status
        yield Outcome(status=status, output=b"", detail=end.detail or "it ended before its result")
    for _ in range(results + 1, count):
        yield _skipped("an earlier case ended the program")


@contextmanager
def _case(server: Server, case: Case, descriptors: list[int], total_s: float) -> Iterator[Case]:
    """Runs a case while the block reads its output. The runner does not outlive the block. Raises OSError, EOFError
    or ValueError where the server broke."""
    job, *stdin = descriptors
    try:
        pidfd = server.start_runner(case.bounds(), [job, *case.writers, *stdin])
        case.start(Timer(pidfd, total_s, case.limits.case_s))
        try:
            yield case
        finally:
            if not case.runner_has_ended:
                server.kill_runner()
            case.finish(*server.receive_report())
    except EOFError as error:
        raise EOFError(f"{error}\n{case.stderr()}".rstrip()) from error
    finally:
        case.close()


def _skipped(detail: str) -> Outcome:
    return Outcome(status="skipped", output=b"", detail=detail)
