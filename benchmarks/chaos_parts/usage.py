"""`Usage`: memory, descriptors and threads of a run's processes over time, and whether they stay flat."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import psutil

MIB = 1 << 20
EVERY_S = 5.0
LEAST_S = 240.0  # of a process's life, for a verdict on it
WARM_UP = 0.4  # share of a life that no verdict considers
FIGURES = ("memory MiB", "descriptors", "threads", "shared MiB")
# Growth a minute beyond which a process is said to leak. A chaos run has some five faults a minute.
BOUNDS = {"memory MiB": 6.0, "descriptors": 2.5, "threads": 1.5, "shared MiB": 10.0}


@dataclass(slots=True, kw_only=True)
class Series:
    """A process's figures."""

    role: str  # "driver", "episodes-1", ...
    life: int
    times: list[float] = field(default_factory=list)
    rows: list[tuple[float, ...]] = field(default_factory=list)  # a value for each of FIGURES

    @property
    def seconds(self) -> float:
        return self.times[-1] - self.times[0] if self.times else 0.0

    def slopes(self) -> dict[str, float]:
        """Growth a minute after the warm-up: Theil and Sen's median of slopes, which single jumps do not move."""
        start = self.times[0] + WARM_UP * self.seconds
        chosen = [(time, row) for time, row in zip(self.times, self.rows, strict=True) if time >= start]
        times = np.array([time for time, _ in chosen]) / 60
        values = np.array([row for _, row in chosen])
        first, second = np.triu_indices(len(times), k=1)
        rises = (values[second] - values[first]) / (times[second] - times[first])[:, None]
        return dict(zip(FIGURES, np.median(rises, axis=0).tolist(), strict=True))

    def line(self) -> str:
        """First, middle and last figures."""
        chosen = [self.rows[round(share * (len(self.rows) - 1))] for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
        parts = [f"{name} {' '.join(f'{row[n]:.0f}' for row in chosen)}" for n, name in enumerate(FIGURES)]
        return f"life {self.life}, {self.role}, {self.seconds:.0f} s: {'; '.join(parts)}"


class Usage:
    """Samples processes every `EVERY_S`."""

    def __init__(self) -> None:
        self.series: dict[psutil.Process, Series] = {}
        self._sampled_at = float("-inf")

    def is_due(self, now: float) -> bool:
        return now - self._sampled_at >= EVERY_S

    def sample(self, now: float, life: int, processes: Iterable[tuple[str, psutil.Process]]) -> None:
        """`processes`: by role, of a life of the driver."""
        self._sampled_at = now
        for role, process in processes:
            with suppress(psutil.Error, OSError):
                memory, row = process.memory_info(), self.series.setdefault(process, Series(role=role, life=life))
                private = (memory.rss - memory.shared) / MIB
                row.rows.append((private, process.num_fds(), process.num_threads(), memory.shared / MIB))
                row.times.append(now)

    def long(self) -> list[Series]:
        return [series for series in self.series.values() if series.seconds >= LEAST_S]

    def leaks(self) -> list[str]:
        """A line for each process and figure that grows."""
        return [
            f"{series.role} of life {series.life} grows by {slope:.1f} {name} a minute (at most {BOUNDS[name]:g})"
            for series in self.long()
            for name, slope in series.slopes().items()
            if slope > BOUNDS[name]
        ]

    def table(self) -> list[str]:
        lines = []
        for series in sorted(self.long(), key=lambda each: (each.life, each.role)):
            slopes = ", ".join(f"{slope:+.2f} {name}" for name, slope in series.slopes().items())
            lines += [series.line(), f"    a minute: {slopes}"]
        return lines
