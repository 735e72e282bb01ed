"""`Case`: the trusted side of a case, which reads the runner's pipes and decides when the runner must end."""

from __future__ import annotations

import io
import math
import os
import select
import signal
import struct
from collections.abc import Iterator

from rlframe.sandbox.program import Limits, Outcome, Status
from rlframe.sandbox.timer import Timer

CHUNK_BYTES = 1 << 16  # capacity of a pipe
DETAIL_BYTES = 2000  # only the end of stderr is stored
MIN_POLL_S = 0.001  # a runner with several threads may use up its time before the clock is read again


class Case:
    """The pipes of a runner. Of the output, a chunk is held, and so much as a caller collects.

    `calls`: results that a function writes, a line for each; None for a script.
    """

    def __init__(self, limits: Limits, calls: int | None = None) -> None:
        self.limits, self.calls = limits, calls
        self.output, output_writer = os.pipe()
        self.errors, errors_writer = os.pipe()
        self.writers = [output_writer, errors_writer]
        self._stderr = bytearray()
        self.poll = select.poll()
        for descriptor in (self.output, self.errors):
            self.poll.register(descriptor, select.POLLIN)
        self.runner_has_ended = False
        self.kill_reason: Status | None = None  # None: the runner may go on, or has ended by itself

    def bounds(self) -> bytes:
        """The kernel's own limits on CPU time and address space, as two `struct rlimit`, each soft and hard."""
        # Ends a runaway program where this process gets no core to do it. The kernel counts ticks of its clock here,
        # which may exceed the CPU time by an eighth: a program within its time must not meet this limit.
        seconds = math.ceil(2 * (self.limits.case_s if self.calls is None else self.limits.program_s)) + 1
        memory = self.limits.memory_mib << 20
        return struct.pack("4Q", seconds, seconds, memory, memory)

    def start(self, timer: Timer) -> None:
        """The runner has the case."""
        self.timer = timer
        # A pipe ends when its last writer closes, so the runner must be the only writer.
        self._close(*self.writers)
        self.writers = []

    def chunks(self, server: int) -> Iterator[bytes]:
        """Yields the output as it comes, until the runner has ended (the server reports it) or must be killed."""
        self.poll.register(server, select.POLLIN)
        try:
            while True:
                remaining_s = self.timer.remaining_s()
                ready = dict(self.poll.poll(max(MIN_POLL_S, remaining_s) * 1000))
                if server in ready:
                    self.runner_has_ended = True
                    break
                if remaining_s <= 0:  # endless output is always ready, so the clock is asked every time
                    self.kill_reason = "timeout"
                    return
                if chunk := self.read(ready):
                    yield chunk
        finally:
            self.poll.unregister(server)
        while ready := dict(self.poll.poll(0)):
            if chunk := self.read(ready):
                yield chunk

    def lines(self, server: int) -> Iterator[bytes]:
        """Yields each line of output as it comes, cut to `output_bytes` + 1. Text after the last newline is no line."""
        assert self.calls is not None
        line, max_bytes = bytearray(), self.limits.output_bytes + 1
        remaining_bytes = self.calls * max_bytes
        for chunk in self.chunks(server):
            rest, *starts = chunk.split(b"\n")
            for start in starts:
                line += rest[: max_bytes - len(line)]
                yield bytes(line)
                line.clear()
                rest = start
            line += rest[: max_bytes - len(line)]
            if starts:  # the next call begins, at the latest, when this process waits for its result
                self.timer.restart(self.limits.case_s)
            remaining_bytes -= len(chunk)
            if remaining_bytes < 0:
                self.kill_reason = "output"
                return

    def read_output(self, server: int) -> bytes:
        """The whole output, or its first `output_bytes` + 1 bytes."""
        output, max_bytes = io.BytesIO(), self.limits.output_bytes + 1
        for chunk in self.chunks(server):
            output.write(chunk[: max_bytes - output.tell()])
            if output.tell() == max_bytes:
                self.kill_reason = "output"
                break
        return output.getvalue()  # without a copy

    def finish(self, exit_code: int, cpu_s: float) -> None:
        """The runner has ended, with an exit code and after so many CPU seconds."""
        self._exit_code, self._cpu_s, self._detail = exit_code, cpu_s, self.stderr()

    def outcome(self, output: bytes) -> Outcome:
        """The outcome of a finished case with the given output. Raises ChildProcessError for a runner that was killed
        neither by this process nor by a limit: no program can bring that about."""
        detail = self._detail
        if self.kill_reason:
            status = self.kill_reason
        elif self.timer.is_exceeded(self._cpu_s):
            status = "timeout"
        elif self._exit_code == -signal.SIGKILL:
            raise ChildProcessError(
                "something outside the sandbox killed the program, probably the kernel for lack of memory: give the "
                f"machine or container more, or run fewer workers (a program may use {self.limits.memory_mib} MiB)"
            )
        elif self._exit_code < 0:
            status, detail = "died", f"{signal.Signals(-self._exit_code).name} {detail}".rstrip()
        else:
            status = "raised" if self._exit_code else "returned"
        if status == "raised" and not detail:
            detail = f"exit status {self._exit_code}"
        return Outcome(status=status, output=output, detail=detail)

    @property
    def used_s(self) -> float:
        """The finished case's share of the program's seconds."""
        return self.timer.used_s(self._cpu_s)

    def stderr(self) -> str:
        """The end of what an ended runner wrote to stderr."""
        while ready := dict(self.poll.poll(0)):
            self.read(ready)
        return self._stderr.decode(errors="replace").strip()

    def forget_stderr(self) -> None:
        """Leaves the text so far out of the outcome's detail."""
        self._stderr.clear()

    def read(self, ready: dict[int, int]) -> bytes:
        """Reads each ready pipe once. Returns the new bytes of stdout."""
        output = b""
        for descriptor in ready:
            chunk = os.read(descriptor, CHUNK_BYTES)
            if not chunk:
                self.poll.unregister(descriptor)
            elif descriptor == self.errors:
                self._stderr += chunk
                del self._stderr[:-DETAIL_BYTES]
            else:
                output = chunk
        return output

    def close(self) -> None:
        self._close(self.output, self.errors, *self.writers)

    def _close(self, *descriptors: int) -> None:
        for descriptor in descriptors:
            os.close(descriptor)


def memory_file(content: bytes) -> int:
    """Descriptor of a file in memory, positioned at the start. Unlike a pipe, a file needs no concurrent writer."""
    descriptor = os.memfd_create("case", os.MFD_CLOEXEC)
    if content:
        os.write(descriptor, content)
        os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
