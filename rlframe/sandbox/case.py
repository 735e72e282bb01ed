"""One case from the trusted side: what its process reads and writes, and when it must end."""

from __future__ import annotations

import os
import select
import signal
import socket
import time

from rlframe.sandbox.program import Outcome, Status

CHUNK = 1 << 16  # what a pipe holds
DETAIL_BYTES = 2000  # of stderr, its end


class Case:
    """The pipes from one runner, and what has come out of them."""

    def __init__(self, most: int) -> None:
        """`most`: bytes of output."""
        self.most = most
        self.output, self._output_end = os.pipe()
        self.errors, self._errors_end = os.pipe()
        self.texts = {self.output: bytearray(), self.errors: bytearray()}
        self._poll = select.poll()
        for descriptor in self.texts:
            self._poll.register(descriptor, select.POLLIN)

    def hand_over(self, asked: socket.socket, limits: bytes, program: int, stdin: int | None) -> None:
        """Gives a runner all that it needs. Raises OSError where there is none at the other end."""
        given = [program, self._output_end, self._errors_end] + ([] if stdin is None else [stdin])
        socket.send_fds(asked, [limits], given)
        os.close(self._output_end)
        os.close(self._errors_end)
        self._output_end = self._errors_end = -1

    def until_its_end(self, server: int, case_s: float, latest: float | None = None) -> Status | None:
        """Reads until the server's socket has something to say (None), or until the runner must end: `case_s` after its
        start or, where there is a `latest` end of all, after its last line of output; or beyond the most output."""
        self._poll.register(server, select.POLLIN)
        try:
            deadline = time.monotonic() + case_s
            while True:
                left = min(deadline, latest or deadline) - time.monotonic()
                ready = dict(self._poll.poll(max(0.0, left) * 1000))
                if server in ready:
                    return None
                if not ready or left <= 0:  # a flood of output is always ready
                    return "timeout"
                if b"\n" in self._take(ready) and latest:
                    deadline = time.monotonic() + case_s
                if len(self.texts[self.output]) > self.most:
                    return "output"
        finally:
            self._poll.unregister(server)

    def drain(self) -> None:
        """What the pipes still hold once the runner is gone."""
        while len(self.texts[self.output]) <= self.most and (ready := dict(self._poll.poll(0))):
            self._take(ready)

    def _take(self, ready: dict[int, int]) -> bytes:
        """Reads what is there; what of it is output."""
        output = b""
        for descriptor in ready:
            piece = os.read(descriptor, CHUNK)
            if not piece:
                self._poll.unregister(descriptor)
            self.texts[descriptor] += piece
            if descriptor == self.errors:
                del self.texts[descriptor][:-DETAIL_BYTES]
            else:
                output = piece
        return output

    def outcome(self, forced: Status | None, exit_code: int) -> Outcome:
        """`forced`: why the runner was killed; None: it had ended by itself."""
        output = bytes(self.texts[self.output][: self.most + 1])
        status = forced or _status(exit_code, len(output) > self.most)
        detail = self.complaint()
        if status == "died":
            detail = f"{signal.Signals(-exit_code).name} {detail}".rstrip()
        elif status == "raised" and not detail:
            detail = f"exit status {exit_code}"
        return Outcome(status=status, output=output, detail=detail)

    def complaint(self) -> str:
        """The end of its stderr."""
        return self.texts[self.errors].decode(errors="replace").strip()

    def close(self) -> None:
        for descriptor in (self.output, self.errors, self._output_end, self._errors_end):
            if descriptor >= 0:
                os.close(descriptor)


def _status(exit_code: int, too_much: bool) -> Status:
    if too_much:
        return "output"
    return "returned" if exit_code == 0 else "died" if exit_code < 0 else "raised"


def memory_file(content: bytes) -> int:
    """A file in memory, at its beginning: a reader finds its end, whatever the size, and nobody has to write."""
    descriptor = os.memfd_create("case", os.MFD_CLOEXEC)
    if content:
        os.write(descriptor, content)
        os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
