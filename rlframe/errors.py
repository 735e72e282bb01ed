"""Errors with a message for a person, which the command prints without a traceback; and what no message may hold."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

USER_OF_URL = re.compile(r"(?<=://)[^/?#\s]+@")
QUERY_OF_URL = re.compile(r"([?&][\w.-]*(?:key|token|secret|password|signature)=)[^&#\s'\"]+", re.IGNORECASE)
HIDDEN = "***"


class RunFailed(RuntimeError):
    """Ends a run. The message says what failed and where, and what to do or which wait ended."""


class Stalled(RunFailed):
    """Nothing moved for longer than the bound. The message says which actor waits for which."""


class LearnerLost(RunFailed):
    """A rank died or no longer answers, and all ranks were ended with it. The message names the rank and the reason."""


class Fenced(RunFailed):
    """Another driver holds the run, so this driver writes nothing more. The message names the other driver."""


class BodyLost(RunFailed):
    """The tokens of a scored group are gone with the process that held them. The message names the prompt."""


class ConfigError(ValueError):
    """A config that cannot run. Every line names a key, the problem, and the remedy."""


class Hung(RuntimeError):
    """An earlier call never returned: the worker refuses further calls and must be replaced."""

    def __init__(self, message: str, process: str = "") -> None:
        """`process`: identifies the worker's process; after a restart the worker has another."""
        super().__init__(message)
        self.process = process


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message on an unknown name: the nearest known names, or nothing where none is near.

    >>> did_you_mean("max_num_seq", ["max_num_seqs", "dtype"])
    '; did you mean max_num_seqs?'
    """
    near = difflib.get_close_matches(name, known, n=2)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def without_passwords(text: str) -> str:
    """The text with *** for the user and password of every URL, and for keys and tokens in its query.

    >>> without_passwords("at https://me:secret@judge.example/v1")
    'at https://***@judge.example/v1'
    """
    if "://" not in text:
        return text
    return QUERY_OF_URL.sub(rf"\1{HIDDEN}", USER_OF_URL.sub(f"{HIDDEN}@", text))
