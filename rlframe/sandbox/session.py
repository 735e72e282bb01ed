"""`Session`: a program whose input stays open. The worker asks, the program replies, one line each way.

    worker (trusted)                                   runner (untrusted)
    ask("3")     ── "8f02c1… 3"  ───── messages ────▶  receive() -> "3"
    "9"          ◀── "8f02c1… 9" ───── replies ──────  reply("9")

Each message has a random token. A reply without the token of its message, for example a line that a thread of the
program wrote too early, ends the session. So does everything that exceeds a bound.
"""

from __future__ import annotations

import marshal
import math
import os
import secrets
import select
import signal
import struct
import time
from typing import TYPE_CHECKING

from rlframe.sandbox.case import CHUNK_BYTES, DETAIL_BYTES, memory_file
from rlframe.sandbox.failures import SandboxFailed
from rlframe.sandbox.program import Limits, Outcome, Status

if TYPE_CHECKING:
    from rlframe.sandbox.sandbox import Sandbox


NO_ANSWER = "it wrote a line that answers no message"


class SessionEnded(Exception):
    """The session gives no reply, now or later. `outcome` says why: its status, and the end of stderr."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(f"{outcome.status}: {outcome.detail}")
        self.outcome = outcome


class Session:
    """A running program that replies to one message after the other; `Sandbox.session()` starts it.

    >>> source = "while True: reply(str(int(receive()) ** 2))"
    >>> with sandbox.session(source, max_asks=10) as session:
    ...     session.ask("3"), session.ask("4")
    ('9', '16')

    The source finds `receive()` and `reply()` in its namespace (see `Channel`), an empty stdin, and no other input.
    What it prints is dropped but for the end, which is the `detail` of its last outcome. Bounds: `case_s` for an ask,
    the first ask with the source's start; `program_s` for all asks together; `output_bytes` for a reply; `max_asks`.
    """

    def __init__(self, sandbox: Sandbox, source: str, max_asks: int) -> None:
        """Raises SandboxFailed. The sandbox has been started and runs nothing else until `close()`."""
        assert sandbox._server is not None
        self._sandbox, self._server, self._limits = sandbox, sandbox._server, sandbox.limits
        self._remaining_s, self._remaining_asks = self._limits.program_s, max_asks
        self._received, self._printed = bytearray(), bytearray()
        self._end: Exception | None = None
        self._replies, replies_writer = os.pipe()
        self._prints, prints_writer = os.pipe()
        messages_reader, self._messages = os.pipe()
        os.set_blocking(self._messages, False)
        program = memory_file(marshal.dumps((source, None, [])))
        passed = [program, prints_writer, prints_writer, messages_reader, replies_writer]
        try:
            self._server.start_runner(_bounds(self._limits), passed)
        except (OSError, EOFError, ValueError) as error:
            raise self._failed(error) from error
        finally:
            # A pipe ends when its last writer closes, so the runner must be the only writer.
            for descriptor in set(passed):
                os.close(descriptor)
        self._poll = select.poll()
        for descriptor in (self._replies, self._prints, self._server.control):
            self._poll.register(descriptor, select.POLLIN)

    def ask(self, message: str) -> str:
        """Sends a message of one line and returns the reply. Raises SessionEnded where the program ended, exceeded a
        bound or broke the protocol; SandboxFailed where the sandbox broke; ValueError for a message with a line end."""
        if "\n" in message:
            raise ValueError("a message is one line: write line ends as JSON does, for example")
        if self._end is not None:
            raise self._end
        start = time.monotonic()
        try:
            if self._remaining_asks == 0:
                raise self._finish("skipped", "the session had used up its asks")
            self._remaining_asks -= 1
            return self._exchange(message, start + min(self._limits.case_s, self._remaining_s))
        except (OSError, EOFError, ValueError) as error:
            raise self._failed(error) from error
        finally:
            self._remaining_s -= time.monotonic() - start

    def close(self) -> None:
        """Ends the program. The sandbox then runs other programs."""
        if self._end is None:
            try:
                self._finish("skipped", "the session is closed")
            except (OSError, EOFError, ValueError) as error:
                self._failed(error)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _exchange(self, message: str, deadline: float) -> str:
        token = secrets.token_hex(8).encode() + b" "
        unsent = memoryview(token + message.encode(errors="surrogatepass") + b"\n")
        max_bytes = len(token) + self._limits.output_bytes
        if self._received:
            raise self._finish("raised", NO_ANSWER)
        self._poll.register(self._messages, select.POLLOUT)
        while True:
            remaining_s = deadline - time.monotonic()
            ready = dict(self._poll.poll(max(0.0, remaining_s) * 1000))
            if not ready or remaining_s <= 0:
                raise self._finish("timeout")
            if self._messages in ready:
                unsent = self._send(unsent)
            if self._prints in ready:
                self._read(self._prints, self._printed, CHUNK_BYTES)
                del self._printed[:-DETAIL_BYTES]
            if self._replies in ready:
                self._read(self._replies, self._received, max_bytes + 2 - len(self._received))
                line, line_end, surplus = self._received.partition(b"\n")
                if len(line) > max_bytes:
                    raise self._finish("output", f"a reply has more than {self._limits.output_bytes} bytes")
                if line_end and (unsent or not line.startswith(token)):
                    raise self._finish("raised", NO_ANSWER)
                if line_end:
                    self._received = surplus
                    return line[len(token) :].decode(errors="replace")
            elif self._server.control.fileno() in ready:
                raise self._finish(None)

    def _send(self, unsent: memoryview) -> memoryview:
        """Writes to the messages' pipe without waiting. Returns the bytes that remain."""
        try:
            unsent = unsent[os.write(self._messages, unsent[:CHUNK_BYTES]) :]
        except BrokenPipeError:  # the program closed its end, and will soon end too or miss the deadline
            self._poll.unregister(self._messages)
            return unsent
        if not unsent:
            self._poll.unregister(self._messages)
        return unsent

    def _read(self, pipe: int, text: bytearray, max_bytes: int) -> None:
        chunk = os.read(pipe, min(max_bytes, CHUNK_BYTES))
        if not chunk:
            self._poll.unregister(pipe)
        text += chunk

    def _finish(self, kill_reason: Status | None, detail: str = "") -> SessionEnded:
        """Ends the session: kills the runner for a reason, or reads how it ended by itself (None)."""
        if kill_reason:
            self._server.kill_runner()
        exit_code, _ = self._server.receive_report()
        if dict(self._poll.poll(0)).get(self._prints):
            self._read(self._prints, self._printed, CHUNK_BYTES)
        printed = self._printed[-DETAIL_BYTES:].decode(errors="replace").strip()
        if kill_reason is None:
            detail = signal.Signals(-exit_code).name if exit_code < 0 else f"it ended with exit status {exit_code}"
        status = kill_reason or ("died" if exit_code < 0 else "raised")
        end = SessionEnded(Outcome(status=status, output=b"", detail=f"{detail}\n{printed}".strip()))
        self.abandon(end)
        return end

    def _failed(self, error: Exception) -> SandboxFailed:
        """Ends the session and the sandbox's server, which broke."""
        failure = SandboxFailed(f"{type(error).__name__}: {error}\n{self._sandbox.close()}".rstrip())
        self.abandon(failure)
        self._end = failure
        return failure

    def abandon(self, end: Exception) -> None:
        """Ends this side of the session. Later asks raise `end`."""
        if self._end is not None:
            return
        self._end = end
        self._sandbox.release(self)
        for descriptor in (self._replies, self._prints, self._messages):
            os.close(descriptor)


def _bounds(limits: Limits) -> bytes:
    """CPU seconds and bytes of address space, as two `struct rlimit`, each soft and hard."""
    seconds, memory = math.ceil(limits.program_s) + 1, limits.memory_mib << 20
    return struct.pack("4Q", seconds, seconds, memory, memory)
