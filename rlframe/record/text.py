"""Text for people: without escape codes of a model or program, and without secrets."""

from __future__ import annotations

import re
from typing import Any

USER_OF_URL = re.compile(r"(?<=://)[^/?#\s]+@")
SECRET_KEY = re.compile(r"(?:^|_)(?:key|token|password|passwd|secret|credentials?)$", re.IGNORECASE)
HIDDEN = "***"


def printable(text: str) -> str:
    """The text with a dot for every unprintable character but newlines: escape codes would paint the terminal."""
    return "".join(char if char.isprintable() or char == "\n" else "·" for char in text.expandtabs(4))


def without_passwords(text: str) -> str:
    """The text with *** for the user and password of every URL.

    >>> without_passwords("at https://me:secret@judge.example/v1")
    'at https://***@judge.example/v1'
    """
    return USER_OF_URL.sub(f"{HIDDEN}@", text) if "://" in text else text


def without_secrets(settings: Any) -> Any:
    """Nested settings with *** for passwords in URLs and for every text under a key such as api_key or password."""
    match settings:
        case str():
            return without_passwords(settings)
        case dict():
            return {
                key: HIDDEN if isinstance(value, str) and SECRET_KEY.search(str(key)) else without_secrets(value)
                for key, value in settings.items()
            }
        case list():
            return [without_secrets(value) for value in settings]
    return settings
