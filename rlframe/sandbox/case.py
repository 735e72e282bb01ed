"""`Case`: the trusted side of a case, which reads the runner's pipes and decides when the runner must end."""

from __future__ import annotations

import os
import select
import signal
import time

from rlframe.sandbox.program import Outcome, Status

CHUNK_BYTES = 1 << 16  # capacity of a pipe
DETAIL_BYTES = 2000  # only the end of stderr is stored


class Case:
    """The pipes of a runner and the bytes that were read from them."""

    def __init__(self, max_output_bytes: int) -> None:
        self.max_output_bytes = max_output_bytes
        self.output, self._output_writer = os.pipe()
        self.errors, self._errors_writer = os.pipe()
        self.texts = {self.output: bytearray(), self.errors: bytearray()}
        self._poll = select.poll()
        for descriptor in self.texts:
            self._poll.register(descriptor, select.POLLIN)

    def descriptors(self, program: int, stdin: int | None) -> list[int]:
        """The descriptors of a runner, in the order that `runner.wait` expects."""
        return [program, self._output_writer, self._errors_writer] + ([] if stdin is None else [stdin])

    def close_writers(self) -> None:
        """Leaves the runner as the only writer: a pipe ends when its last writer closes."""
        os.close(self._output_writer)
        os.close(self._errors_writer)
        self._output_writer = self._errors_writer = -1

    def read_until_end(self, server: int, case_s: float, program_deadline: float | None = None) -> Status | None:
        """Reads the pipes until the server reports an end (returns None) or the runner must be killed (returns why).

        The runner has `case_s`. With a `program_deadline` it makes many calls: each line of output is a call's result,
        and the next call has another `case_s`, up to that deadline.
        """
        self._poll.register(server, select.POLLIN)
        try:
            deadline = time.monotonic() + case_s
            while True:
                remaining_s = min(deadline, program_deadline or deadline) - time.monotonic()
                ready = dict(self._poll.poll(max(0.0, remaining_s) * 1000))
                if server in ready:
                    return None
                if not ready or remaining_s <= 0:  # endless output is always ready, so the clock is checked too
                    return "timeout"
                if b"\n" in self._read(ready) and program_deadline:
                    deadline = time.monotonic() + case_s
                if len(self.texts[self.output]) > self.max_output_bytes:
                    return "output"
        finally:
            self._poll.unregister(server)

    def drain(self) -> None:
        """Reads the bytes that a dead runner left in the pipes."""
        while len(self.texts[self.output]) <= self.max_output_bytes and (ready := dict(self._poll.poll(0))):
            self._read(ready)

    def _read(self, ready: dict[int, int]) -> bytes:
        """Reads each ready pipe once. Returns the new bytes of stdout."""
        output = b""
        for descriptor in ready:
            chunk = os.read(descriptor, CHUNK_BYTES)
            if not chunk:
                self._poll.unregister(descriptor)
            self.texts[descriptor] += chunk
            if descriptor == self.errors:
                del self.texts[descriptor][:-DETAIL_BYTES]
            else:
                output = chunk
        return output

    def outcome(self, kill_reason: Status | None, exit_code: int) -> Outcome:
        """The case's outcome. `kill_reason` is None where the runner ended by itself."""
        output = bytes(self.texts[self.output][: self.max_output_bytes + 1])
        status = kill_reason or _status(exit_code, len(output) > self.max_output_bytes)
        detail = self.stderr()
        if status == "died":
            detail = f"{signal.Signals(-exit_code).name} {detail}".rstrip()
        elif status == "raised" and not detail:
            detail = f"exit status {exit_code}"
        return Outcome(status=status, output=output, detail=detail)

    def stderr(self) -> str:
        return self.texts[self.errors].decode(errors="replace").strip()

    def close(self) -> None:
        for descriptor in (self.output, self.errors, self._output_writer, self._errors_writer):
            if descriptor >= 0:
                os.close(descriptor)


def _status(exit_code: int, has_too_much_output: bool) -> Status:
    if has_too_much_output:
        return "output"
    return "returned" if exit_code == 0 else "died" if exit_code < 0 else "raised"


def memory_file(content: bytes) -> int:
    """Descriptor of a file in memory, positioned at the start. Unlike a pipe, a file needs no concurrent writer."""
    descriptor = os.memfd_create("case", os.MFD_CLOEXEC)
    if content:
        os.write(descriptor, content)
        os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
