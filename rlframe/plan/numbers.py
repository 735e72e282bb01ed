"""Sizes, counts and times as a person reads them."""

from __future__ import annotations

GIB = 1 << 30


def gib(size: float) -> str:
    """Bytes in GiB: 0.42, 8.1, 140."""
    value = size / GIB
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 1 else f"{value:.2f}"


def billions(count: int) -> str:
    """134.5 M, 30.5 B."""
    return f"{count / 1e9:.1f} B" if count >= 1e9 else f"{count / 1e6:.1f} M"


def seconds(value: float) -> str:
    """0.42 s, 12 s, 3.4 min, 5.1 h, 12 days."""
    for bound, unit, size in ((120, "s", 1), (7200, "min", 60), (172_800, "h", 3600)):
        if value < bound:
            return f"{value / size:.2g} {unit}" if value / size < 10 else f"{value / size:.0f} {unit}"
    return f"{value / 86_400:.0f} days"


def plural(count: int, noun: str) -> str:
    """1 engine, 4 engines."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
