"""`Sandbox`: the trusted end. Starts a fork server at the strongest level there is, and hands programs to it."""

from __future__ import annotations

import marshal
import math
import os
import signal
import socket
import struct
import subprocess
import time
from contextlib import suppress

from rlframe.sandbox import seccomp
from rlframe.sandbox.case import Case, memory_file
from rlframe.sandbox.landlock import landlock_abi, read_only
from rlframe.sandbox.levels import ISOLATIONS, Isolation, command, readable
from rlframe.sandbox.program import Limits, Outcome, Program
from rlframe.sandbox.selftest import PROBES, SECRET

START_S = 30.0  # on a cold, busy disk; also from a runner's end to word of it
MAX_DETAIL = 1 << 16
# All there is: an environment can be read by whoever runs as the same user. glibc would take 64 MiB of a program's
# address space for every thread.
ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}


class SandboxUnavailable(RuntimeError):
    """This machine cannot isolate as asked; the message says what is missing for each level. Nothing was run."""


class SandboxFailed(RuntimeError):
    """The sandbox itself broke under a program: the program has no verdict."""


class Sandbox:
    """Runs programs one at a time. Fails closed: without the floor, or the level asked for, it runs nothing."""

    def __init__(self, limits: Limits, min_isolation: Isolation) -> None:
        self.limits = limits
        self.min_isolation = min_isolation
        self.level: Isolation | None = None  # that was reached
        self._server: _Server | None = None

    def start(self) -> None:
        """Raises SandboxUnavailable."""
        if self._server is not None:
            return
        missing: list[str] = []
        if landlock_abi() < 1:
            missing.append(
                "landlock: the kernel has no Landlock (Linux 5.13, CONFIG_SECURITY_LANDLOCK, lsm=landlock,...)"
            )
        else:
            for level in reversed(ISOLATIONS[ISOLATIONS.index(self.min_isolation) :]):
                try:
                    self._server = _tested(level)
                    self.level = level
                    return
                except (OSError, SandboxFailed) as error:
                    missing.append(f"{level}: {error}")
        raise SandboxUnavailable(
            f"code is run at min_isolation={self.min_isolation} or not at all, and this machine gives less:\n  "
            + "\n  ".join(missing)
        )

    def run(self, program: Program) -> list[Outcome]:
        """One outcome for each input. Raises SandboxUnavailable, and SandboxFailed where a server broke; a call after
        that starts another."""
        self.start()
        assert self._server is not None
        try:
            return self._server.run(program, self.limits)
        except SandboxFailed as error:
            raise SandboxFailed(f"{error}\n{self.close()}".rstrip()) from error
        except BaseException:  # an interrupt: what the server says next is of the case that was left
            self.close()
            raise

    def close(self) -> str:
        """Ends the server and whatever it has forked; what it had to complain of."""
        server, self._server = self._server, None
        return server.kill() if server is not None else ""


class _Server:
    """A fork server's process and the socket to it."""

    def __init__(self, level: Isolation) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(START_S)
        self._standing: socket.socket | None = None  # to the runner that takes the next case
        self._number = 0  # of that runner, as the server knows it
        with theirs:
            self._process = subprocess.Popen(
                command(level),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=ENVIRONMENT,
                cwd="/",
                start_new_session=True,  # a process group that is killed whole
            )
        try:
            ruleset = read_only(readable())  # while the interpreter starts
            try:
                socket.send_fds(self._control, [marshal.dumps((seccomp.build(), seccomp.asking()))], [ruleset])
            finally:
                os.close(ruleset)
            ready = self._control.recv(1)
        except OSError as error:
            raise SandboxFailed(f"its server did not start: {error}\n{self.kill()}".rstrip()) from error
        if not ready:
            raise SandboxFailed(f"its server did not start: {self.kill()}")

    def run(self, program: Program, limits: Limits) -> list[Outcome]:
        """Raises SandboxFailed."""
        deadline = time.monotonic() + limits.program_s
        job = memory_file(marshal.dumps((program.source, program.function, program.inputs if program.function else [])))
        try:
            if program.function is not None:
                return self._calls(len(program.inputs), job, limits, deadline)
            outcomes: list[Outcome] = []
            for text in program.inputs:
                left = min(limits.case_s, deadline - time.monotonic())
                if left <= 0 or (outcomes and outcomes[-1].status in ("timeout", "skipped")):
                    outcomes.append(_skipped("the program had used up its time"))
                else:
                    outcomes.append(self._script(text, job, limits, left))
            return outcomes
        except (OSError, EOFError, ValueError) as error:
            raise SandboxFailed(f"{type(error).__name__}: {error}") from error
        finally:
            os.close(job)

    def _script(self, text: str, job: int, limits: Limits, case_s: float) -> Outcome:
        stdin = memory_file(text.encode(errors="surrogatepass"))
        try:
            return self._case(job, stdin, limits, case_s)
        finally:
            os.close(stdin)

    def _calls(self, count: int, job: int, limits: Limits, deadline: float) -> list[Outcome]:
        """All calls in one process, a result a line; a case ends where its line does."""
        end = self._case(job, None, limits, limits.case_s, count, deadline)
        *lines, _ = end.output.split(b"\n")
        if len(lines) > count:
            return [Outcome(status="raised", output=b"", detail="it wrote more results than it was asked for")] * count
        most = limits.output_bytes
        outcomes = [
            Outcome(status="returned" if len(line) <= most else "output", output=line[: most + 1], detail="")
            for line in lines
        ]
        if len(outcomes) < count:
            status = "raised" if end.status == "returned" else end.status
            outcomes.append(Outcome(status=status, output=b"", detail=end.detail or "it ended before its result"))
        return outcomes + [_skipped("an earlier case ended the program")] * (count - len(outcomes))

    def _case(
        self, job: int, stdin: int | None, limits: Limits, case_s: float, calls: int = 1, latest: float | None = None
    ) -> Outcome:
        """One runner from its first word to its end. Raises OSError, EOFError or ValueError where the server broke."""
        seconds = math.ceil(limits.case_s if stdin is not None else limits.program_s) + 1
        memory = limits.memory_mib << 20
        bounds = struct.pack("4Q", seconds, seconds, memory, memory)  # two of struct rlimit, soft and hard
        case = Case(limits.output_bytes * calls)
        try:
            if self._standing is None:
                self._next()
            assert self._standing is not None
            with self._standing as asked:
                case.hand_over(asked, bounds, job, stdin)
            forced = case.until_its_end(self._control.fileno(), case_s, latest)
            if forced:
                self._control.send(b"%d" % self._number)
            exit_code = self._next()
            case.drain()
            return case.outcome(forced, exit_code)
        except EOFError as error:
            case.drain()
            raise EOFError(f"{error}\n{case.complaint()}".rstrip()) from error
        finally:
            case.close()

    def _next(self) -> int:
        """Hears how the last runner ended (0: there was none), and who takes the next case."""
        message, descriptors, _, _ = socket.recv_fds(self._control, 64, 1)
        if not descriptors:
            raise EOFError("the server ended")
        exit_code, self._number = map(int, message.split())
        self._standing = socket.socket(fileno=descriptors[0])
        return exit_code

    def kill(self) -> str:
        """Ends everything; what it had said on stderr."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._control.close()
        if self._standing is not None:
            self._standing.close()
        assert self._process.stderr is not None
        with self._process.stderr as said:
            os.set_blocking(said.fileno(), False)  # a process of another group might have its other end
            return (said.read(MAX_DETAIL) or b"").decode(errors="replace").strip()


def _tested(level: Isolation) -> _Server:
    """A server that has shown that it computes and that nothing gets out. Raises OSError or SandboxFailed."""
    server = _Server(level)
    os.environ.setdefault(SECRET, "the parent's")
    probes = Program(source=PROBES, function=None, inputs=[str(os.getpid())])
    limits = Limits(case_s=START_S, program_s=START_S, memory_mib=256, output_bytes=4096)
    try:
        outcome = server.run(probes, limits)[0]
    except SandboxFailed as error:
        raise SandboxFailed(f"{error}\n{server.kill()}".rstrip()) from error
    said = outcome.output.decode(errors="replace").strip()
    if outcome.status != "returned" or said != "closed":
        server.kill()
        raise SandboxFailed(f"its self-test found it {said or outcome.status}: {outcome.detail}")
    return server


def _skipped(detail: str) -> Outcome:
    return Outcome(status="skipped", output=b"", detail=detail)
