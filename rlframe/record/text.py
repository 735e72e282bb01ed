"""Text for people: without escape codes of a model or program, and without secrets."""

from __future__ import annotations

import re
from typing import Any

from rlframe.errors import HIDDEN, without_passwords

SECRET_KEY = re.compile(
    r"(?:^|[_.-])(?i:key|token|password|passwd|secret|credential|authorization)s?$|(?:Key|Token|Password|Secret)s?$"
)


def printable(text: str) -> str:
    """The text with a dot for every unprintable character but newlines: escape codes would paint the terminal."""
    return "".join(char if char.isprintable() or char == "\n" else "·" for char in text.expandtabs(4))


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
