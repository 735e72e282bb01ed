"""The fork server: a small single-threaded process that forks a runner for each case and never sees a program.

The server runs as `python -I -S` with the standard library only. Until READY it imports a few C modules: `os`,
`signal`, `socket`, `struct` and `typing` would more than double a cold start.
"""

import _socket
import gc
import marshal
import posix
import sys
import time

# Sessions use the exchange, whose files they cannot read.
from rlframe.sandbox import event_loop, exchange_checker, exchange_program, exchange_tests, kernel, runner  # noqa: F401
from rlframe.sandbox.threads import Threads

READY = b"+"
CPU_CLOCK = 2  # see `Timer`
# Modules that programs and runners import often: imported once for all runners, after the server has sent READY.
PRELOAD = ("os", "select", "fcntl", "collections", "functools", "heapq", "json", "math", "numbers", "re")
PRELOAD += ("traceback", "typing")


def serve() -> None:
    """The server's whole life: takes two seccomp filters, the packages to preload and a Landlock ruleset from file
    descriptor 0, gives up its capabilities and all files outside the ruleset, sends READY, and forks a runner for each
    case (see `_report`). A message from the worker is the number of a runner to kill. The server ends when the worker
    closes the socket."""
    sys.dont_write_bytecode = True
    control = _socket.socket(fileno=posix.dup(0))
    dev_null = posix.open("/dev/null", posix.O_RDWR)
    posix.dup2(dev_null, 0)
    posix.dup2(dev_null, 1)
    posix.chdir("/")
    posix.umask(0o777)
    message, ancillary, _, _ = control.recvmsg(1 << 16, _socket.CMSG_SPACE(4))
    if not message:
        return
    [ruleset] = runner.received_descriptors(ancillary)
    _keep_listings()
    kernel.forbid_dump()  # for runners too: else a runner could open its server's and its successor's pipes in /proc
    kernel.drop_capabilities()
    kernel.restrict(ruleset)
    posix.close(ruleset)
    *filters, packages_folder, modules = marshal.loads(message)
    filter, notifier = map(kernel.Filter, filters)
    threads = Threads(notifier)
    control.send(READY)
    for name in PRELOAD:
        __import__(name)
    if packages_folder:
        sys.path.append(packages_folder)
    for name in modules:
        try:
            __import__(name)
        except BaseException:  # the worker lets a program import all modules, and reports its error
            continue
    if not kernel.has_one_thread():  # a fork copies one thread, but the locks of all
        posix.write(2, b"a package starts threads when it is imported: programs cannot have such packages")
        posix._exit(1)  # an ordinary end would wait for the threads
    event_loop.install()
    runner.prepare(dev_null)
    gc.collect()
    gc.freeze()  # a collection would write to every page, and each forked process would copy the page
    gc.disable()
    server, exit_code, cpu_us = posix.getpid(), 0, 0
    current = _Runner(dev_null, filter, server)
    while True:
        _report(control, exit_code, cpu_us, current)
        successor = _Runner(dev_null, filter, server)  # forked while a case runs, so that the next case need not wait
        if not _wait_for_end(control, threads, current):
            return
        exit_code, cpu_us = current.reap()
        current = successor


def _keep_listings() -> None:
    """Keeps the import system from listing the standard library's folder again. After the restriction its entries can
    be read, but the folder cannot be listed: it may hold folders of packages."""
    for finder in sys.path_importer_cache.values():
        if hasattr(finder, "_fill_cache"):
            finder.__dict__["_fill_cache"] = lambda: None


class _Runner:
    """A forked process that waits for a case, and the socket that the case is sent to."""

    def __init__(self, dev_null: int, filter: kernel.Filter, server: int) -> None:
        self.socket, runner_end = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self.pid = posix.fork()
        if self.pid == 0:
            self.socket.close()
            runner.wait(runner_end, dev_null, filter, server)
        self.pidfd = posix.pidfd_open(self.pid)
        runner_end.close()

    def reap(self) -> tuple[int, int]:
        """Exit code and CPU time in microseconds, all threads together, of a runner that has ended."""
        cpu_us = time.clock_gettime_ns((~self.pid << 3) | CPU_CLOCK) // 1000
        posix.close(self.pidfd)
        return posix.waitstatus_to_exitcode(posix.waitpid(self.pid, 0)[1]), cpu_us


def _report(control: _socket.socket, exit_code: int, cpu_us: int, runner: _Runner) -> None:
    """Sends the last runner's exit code and CPU time, and the next runner's number, socket and process descriptor."""
    descriptors = runner.socket.fileno().to_bytes(4, "little") + runner.pidfd.to_bytes(4, "little")
    rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptors)
    control.sendmsg([b"%d %d %d" % (exit_code, runner.pid, cpu_us)], [rights])
    runner.socket.close()


def _wait_for_end(control: _socket.socket, threads: Threads, runner: _Runner) -> bool:
    """Waits for a runner's end, bounds its threads, and kills the runner on request. False: the worker has gone."""
    import select

    poll = select.poll()
    threads.watch(runner.pid)
    for descriptor in (runner.pidfd, control.fileno(), threads.listener):
        poll.register(descriptor, select.POLLIN)
    while runner.pidfd not in (ready := dict(poll.poll())):
        if control.fileno() in ready:
            request = control.recv(16)
            if not request:
                return False  # the runners die with the server
            if int(request) == runner.pid:  # else the request came after that runner's end
                posix.kill(runner.pid, kernel.SIGKILL)
        elif threads.listener in ready:
            threads.answer()
    return True
