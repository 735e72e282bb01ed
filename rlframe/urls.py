"""URLs in text, without the passwords that they carry."""

from __future__ import annotations

import re

USER_OF_URL = re.compile(r"(?<=://)[^/?#\s]+@")
QUERY_OF_URL = re.compile(r"([?&][\w.-]*(?:key|token|secret|password|signature)=)[^&#\s'\"]+", re.IGNORECASE)
HIDDEN = "***"


def without_passwords(text: str) -> str:
    """The text with *** for the user and password of every URL, and for keys and tokens in its query.

    >>> without_passwords("at https://me:secret@judge.example/v1")
    'at https://***@judge.example/v1'
    """
    if "://" not in text:
        return text
    return QUERY_OF_URL.sub(rf"\1{HIDDEN}", USER_OF_URL.sub(f"{HIDDEN}@", text))
