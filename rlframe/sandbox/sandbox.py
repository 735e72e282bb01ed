"""`Sandbox`: the trusted side, which starts a fork server at the strongest available level and sends programs to it."""

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
from rlframe.sandbox.failures import SandboxFailed, SandboxUnavailable
from rlframe.sandbox.landlock import landlock_abi, read_only
from rlframe.sandbox.levels import ISOLATIONS, Isolation, command, readable_paths
from rlframe.sandbox.program import Limits, Outcome, Program
from rlframe.sandbox.selftest import PROBES, SECRET
from rlframe.sandbox.session import Session

START_S = 30.0  # a start on a cold, busy disk; also bounds each wait for a message of the server
MAX_STDERR_BYTES = 1 << 16
# The server's whole environment: readable by any process of the same user. By default glibc reserves 64 MiB of address
# space for each thread, which would count against a program's memory limit.
ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}


class Sandbox:
    """Runs programs, one at a time. Without the requested level of isolation no program runs."""

    def __init__(self, limits: Limits, min_isolation: Isolation) -> None:
        self.limits = limits
        self.min_isolation = min_isolation
        self.level: Isolation | None = None  # the server's level; None before the start
        self._server: _Server | None = None
        self._session: Session | None = None  # the open one: it alone uses the server

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
                    self._server = _start_tested_server(level)
                    self.level = level
                    return
                except (OSError, SandboxFailed) as error:
                    missing.append(f"{level}: {error}")
        raise SandboxUnavailable(
            f"code is run at min_isolation={self.min_isolation} or not at all, and this machine gives less:\n  "
            + "\n  ".join(missing)
        )

    def run(self, program: Program) -> list[Outcome]:
        """Returns an outcome for each input. Raises SandboxUnavailable, and SandboxFailed where the server broke; the
        next call starts another server."""
        self._start_free()
        assert self._server is not None
        try:
            return self._server.run(program, self.limits)
        except SandboxFailed as error:
            raise SandboxFailed(f"{error}\n{self.close()}".rstrip()) from error
        except BaseException:  # interrupted: the server's next message would be about the abandoned case
            self.close()
            raise

    def session(self, source: str, max_asks: int) -> Session:
        """Starts a program that replies to messages (see `Session`). Until the session is closed the sandbox runs
        nothing else. Raises SandboxUnavailable, SandboxFailed."""
        self._start_free()
        self._session = Session(self, source, max_asks)
        return self._session

    def release(self, session: Session) -> None:
        """A session calls this at its end."""
        if self._session is session:
            self._session = None

    def close(self) -> str:
        """Kills the server and all runners, and ends an open session. Returns the server's stderr."""
        if self._session is not None:
            self._session.abandon(SandboxFailed("the sandbox was closed"))
        server, self._server = self._server, None
        return server.kill() if server is not None else ""

    def _start_free(self) -> None:
        if self._session is not None:
            raise RuntimeError("the sandbox has an open session: close it, or use another Sandbox")
        self.start()


class _Server:
    """A fork server's process and the socket to it."""

    def __init__(self, level: Isolation) -> None:
        self.control, server_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(START_S)
        self._runner: socket.socket | None = None  # to the runner that takes the next case
        self._runner_number = 0  # its process number in the server's namespace
        with server_end:
            self._process = subprocess.Popen(
                command(level),
                stdin=server_end.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=ENVIRONMENT,
                cwd="/",
                start_new_session=True,  # a new process group, which a single signal kills
            )
        try:
            ruleset = read_only(readable_paths())  # while the interpreter starts
            try:
                filters = seccomp.build(), seccomp.build_notifier()
                socket.send_fds(self.control, [marshal.dumps(filters)], [ruleset])
            finally:
                os.close(ruleset)
            ready = self.control.recv(1)
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
                return self._run_calls(len(program.inputs), job, limits, deadline)
            outcomes: list[Outcome] = []
            for text in program.inputs:
                case_s = min(limits.case_s, deadline - time.monotonic())
                if case_s <= 0 or (outcomes and outcomes[-1].status in ("timeout", "skipped")):
                    outcomes.append(_skipped("the program had used up its time"))
                else:
                    outcomes.append(self._run_script(text, job, limits, case_s))
            return outcomes
        except (OSError, EOFError, ValueError) as error:
            raise SandboxFailed(f"{type(error).__name__}: {error}") from error
        finally:
            os.close(job)

    def _run_script(self, text: str, job: int, limits: Limits, case_s: float) -> Outcome:
        stdin = memory_file(text.encode(errors="surrogatepass"))
        try:
            return self._run_case(job, stdin, limits, case_s)
        finally:
            os.close(stdin)

    def _run_calls(self, count: int, job: int, limits: Limits, deadline: float) -> list[Outcome]:
        """Runs all calls of a function in one runner, which writes a line for each result."""
        outcome = self._run_case(job, None, limits, limits.case_s, count, deadline)
        *lines, _ = outcome.output.split(b"\n")
        if len(lines) > count:
            return [Outcome(status="raised", output=b"", detail="it wrote more results than it was asked for")] * count
        max_bytes = limits.output_bytes
        outcomes = [
            Outcome(status="returned" if len(line) <= max_bytes else "output", output=line[: max_bytes + 1], detail="")
            for line in lines
        ]
        if len(outcomes) < count:
            status = "raised" if outcome.status == "returned" else outcome.status
            detail = outcome.detail or "it ended before its result"
            outcomes.append(Outcome(status=status, output=b"", detail=detail))
        return outcomes + [_skipped("an earlier case ended the program")] * (count - len(outcomes))

    def _run_case(
        self, job: int, stdin: int | None, limits: Limits, case_s: float, calls: int = 1, deadline: float | None = None
    ) -> Outcome:
        """Runs a case to the runner's end. Raises OSError, EOFError or ValueError where the server broke."""
        seconds = math.ceil(limits.case_s if stdin is not None else limits.program_s) + 1
        memory = limits.memory_mib << 20
        bounds = struct.pack("4Q", seconds, seconds, memory, memory)  # two `struct rlimit`, each soft and hard
        case = Case(limits.output_bytes * calls)
        try:
            self.start_runner(bounds, case.descriptors(job, stdin))
            case.close_writers()
            kill_reason = case.read_until_end(self.control.fileno(), case_s, deadline)
            if kill_reason:
                self.kill_runner()
            exit_code = self.receive_report()
            case.drain()
            return case.outcome(kill_reason, exit_code)
        except EOFError as error:
            case.drain()
            raise EOFError(f"{error}\n{case.stderr()}".rstrip()) from error
        finally:
            case.close()

    def start_runner(self, bounds: bytes, descriptors: list[int]) -> None:
        """Sends a case to the runner that waits (see `runner.wait`). Raises OSError or EOFError."""
        if self._runner is None:
            self.receive_report()
        assert self._runner is not None
        with self._runner as runner:
            socket.send_fds(runner, [bounds], descriptors)

    def kill_runner(self) -> None:
        """Asks the server to kill the runner that has a case; the report of its end follows."""
        self.control.send(b"%d" % self._runner_number)

    def receive_report(self) -> int:
        """Stores the next runner. Returns the last runner's exit code, or 0 before the first case."""
        message, descriptors, _, _ = socket.recv_fds(self.control, 64, 1)
        if not descriptors:
            raise EOFError("the server ended")
        exit_code, self._runner_number = map(int, message.split())
        self._runner = socket.socket(fileno=descriptors[0])
        return exit_code

    def kill(self) -> str:
        """Kills the server and all runners. Returns the server's stderr."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.control.close()
        if self._runner is not None:
            self._runner.close()
        assert self._process.stderr is not None
        with self._process.stderr as stderr:
            os.set_blocking(stderr.fileno(), False)  # a process outside the group may still hold the pipe open
            return (stderr.read(MAX_STDERR_BYTES) or b"").decode(errors="replace").strip()


def _start_tested_server(level: Isolation) -> _Server:
    """Starts a server and runs the self-test in it. Raises OSError or SandboxFailed."""
    os.environ.setdefault(SECRET, "the parent's")  # before the start: the self-test looks for it in the server
    server = _Server(level)
    probes = Program(source=PROBES, function=None, inputs=[str(os.getpid())])
    limits = Limits(case_s=START_S, program_s=START_S, memory_mib=256, output_bytes=4096)
    try:
        outcome = server.run(probes, limits)[0]
    except SandboxFailed as error:
        raise SandboxFailed(f"{error}\n{server.kill()}".rstrip()) from error
    answer = outcome.output.decode(errors="replace").strip()
    if outcome.status != "returned" or answer != "closed":
        server.kill()
        raise SandboxFailed(f"its self-test found it {answer or outcome.status}: {outcome.detail}")
    return server


def _skipped(detail: str) -> Outcome:
    return Outcome(status="skipped", output=b"", detail=detail)
