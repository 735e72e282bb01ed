"""The fork server: a small single-threaded process that knows nothing, forks for every case, and learns nothing.

Only the standard library, as it is started as `python -I -S`, and of that as little as will do until it is ready: `os`,
`signal`, `socket`, `struct` and `typing` would more than double a cold start.
"""

import _socket
import gc
import marshal
import posix
import sys

from rlframe.sandbox import kernel, runner
from rlframe.sandbox.threads import Threads

READY = b"+"
SIGKILL = 9
# What programs and runners import most: once for all of them, while nothing is asked for yet.
COMMON = ("os", "select", "fcntl", "collections", "functools", "heapq", "json", "math", "re", "traceback", "typing")


def serve() -> None:
    """Takes two filters and a Landlock ruleset from file descriptor 0, gives up all files outside that and all
    capabilities, and says READY. Then it forks a runner for every case until the other end closes: see `_tell` for what
    it says. What it is told is the number of a runner that it must kill."""
    sys.dont_write_bytecode = True
    control = _socket.socket(fileno=posix.dup(0))
    nothing = posix.open("/dev/null", posix.O_RDWR)
    posix.dup2(nothing, 0)
    posix.dup2(nothing, 1)
    posix.chdir("/")
    posix.umask(0o777)
    message, extra, _, _ = control.recvmsg(1 << 16, _socket.CMSG_SPACE(4))
    if not message:
        return
    [ruleset] = runner.descriptors(extra)
    kernel.drop_capabilities()
    kernel.restrict(ruleset)
    posix.close(ruleset)
    filter, asks = map(kernel.Filter, marshal.loads(message))
    threads = Threads(asks)
    control.send(READY)
    for name in COMMON:
        __import__(name)
    runner.make_ready()
    gc.collect()
    gc.freeze()  # a collection would write to every page, and each process that is forked would copy it
    gc.disable()
    server, status = posix.getpid(), 0
    standing = _Runner(nothing, filter, server)
    while True:
        _tell(control, status, standing)
        coming = _Runner(nothing, filter, server)  # while a case runs, so that the next one waits for no fork
        if not _ended(control, threads, standing.pid):
            return
        status = posix.waitstatus_to_exitcode(posix.waitpid(standing.pid, 0)[1])
        standing = coming


class _Runner:
    """A process that waits for a case, and the socket to ask it by."""

    def __init__(self, nothing: int, filter: kernel.Filter, server: int) -> None:
        self.asks, asked = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self.pid = posix.fork()
        if self.pid == 0:
            self.asks.close()
            runner.wait(asked, nothing, filter, server)
        asked.close()


def _tell(control: _socket.socket, status: int, standing: _Runner) -> None:
    """How the last runner ended, the next one's number, and with them the socket to that one."""
    rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, standing.asks.fileno().to_bytes(4, "little"))
    control.sendmsg([b"%d %d" % (status, standing.pid)], [rights])
    standing.asks.close()


def _ended(control: _socket.socket, threads: Threads, pid: int) -> bool:
    """Waits for a runner's end, bounds its threads, and kills it where its number is told; whether anybody still wants
    to know."""
    import select

    ended = posix.pidfd_open(pid)
    poll = select.poll()
    threads.begin(pid)
    for descriptor in (ended, control.fileno(), threads.listener):
        poll.register(descriptor, select.POLLIN)
    while ended not in (ready := dict(poll.poll())):
        if control.fileno() in ready:
            order = control.recv(16)
            if not order:
                return False  # runners die with their parent
            if int(order) == pid:  # else of one that had ended by then
                posix.kill(pid, SIGKILL)
        elif threads.listener in ready:
            threads.answer()
    posix.close(ended)
    return True
