"""Exit codes of the command, and the text that goes with a refused config."""

from __future__ import annotations

import sys
import traceback
from types import TracebackType

FAILED = 1
CONFIG = 2  # the config cannot run; nothing was started
STOPPED = 130  # by a signal, after a checkpoint


def complain(text: str) -> None:
    """Prints an error on stderr, without escape codes, passwords and values from the environment."""
    from rlframe.config.environment import hidden
    from rlframe.errors import without_passwords
    from rlframe.record.text import printable

    print(printable(without_passwords(hidden(text))), file=sys.stderr)


def complain_of_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Prints an uncaught exception; a `sys.excepthook`."""
    complain("".join(traceback.format_exception(kind, error, trace)).rstrip())


def refuse(headline: str, problems: str) -> int:
    """Prints the headline and the problems, indented, on stderr; returns the exit code."""
    complain("\n".join([f"{headline}:", *(f"  {line}" for line in problems.splitlines())]))
    return CONFIG
