"""Bounds the threads of a case: the kernel asks here before it makes one, and tells when one ends.

Neither RLIMIT_NPROC, which counts what a user has anywhere and does not bind root, nor the address space bounds them: a
thread needs no stack of its own. See seccomp_unotify(2).
"""

import errno

from rlframe.sandbox import kernel

MOST = 64  # beside the first: twice what concurrent.futures makes by default on a big machine

# include/uapi/linux/seccomp.h, for struct seccomp_notif of 80 bytes and struct seccomp_notif_resp of 24
RECEIVE, SEND = 0xC0502100, 0xC0182101
NOTIFICATION, CONTINUE = 80, 1
ID, THREAD, NUMBER = slice(0, 8), slice(8, 12), slice(16, 20)


class Threads:
    """Those that the runner has whose turn it is."""

    def __init__(self, filter: kernel.Filter) -> None:
        """Installs the filter that asks, in this process and those that it forks. Raises OSError."""
        self.listener = filter.listen()
        self.begin(0)

    def begin(self, process: int) -> None:
        """It is the turn of this runner."""
        self.process, self.alive = process, 0
        self.ending: set[int] = set()  # have said so and may take their time: the kernel reads memory of theirs

    def answer(self) -> None:
        """Lets a thread be made or end, or refuses to make one; to be called when `listener` can be read.

        The thread that asks stands still, and what it asks for lies in its registers: it changes nothing after this
        has looked. One that is killed meanwhile has no more interest in an answer.
        """
        import fcntl

        request = bytearray(NOTIFICATION)
        try:
            fcntl.ioctl(self.listener, RECEIVE, request)
            starts = int.from_bytes(request[NUMBER], "little") != kernel.EXIT
            refused = starts and self._many()
            error, flags = (-errno.EAGAIN, 0) if refused else (0, CONTINUE)
            reply = request[ID] + bytes(8) + error.to_bytes(4, "little", signed=True) + flags.to_bytes(4, "little")
            fcntl.ioctl(self.listener, SEND, reply)
        except FileNotFoundError:
            return
        if starts and not refused:
            self.alive += 1
        elif not starts:
            self.ending.add(int.from_bytes(request[THREAD], "little"))

    def _many(self) -> bool:
        if self.alive >= MOST:
            gone = {thread for thread in self.ending if not kernel.is_there(self.process, thread)}
            self.ending -= gone
            self.alive -= len(gone)
        return self.alive >= MOST
