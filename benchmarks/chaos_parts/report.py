"""The end of a run of faults: a table of seconds from a fault to the next step, and what does not hold."""

from __future__ import annotations

import shutil
from collections import defaultdict
from pathlib import Path
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


def conclude(wrong: list[str], folder: Path, *, keep: bool) -> int:
    """Prints what does not hold -> the exit code. The files stay if anything is wrong, or if asked to `keep` them."""
    print(f"\n{len(wrong)} violations")
    for line in wrong:
        print(f"- {line}")
    if wrong or keep:
        print(f"the files are in {folder}")
    else:
        shutil.rmtree(folder)
    return 1 if wrong else 0
