"""`Session`: a program whose input stays open. The worker asks, the program replies, one line each way.

    worker (trusted)                                   runner (untrusted)
    ask("3")     ── "8f02c1… 3"  ───── messages ────▶  receive() -> "3"
    "9"          ◀── "8f02c1… 9" ───── replies ──────  reply("9")

Each message has a random token. A reply without the token of its message, for example a line that a thread of the
program wrote too early, ends the session. So does everything that exceeds a bound.
"""

from __future__ import annotations

import marshal
import os
import secrets
import select
import signal
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from rlframe.sandbox.case import CHUNK_BYTES, MIN_POLL_S, Case, memory_file
from rlframe.sandbox.failures import SandboxFailed
from rlframe.sandbox.program import Outcome, Status
from rlframe.sandbox.timer import Timer

if TYPE_CHECKING:
    from rlframe.sandbox.sandbox import Sandbox

NO_ANSWER = "it wrote a line that answers no message"


class SessionEnded(Exception):
    """The session gives no reply, now or later. `outcome` says why: its status, and the end of what was printed."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(f"{outcome.status}: {outcome.detail}")
        self.outcome = outcome


class Session:
    """A running program that replies to one message after the other; `Sandbox.session()` starts it.

    >>> source = "while True: reply(str(int(receive()) ** 2))"
    >>> with sandbox.session(source, max_asks=10) as session:
    ...     session.ask("3"), session.ask("4")
    ('9', '16')

    The source finds `receive()` and `reply()` in its namespace (see `Channel`); its stdin is empty, and of what it
    prints for a message the end is kept, as a detail of how the session ended. Bounds of `Limits`: `case_s` for an ask;
    `program_s` for the start and all asks together, without the wall time between asks; `output_bytes` for a reply.
    """

    def __init__(self, sandbox: Sandbox, source: str, max_asks: int) -> None:
        """Raises SandboxFailed. The sandbox has been started, and runs nothing else until `close()`."""
        assert sandbox._server is not None
        self._sandbox, self._server = sandbox, sandbox._server
        self._limits, self._remaining_asks = sandbox.limits, max_asks
        self._received = bytearray()
        self._end: Exception | None = None
        self._case = Case(self._limits, calls=max_asks)
        messages_reader, self._messages = os.pipe()
        os.set_blocking(self._messages, False)
        program = memory_file(marshal.dumps((source, None, [])))
        replies, prints = self._case.writers
        try:
            bounds, passed = self._case.bounds(), [program, replies, prints, messages_reader, prints]
            pidfd = self._server.start_runner(bounds, passed)
            self._case.start(Timer(pidfd, self._limits.program_s))
        except (OSError, EOFError, ValueError) as error:
            raise self._failed(error) from error
        finally:
            os.close(program)
            os.close(messages_reader)
        self._idle_since = time.monotonic()  # the time of the last reply

    def ask(self, message: str) -> str:
        """Sends a message of one line and returns the reply. Raises SessionEnded where the program ended, exceeded a
        bound or broke the protocol; SandboxFailed where the sandbox broke; ValueError for a message with a line end."""
        if "\n" in message:
            raise ValueError("a message is one line: write line ends as JSON does, for example")
        if self._end is not None:
            raise self._end
        try:
            if self._remaining_asks == 0:
                raise self._killed("skipped", "the session had used up its asks")
            self._remaining_asks -= 1
            self._case.timer.leave_out(time.monotonic() - self._idle_since)
            self._case.timer.restart(self._limits.case_s)
            self._case.forget_stderr()
            answer = self._exchange(message)
        except (OSError, EOFError, ValueError) as error:
            raise self._failed(error) from error
        self._idle_since = time.monotonic()
        return answer

    def close(self) -> None:
        """Ends the program. The sandbox then runs other programs."""
        if self._end is None:
            try:
                self._killed("skipped", "the session is closed")
            except (OSError, EOFError, ValueError) as error:
                self._failed(error)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _exchange(self, message: str) -> str:
        token = secrets.token_hex(8).encode() + b" "
        unsent = memoryview(token + message.encode(errors="surrogatepass") + b"\n")
        max_bytes = len(token) + self._limits.output_bytes
        if self._received:  # more than the last reply
            raise self._killed("raised", NO_ANSWER)
        case, control = self._case, self._server.control.fileno()
        case.poll.register(control, select.POLLIN)
        case.poll.register(self._messages, select.POLLOUT)
        while True:
            remaining_s = case.timer.remaining_s()
            ready = dict(case.poll.poll(max(MIN_POLL_S, remaining_s) * 1000))
            if ready.pop(self._messages, 0):
                unsent = self._send(unsent)
            runner_has_ended = ready.pop(control, 0)
            self._received += case.read(ready)
            line, line_end, surplus = self._received.partition(b"\n")
            if len(line) > max_bytes:
                raise self._killed("output", f"a reply has more than {self._limits.output_bytes} bytes")
            if line_end and (unsent or not line.startswith(token)):
                raise self._killed("raised", NO_ANSWER)
            if line_end:
                case.poll.unregister(control)
                self._received = surplus
                return line[len(token) :].decode(errors="replace")
            if runner_has_ended and case.output not in ready:
                raise self._ended()
            if remaining_s <= 0:
                bounds = f"{self._limits.case_s:g} s for a message, {self._limits.program_s:g} s for all"
                raise self._killed("timeout", f"it used up its CPU time ({bounds}) or waited for too long")

    def _send(self, unsent: memoryview) -> memoryview:
        """Writes to the messages' pipe without waiting. Returns the bytes that remain."""
        try:
            unsent = unsent[os.write(self._messages, unsent[:CHUNK_BYTES]) :]
        except BrokenPipeError:  # the program closed its end, and will soon end too or use up its time
            self._case.poll.unregister(self._messages)
        if not unsent:
            self._case.poll.unregister(self._messages)
        return unsent

    def _killed(self, reason: Status, detail: str) -> SessionEnded:
        self._server.kill_runner()
        self._case.kill_reason = reason
        return self._ended(detail)

    def _ended(self, detail: str = "") -> SessionEnded:
        """Waits for the runner's end and ends the session."""
        exit_code, cpu_s = self._server.receive_report()
        if self._case.kill_reason == "timeout" and exit_code != -signal.SIGKILL:
            self._case.kill_reason, detail = None, ""  # it had ended by itself, and on a busy machine nobody noticed
        for descriptor in (self._server.control.fileno(), self._messages):
            with suppress(KeyError):
                self._case.poll.unregister(descriptor)
        self._case.finish(exit_code, cpu_s)
        outcome = self._case.outcome(b"")
        if outcome.status == "returned":
            outcome = replace(outcome, status="raised", detail=f"it ended without a reply\n{outcome.detail}".strip())
        elif detail:
            outcome = replace(outcome, detail=f"{detail}\n{outcome.detail}".strip())
        end = SessionEnded(outcome)
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
        self._case.close()
        os.close(self._messages)
