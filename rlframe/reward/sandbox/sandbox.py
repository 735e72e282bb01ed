"""`Sandbox`: the trusted end. Starts a fork server at the strongest level there is, and hands programs to it."""

from __future__ import annotations

import marshal
import os
import signal
import socket
import struct
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import asdict

from rlframe.reward.sandbox.kernel import landlock_abi
from rlframe.reward.sandbox.levels import ISOLATIONS, Isolation, command
from rlframe.reward.sandbox.program import STATUSES, Limits, Outcome, Program
from rlframe.reward.sandbox.selftest import PROBES, SECRET

START_S = 30.0  # on a cold, busy disk
GRACE_S = 10.0  # beyond a program's own time, for forks and kills on a busy machine
HEADER = struct.Struct("!BII")  # status, length of the output, length of the detail
MAX_DETAIL = 1 << 16


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
            said = self._server.kill()
            self._server = None
            raise SandboxFailed(f"{error}\n{said}".rstrip()) from error

    def close(self) -> None:
        """Ends the server and whatever it has forked."""
        if self._server is not None:
            self._server.kill()
            self._server = None


class _Server:
    """A fork server's process and the socket to it."""

    def __init__(self, level: Isolation) -> None:
        self._control, theirs = socket.socketpair()
        self._control.settimeout(START_S)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # its stderr
        with theirs:
            self._process = subprocess.Popen(
                command(level),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=self._said,
                env={},  # an environment can be read by whoever runs as the same user
                cwd="/",
                start_new_session=True,  # a process group that is killed whole
            )
        try:
            ready = self._control.recv(1)
        except TimeoutError:
            ready = b""
        if not ready:
            raise SandboxFailed(f"its server did not start: {self.kill() or f'no word in {START_S:g} s'}")

    def run(self, program: Program, limits: Limits) -> list[Outcome]:
        """Raises SandboxFailed."""
        ours, theirs = socket.socketpair()
        job = marshal.dumps(asdict(limits) | asdict(program))
        with ours:
            try:
                with theirs:
                    socket.send_fds(self._control, [b"+"], [theirs.fileno()])
                ours.settimeout(limits.program_s + GRACE_S)
                ours.sendall(struct.pack("!Q", len(job)) + job)
                return [_outcome(ours, limits.output_bytes) for _ in program.inputs]
            except (OSError, EOFError, ValueError) as error:
                raise SandboxFailed(f"{type(error).__name__}: {error}") from error

    def kill(self) -> str:
        """Ends everything; what it had said on stderr."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._control.close()
        self._said.seek(0)
        said = self._said.read(MAX_DETAIL).decode(errors="replace").strip()
        self._said.close()
        return said


def _tested(level: Isolation) -> _Server:
    """A server that has shown that it computes and that nothing gets out. Raises OSError or SandboxFailed."""
    server = _Server(level)
    os.environ.setdefault(SECRET, "the parent's")
    probes = Program(source=PROBES, function=None, inputs=[str(os.getpid())])
    limits = Limits(case_s=START_S, program_s=START_S, memory_mib=256, output_bytes=4096)
    outcome = server.run(probes, limits)[0]
    said = outcome.output.decode(errors="replace").strip()
    if outcome.status != "returned" or said != "closed":
        server.kill()
        raise SandboxFailed(f"its self-test found it {said or outcome.status}: {outcome.detail}")
    return server


def _outcome(ours: socket.socket, output_bytes: int) -> Outcome:
    code, size, about = HEADER.unpack(_read(ours, HEADER.size))
    if code >= len(STATUSES) or about > MAX_DETAIL:
        raise ValueError("an outcome that no supervisor sends")
    output, detail = _read(ours, size), _read(ours, about)
    return Outcome(
        status=STATUSES[code], output=output[: output_bytes + 1], detail=detail.decode(errors="replace").strip()
    )


def _read(ours: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = ours.recv(min(1 << 20, size - len(data)))
        if not piece:
            raise EOFError("the program's supervisor ended without an answer")
        data += piece
    return bytes(data)
