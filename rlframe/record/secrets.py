"""Secrets by name. A config holds the name of an environment variable; the value stays in the processes that need it.

JUDGE_KEY=…                       a variable of the process, as from a pod's secretKeyRef or the node's own environment
JUDGE_KEY_FILE=/vault/judge       or a file that a variable names,
/run/secrets/JUDGE_KEY            or a file of that name in a mounted folder (another one: RLFRAME_SECRETS=/mnt/secrets)
"""

from __future__ import annotations

import os
from pathlib import Path

FOLDER, FOLDER_VARIABLE = "/run/secrets", "RLFRAME_SECRETS"
HOW = (
    "set it on the machines of the run (in a pod's secretKeyRef, or where `ray start` runs), or put its value into "
    f"{FOLDER}/NAME or a file that NAME_FILE names"
)


def secret(name: str) -> str | None:
    """The value on this machine; None where it has none. Raises OSError for a file that cannot be read."""
    if value := os.environ.get(name):
        return value
    files = [os.environ.get(f"{name}_FILE"), Path(os.environ.get(FOLDER_VARIABLE, FOLDER)) / name]
    return next((Path(file).read_text().strip() for file in files if file and Path(file).is_file()), None)


def endpoint_key(name: str | None) -> str:
    """The key of an OpenAI-compatible endpoint, by the name of its variable; empty where this machine has none.

    For None, of an endpoint without a key, a word that is none: openai's client would else send OPENAI_API_KEY to it.
    """
    return "none" if name is None else secret(name) or ""
