"""Bounds the threads of a case. The kernel asks the fork server before a thread starts, and reports before it ends.

Other limits do not bound threads. RLIMIT_NPROC counts all threads of a user and does not bind root; the address space
does not help either, because a thread needs no stack of its own. See seccomp_unotify(2).
"""

import errno

from rlframe.sandbox import kernel

MAX_THREADS = 64  # beside the main thread: twice the default of concurrent.futures on a big machine

# include/uapi/linux/seccomp.h: struct seccomp_notif has 80 bytes, struct seccomp_notif_resp has 24.
RECEIVE, SEND = 0xC0502100, 0xC0182101
NOTIFICATION_BYTES, CONTINUE = 80, 1
ID, THREAD, NUMBER = slice(0, 8), slice(8, 12), slice(16, 20)


class Threads:
    """Counts the threads of the runner that has a case."""

    def __init__(self, notifier: kernel.Filter) -> None:
        """Installs the seccomp filter that notifies, in this process and its future children. Raises OSError."""
        self.listener = notifier.install_listener()
        self.watch(0)

    def watch(self, runner: int) -> None:
        """Starts to count the threads of another runner."""
        self.runner, self.alive = runner, 0
        self.ending: set[int] = set()  # threads that may still exist for long: the kernel first reads their memory

    def answer(self) -> None:
        """Lets a thread start or end, or refuses a start. Call this when `listener` is readable.

        The requesting thread is stopped and its arguments are in registers, so nothing changes after the check. A
        thread that is killed meanwhile needs no answer (FileNotFoundError).
        """
        import fcntl

        request = bytearray(NOTIFICATION_BYTES)
        try:
            fcntl.ioctl(self.listener, RECEIVE, request)
            starts = int.from_bytes(request[NUMBER], "little") != kernel.EXIT
            refused = starts and self._limit_is_reached()
            error, flags = (-errno.EAGAIN, 0) if refused else (0, CONTINUE)
            reply = request[ID] + bytes(8) + error.to_bytes(4, "little", signed=True) + flags.to_bytes(4, "little")
            fcntl.ioctl(self.listener, SEND, reply)
        except FileNotFoundError:
            return
        if starts and not refused:
            self.alive += 1
        elif not starts:
            self.ending.add(int.from_bytes(request[THREAD], "little"))

    def _limit_is_reached(self) -> bool:
        if self.alive >= MAX_THREADS:
            ended = {thread for thread in self.ending if not kernel.thread_exists(self.runner, thread)}
            self.ending -= ended
            self.alive -= len(ended)
        return self.alive >= MAX_THREADS
