"""The table of a chaos run: seconds from a fault to the next step, by kind of fault."""

from __future__ import annotations

from collections import defaultdict
from statistics import median

from benchmarks.chaos_parts.storm import Struck


def recovery_table(struck: list[Struck]) -> list[str]:
    kinds: defaultdict[str, list[Struck]] = defaultdict(list)
    for each in struck:
        kinds[str(each.fault)].append(each)
    lines = ["| fault | times | median s to the next step | longest |", "|---|---|---|---|"]
    for name, faults in sorted(kinds.items()):
        seconds = [each.seconds for each in faults if each.seconds is not None]
        figures = f"{median(seconds):.1f} | {max(seconds):.1f}" if seconds else "- | -"
        lines.append(f"| {name} | {len(faults)} | {figures} |")
    return lines
