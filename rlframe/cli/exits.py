"""Exit codes of the command, and the text that goes with a refused config."""

from __future__ import annotations

import sys

FAILED = 1
CONFIG = 2  # the config cannot run; nothing was started
STOPPED = 130  # by a signal, after a checkpoint


def refuse(headline: str, problems: str) -> int:
    """Prints the headline and the problems, indented, on stderr; returns the exit code."""
    print(f"{headline}:", *(f"  {line}" for line in problems.splitlines()), sep="\n", file=sys.stderr)
    return CONFIG
