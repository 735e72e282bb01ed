"""`Timer`: the time that a runner has used, by the kernel's own clocks, and the time that it may still use."""

from __future__ import annotations

import time
from contextlib import suppress

CPU_CLOCK = 2  # CPUCLOCK_SCHED: all threads of a process, in nanoseconds (include/linux/posix-timers_types.h)
# Wall seconds for each CPU second, waits for a core not counted: a program may sleep or wait for the disk for twice as
# long as it may compute. A busy node slows a program down without a change of its verdict.
WALL_PER_CPU = 3.0


class Timer:
    """The clocks of a runner, named by its process number in the namespace of this process.

    A runner has `total_s` CPU seconds from its case's start, and `cpu_s` of them from each `restart(cpu_s)`. Wall time
    is bounded by the multiple `WALL_PER_CPU` of both.
    """

    def __init__(self, process: int, total_s: float) -> None:
        self._clock = (~process << 3) | CPU_CLOCK  # see clock_getcpuclockid(3)
        self._schedstat = f"/proc/{process}/schedstat"
        self._core_waits_s = 0.0  # as far as they are part of the deadlines
        self._start_wall_s = time.monotonic()
        self.start_cpu_s = self._last_cpu_s = 0.0
        self.start_cpu_s = self._cpu_s()
        self._total_cpu_s = self.start_cpu_s + total_s
        self._total_wall_s = self._start_wall_s + WALL_PER_CPU * total_s
        self.restart(total_s)

    def restart(self, cpu_s: float) -> None:
        """Allows `cpu_s` from now on, within the total."""
        self._end_cpu_s = min(self._cpu_s() + cpu_s, self._total_cpu_s)
        self._end_wall_s = min(time.monotonic() + WALL_PER_CPU * cpu_s, self._total_wall_s)

    def leave_out(self, wall_s: float) -> None:
        """Allows more wall time in all: the runner has waited for this process."""
        self._total_wall_s += wall_s

    def remaining_s(self) -> float:
        """The runner cannot use up its time sooner than in so many seconds, with one thread. 0 or less: used up."""
        if time.monotonic() >= self._end_wall_s:
            self._count_core_waits()
        return min(self._end_cpu_s - self._cpu_s(), self._end_wall_s - time.monotonic())

    def is_exceeded(self, cpu_s: float) -> bool:
        """True where an ended process, with so many CPU seconds in all, used more than `total_s`."""
        return cpu_s > self._total_cpu_s

    def used_s(self, cpu_s: float) -> float:
        """The case's share of `total_s`, from the process's CPU seconds at its end."""
        wall_s = time.monotonic() - self._start_wall_s - self._core_waits_s
        return max(cpu_s - self.start_cpu_s, wall_s / WALL_PER_CPU)

    def _cpu_s(self) -> float:
        with suppress(OSError):  # the process has ended: the server's report has its exact time
            self._last_cpu_s = time.clock_gettime(self._clock)
        return self._last_cpu_s

    def _count_core_waits(self) -> None:
        """Moves the wall deadlines by the time that the runner was ready to run and had no core."""
        try:
            with open(self._schedstat) as file:
                core_waits_s = int(file.read().split()[1]) / 1e9
        except OSError:  # the process has ended, or the kernel does not count
            return
        self._end_wall_s += core_waits_s - self._core_waits_s
        self._total_wall_s += core_waits_s - self._core_waits_s
        self._core_waits_s = core_waits_s
