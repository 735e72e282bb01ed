"""`Sandbox`: the trusted side, which starts a fork server at the strongest available level and sends programs to it."""

from __future__ import annotations

import marshal
import os
import signal
import socket
import subprocess
from collections.abc import Generator, Iterator
from contextlib import suppress

from rlframe.sandbox import execution, seccomp
from rlframe.sandbox.failures import SandboxFailed, SandboxUnavailable
from rlframe.sandbox.landlock import landlock_abi, read_only
from rlframe.sandbox.levels import ISOLATIONS, Isolation, command, package_folders, readable_paths
from rlframe.sandbox.packages import Packages
from rlframe.sandbox.program import Limits, Outcome, Program
from rlframe.sandbox.selftest import PROBES, SECRET
from rlframe.sandbox.session import Session

START_S = 30.0  # a start on a cold, busy disk; also bounds each wait for a message of the server
MAX_STDERR_BYTES = 1 << 16
# The server's whole environment: readable by any process of the same user. By default glibc reserves 64 MiB of address
# space for each thread, which would count against a program's memory limit.
ENVIRONMENT = {"MALLOC_ARENA_MAX": "1"}
# Packages of numerics start threads when they are imported, by default; a fork server must have one thread.
SINGLE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class Sandbox:
    """Runs programs, one at a time. Without the requested level of isolation no program runs.

    `packages`: what programs may import beside the standard library; `start()` installs them where they are missing.
    """

    def __init__(self, limits: Limits, min_isolation: Isolation, packages: Packages | None = None) -> None:
        self.limits = limits
        self.min_isolation = min_isolation
        self.packages = packages
        self.level: Isolation | None = None  # the server's level; None before the start
        self._server: _Server | None = None
        self._outcomes: Generator[Outcome, None, None] | None = None  # of the last program
        self._session: Session | None = None  # the open one: it alone uses the server

    def start(self) -> None:
        """Raises SandboxUnavailable, PackagesUnavailable."""
        if self._server is not None:
            return
        if self.packages is not None:
            self.packages.install()
        missing: list[str] = []
        if landlock_abi() < 1:
            missing.append(
                "landlock: the kernel has no Landlock (Linux 5.13, CONFIG_SECURITY_LANDLOCK, lsm=landlock,...)"
            )
        else:
            for level in reversed(ISOLATIONS[ISOLATIONS.index(self.min_isolation) :]):
                try:
                    self._server = _start_tested_server(level, self.packages)
                    self.level = level
                    return self._try_packages(self._server)
                except (OSError, SandboxFailed) as error:
                    missing.append(f"{level}: {error}")
        raise SandboxUnavailable(
            f"code is run at min_isolation={self.min_isolation} or not at all, and this machine gives less:\n  "
            + "\n  ".join(missing)
        )

    def _try_packages(self, server: _Server) -> None:
        if self.packages is None:
            return
        try:
            [outcome] = execution.run(
                server, Program(source=self.packages.probe(), function=None, inputs=[""]), self.limits
            )
            self.packages.check(outcome, self.limits.memory_mib)
        except BaseException:
            self.close()
            raise

    def run(self, program: Program) -> Iterator[Outcome]:
        """Yields an outcome for each input, as soon as it is known. The program ends at the latest when the iterator is
        closed or another program starts.

        Raises SandboxUnavailable. The iterator raises SandboxFailed where the sandbox broke, and the next call starts
        another server.
        """
        self._start_free()
        assert self._server is not None
        self._outcomes = self._run(self._server, program)
        return self._outcomes

    def _run(self, server: _Server, program: Program) -> Generator[Outcome, None, None]:
        try:
            yield from execution.run(server, program, self.limits)
        except GeneratorExit:
            raise
        except BaseException as error:  # broken or interrupted: the server's next message would be about this program
            stderr = self.close() if self._server is server else server.kill()
            if isinstance(error, SandboxFailed):
                raise SandboxFailed(f"{error}\n{stderr}".rstrip()) from error
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
        if self._outcomes is not None:
            with suppress(SandboxFailed):
                self._outcomes.close()
        self.start()


class _Server:
    """A fork server's process and the socket to it."""

    def __init__(self, level: Isolation, packages: Packages | None = None) -> None:
        folder = str(packages.folder) if packages else None
        self.control, server_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(START_S)
        self._runner: socket.socket | None = None  # to the runner that takes the next case
        self._runner_number = 0  # its process number in the server's namespace
        self._pidfd = -1
        with server_end:
            self._process = subprocess.Popen(
                command(level, folder),
                stdin=server_end.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=ENVIRONMENT | (SINGLE_THREAD if packages else {}),
                cwd="/",
                start_new_session=True,  # a new process group, which a single signal kills
            )
        try:
            ruleset = read_only(readable_paths(folder))  # while the interpreter starts
            try:
                modules = packages.modules() if packages else []
                setup = (seccomp.build(), seccomp.build_notifier(), folder, modules)
                socket.send_fds(self.control, [marshal.dumps(setup)], [ruleset])
            finally:
                os.close(ruleset)
            ready = self.control.recv(1)
        except OSError as error:
            raise SandboxFailed(f"its server did not start: {error}\n{self.kill()}".rstrip()) from error
        if not ready:
            raise SandboxFailed(f"its server did not start: {self.kill()}")

    def start_runner(self, bounds: bytes, descriptors: list[int]) -> int:
        """Sends a case to the runner that waits (see `runner.wait`). Returns the runner's process descriptor, which is
        valid until the next report. Raises EOFError or OSError where the server broke."""
        if self._runner is None:
            self.receive_report()
        assert self._runner is not None
        with self._runner as runner:
            socket.send_fds(runner, [bounds], descriptors)
        return self._pidfd

    def kill_runner(self) -> None:
        """Asks the server to kill the runner, unless it has ended."""
        self.control.send(b"%d" % self._runner_number)

    def receive_report(self) -> tuple[int, float]:
        """Waits for the runner's end and stores the next runner. Returns exit code and CPU seconds of the ended one;
        before the first case, 0 and 0."""
        message, descriptors, _, _ = socket.recv_fds(self.control, 64, 2)
        if not descriptors:
            raise EOFError("the server ended")
        self._close_runner()
        exit_code, self._runner_number, cpu_us = map(int, message.split())
        self._runner, self._pidfd = socket.socket(fileno=descriptors[0]), descriptors[1]
        return exit_code, cpu_us / 1e6

    def _close_runner(self) -> None:
        if self._runner is not None:
            self._runner.close()
            os.close(self._pidfd)

    def kill(self) -> str:
        """Kills the server and all runners. Returns the server's stderr."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.control.close()
        self._close_runner()
        self._runner = None
        assert self._process.stderr is not None
        with self._process.stderr as stderr:
            os.set_blocking(stderr.fileno(), False)  # a process outside the group may still hold the pipe open
            return (stderr.read(MAX_STDERR_BYTES) or b"").decode(errors="replace").strip()


def _start_tested_server(level: Isolation, packages: Packages | None = None) -> _Server:
    """Starts a server and runs the self-test in it. Raises OSError or SandboxFailed."""
    os.environ.setdefault(SECRET, "the parent's")  # before the start: the self-test looks for it in the server
    server = _Server(level, packages)
    probes = Program(source=PROBES, function=None, inputs=[f"{os.getpid()}\n{os.pathsep.join(package_folders())}"])
    limits = Limits(case_s=START_S, program_s=START_S, memory_mib=4096, output_bytes=4096)
    try:
        [outcome] = execution.run(server, probes, limits)
    except SandboxFailed as error:
        raise SandboxFailed(f"{error}\n{server.kill()}".rstrip()) from error
    answer = outcome.output.decode(errors="replace").strip()
    if outcome.status != "returned" or answer != "closed":
        server.kill()
        raise SandboxFailed(f"its self-test found it {answer or outcome.status}: {outcome.detail}")
    return server
