"""Runs one program's cases: forks a runner, takes its rights away, bounds it, and hands on what it says."""

from __future__ import annotations

import _signal  # pyright: ignore[reportMissingImports]
import math
import os
import resource
import select
import time

from rlframe.reward.sandbox import kernel, runner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MIB = 1 << 20
OPEN_FILES = 64
DETAIL_BYTES = 2000  # of stderr, its end

Said = tuple[str, bytes, bytes]  # status, output, detail


def run(job: dict[str, Any], seccomp: bytes, nothing: int) -> list[Said]:
    """One entry a case. `job`: fields of Program and Limits; `nothing`: an open /dev/null."""
    deadline = time.monotonic() + job["program_s"]
    if job["function"] is not None:
        return _functions(job, seccomp, nothing, deadline)
    said: list[Said] = []
    for text in job["inputs"]:
        left = min(job["case_s"], deadline - time.monotonic())
        if left <= 0 or (said and said[-1][0] in ("timeout", "skipped")):
            said.append(("skipped", b"", b"the program had used up its time"))
            continue
        stdin = _file(text.encode(errors="surrogatepass"))
        watched = _Watched(lambda: runner.run_stdin(job["source"]), stdin, nothing, job, seccomp)
        said.append(watched.until_its_end(left))
    return said


def _functions(job: dict[str, Any], seccomp: bytes, nothing: int, deadline: float) -> list[Said]:
    """All calls in one process, a result a line; a case ends where its line does."""
    inputs = job["inputs"]
    work = lambda: runner.run_function(job["source"], job["function"], inputs)  # noqa: E731
    watched = _Watched(work, os.dup(nothing), nothing, job, seccomp, results=True)
    status, output, detail = watched.until_its_end(job["case_s"], cases=len(inputs), latest=deadline)
    *lines, _ = output.split(b"\n")
    if len(lines) > len(inputs):
        return [("raised", b"", b"it wrote more results than it was asked for")] * len(inputs)
    said: list[Said] = [("returned", line, b"") for line in lines]
    if len(said) < len(inputs):
        status = "raised" if status == "returned" else status
        said.append((status, b"", detail or b"it ended before its result"))
    return said + [("skipped", b"", b"an earlier case ended the program")] * (len(inputs) - len(said))


class _Watched:
    """A runner, from its fork to its end."""

    def __init__(
        self,
        work: Callable[[], None],
        stdin: int,
        nothing: int,
        job: dict[str, Any],
        seccomp: bytes,
        *,
        results: bool = False,
    ) -> None:
        self.job = job
        self.output, out = os.pipe()
        self.errors, err = os.pipe()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                kernel.die_with_parent(parent)
                _place([stdin, nothing, err, out] if results else [stdin, out, err])
                _bound(job)
                kernel.only_compute(seccomp)
            except BaseException as error:
                os.write(2, f"sandbox: {error}".encode())
                os._exit(125)
            work()
        for inherited in (stdin, out, err):
            os.close(inherited)

    def until_its_end(self, case_s: float, cases: int = 1, latest: float = math.inf) -> Said:
        """Reads until the runner has ended, or ends it: `case_s` after its start or its last line of output where there
        are several cases, at `latest`, or beyond `output_bytes` for each case."""
        ended = os.pidfd_open(self.pid)
        texts = {self.output: bytearray(), self.errors: bytearray()}
        poll = select.poll()
        for descriptor in (ended, self.output, self.errors):
            poll.register(descriptor, select.POLLIN)
        status, deadline = "", time.monotonic() + case_s
        while not status:
            left = min(deadline, latest) - time.monotonic()
            ready = poll.poll(max(0.0, left) * 1000)
            if not ready or (left <= 0 and ended not in dict(ready)):  # a flood of output is always ready
                status = "timeout"
            for descriptor, _ in ready:
                if descriptor == ended:
                    status = status or "ended"
                    continue
                piece = os.read(descriptor, 1 << 16)
                if not piece:
                    poll.unregister(descriptor)
                text = texts[descriptor]
                text += piece
                if descriptor == self.errors:
                    del text[:-DETAIL_BYTES]
                elif len(text) > self.job["output_bytes"] * cases:
                    status = "output"
                elif cases > 1 and b"\n" in piece:
                    deadline = time.monotonic() + case_s
        os.kill(self.pid, _signal.SIGKILL)
        _, code = os.waitpid(self.pid, 0)
        os.close(ended)
        if status == "ended":
            self._drain(texts)
            status = _verdict(
                os.waitstatus_to_exitcode(code), len(texts[self.output]) > self.job["output_bytes"] * cases
            )
        os.close(self.output)
        os.close(self.errors)
        return status, bytes(texts[self.output]), _detail(status, os.waitstatus_to_exitcode(code), texts[self.errors])

    def _drain(self, texts: dict[int, bytearray]) -> None:
        """What the pipes still hold; all writers are gone, so this ends."""
        for descriptor, text in texts.items():
            while piece := os.read(descriptor, 1 << 16):
                text += piece


def _verdict(exit_code: int, too_much: bool) -> str:
    if too_much:
        return "output"
    return "returned" if exit_code == 0 else "died" if exit_code < 0 else "raised"


def _detail(status: str, exit_code: int, errors: bytearray) -> bytes:
    if status == "died":
        import signal

        return signal.Signals(-exit_code).name.encode() + b" " + bytes(errors[-DETAIL_BYTES:])
    return bytes(errors[-DETAIL_BYTES:]) or (f"exit status {exit_code}".encode() if status == "raised" else b"")


def _file(content: bytes) -> int:
    """A file in memory, at its beginning: a reader finds its end, whatever the size, and nobody has to write."""
    descriptor = os.memfd_create("stdin", os.MFD_CLOEXEC)
    os.write(descriptor, content) if content else None
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _place(descriptors: list[int]) -> None:
    """Makes them 0, 1, 2, ... and closes all others."""
    high = [os.dup2(descriptor, 100 + place, inheritable=True) for place, descriptor in enumerate(descriptors)]
    os.closerange(0, 100)
    for place, descriptor in enumerate(high):
        os.dup2(descriptor, place, inheritable=True)
    os.closerange(len(high), 4096)


def _bound(job: dict[str, Any]) -> None:
    seconds = math.ceil(job["program_s"] if job["function"] is not None else job["case_s"]) + 1
    memory = job["memory_mib"] * MIB
    for what, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),  # threads too: each has its stack there
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        resource.setrlimit(what, (most, most))
