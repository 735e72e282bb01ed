"""Text for people: without escape codes of a model or program, and without secrets."""

from __future__ import annotations

import re
from typing import Any

USER_OF_URL = re.compile(r"(?<=://)[^/?#\s]+@")
QUERY_OF_URL = re.compile(r"([?&][\w.-]*(?:key|token|secret|password|signature)=)[^&#\s'\"]+", re.IGNORECASE)
SECRET_KEY = re.compile(
    r"(?:^|[_.-])(?i:key|token|password|passwd|secret|credential|authorization)s?$|(?:Key|Token|Password|Secret)s?$"
)
HIDDEN = "***"


def printable(text: str) -> str:
    """The text with a dot for every unprintable character but newlines: escape codes would paint the terminal."""
    return "".join(char if char.isprintable() or char == "\n" else "·" for char in text.expandtabs(4))


def without_passwords(text: str) -> str:
    """The text with *** for the user and password of every URL, and for keys and tokens in its query.

    >>> without_passwords("at https://me:secret@judge.example/v1")
    'at https://***@judge.example/v1'
    """
    if "://" not in text:
        return text
    return QUERY_OF_URL.sub(rf"\1{HIDDEN}", USER_OF_URL.sub(f"{HIDDEN}@", text))


def without_secrets(settings: Any, secret: bool = False) -> Any:
    """Nested settings with *** for passwords in URLs and for every text under a key such as api_key or password.

    `secret`: the settings stand under such a key.
    """
    match settings:
        case str():
            return HIDDEN if secret else without_passwords(settings)
        case dict():
            return {
                key: without_secrets(value, secret or bool(SECRET_KEY.search(str(key))))
                for key, value in settings.items()
            }
        case list():
            return [without_secrets(value, secret) for value in settings]
    return settings
