"""`Timer`: the time that a runner has used, by the kernel's own clocks, and the time that it may still use."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

CPU_CLOCK = 2  # CPUCLOCK_SCHED: all threads of a process (include/linux/posix-timers_types.h, clock_getcpuclockid(3))
# Wall seconds for each CPU second, waits for a core not counted: a program may sleep or wait for the disk for twice as
# long as it may compute. A busy node slows a program down without a change of its verdict.
WALL_PER_CPU = 3.0
UNREAD_S = 0.005  # by so much a restart may be late: most calls are shorter, and to read the runner's clock takes long


class Timer:
    """The clocks and the bounds of the runner that the process descriptor `pidfd` names: `total_s` CPU seconds in all,
    `cpu_s` of them at first and from each `restart(cpu_s)`, and of wall time the multiple `WALL_PER_CPU` of both."""

    def __init__(self, pidfd: int, total_s: float, cpu_s: float | None = None) -> None:
        cpu_s = total_s if cpu_s is None else min(cpu_s, total_s)
        self._pidfd, self._process = pidfd, 0  # the process number is read when it is needed
        self._total_s, self._core_waits_s = total_s, 0.0
        self._start_s = self._read_s = time.monotonic()
        self._cpu_s = 0.0  # at the time `_read_s`
        self._cpu_end_s, self._wall_end_s = cpu_s, self._start_s + WALL_PER_CPU * cpu_s

    def restart(self, cpu_s: float) -> None:
        """Allows `cpu_s` from now on, within the total."""
        now = time.monotonic()
        if now - self._read_s > UNREAD_S:
            self._read_cpu_clock()
        used_s = self._cpu_s + max(0.0, now - self._read_s)  # as if the runner had used all time since then
        self._cpu_end_s = min(used_s + cpu_s, self._total_s)
        total_end_s = self._start_s + WALL_PER_CPU * self._total_s + self._core_waits_s
        self._wall_end_s = min(now + WALL_PER_CPU * cpu_s, total_end_s)

    def leave_out(self, wall_s: float) -> None:
        """Extends the wall time in all by the seconds in which the runner waited for this process."""
        self._start_s += wall_s

    def remaining_s(self) -> float:
        """Seconds to the earlier of the CPU and wall deadlines, for a runner with one thread; 0 or less: exceeded."""
        now = time.monotonic()
        if self._cpu_s + now - self._read_s >= self._cpu_end_s:
            self._read_cpu_clock()
        if now >= self._wall_end_s:
            self._count_core_waits()
        return min(self._cpu_end_s - self._cpu_s - (now - self._read_s), self._wall_end_s - now)

    def is_exceeded(self, cpu_s: float) -> bool:
        """True where a runner that has ended, after `cpu_s`, used more than its total."""
        return cpu_s > self._total_s

    def used_s(self, cpu_s: float) -> float:
        """The share of `total_s` that an ended runner used: its CPU time, or more if it waited for long."""
        return max(cpu_s, (time.monotonic() - self._start_s - self._core_waits_s) / WALL_PER_CPU)

    def _read_cpu_clock(self) -> None:
        self._read_s = time.monotonic()
        with suppress(OSError, OverflowError):  # the runner has ended: the server reports its exact time
            if not self._process:
                # In a namespace of its own the runner has another number there.
                with open(f"/proc/self/fdinfo/{self._pidfd}", "rb", buffering=0) as file:
                    self._process = int(file.read().partition(b"\nPid:")[2].split()[0])
            self._cpu_s = cpu_seconds(self._process)

    def _count_core_waits(self) -> None:
        """Moves the wall deadline by the time that the runner was ready to run and had no core."""
        self._read_cpu_clock()
        with suppress(OSError):  # the runner has ended, or the kernel does not count
            core_waits_s = int(Path(f"/proc/{self._process}/schedstat").read_text().split()[1]) / 1e9
            self._wall_end_s += core_waits_s - self._core_waits_s
            self._core_waits_s = core_waits_s


def cpu_seconds(process: int) -> float:
    """CPU time of a running process, all threads together. Raises OSError."""
    return time.clock_gettime((~process << 3) | CPU_CLOCK)
