"""Text that people see: no escape codes, no secrets."""

import pytest

from rlframe.errors import without_passwords
from rlframe.record.text import printable, without_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", "a\nb"),
        ("\x1b[31mred\x1b[0m", "·[31mred·[0m"),
        ("\x9b31m \x07\r\b\x7f\x00", "·31m ·····"),
        ("a\u202eb\u200bc\ud800", "a·b·c·"),
        ("x\ty", "x   y"),
        ("héllo 世界 😀 ∑", "héllo 世界 😀 ∑"),
    ],
)
def test_characters_that_steer_a_terminal_become_dots(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:pw@host/v1", "https://***@host/v1"),
        ("a https://me:p@w@host b http://u@h:1/x c", "a https://***@host b http://***@h:1/x c"),
        ("https://host/v1/me@home, mail me@host.example", "https://host/v1/me@home, mail me@host.example"),
        ("https://host?user=a@b#c@d", "https://host?user=a@b#c@d"),
        ("https://host/v1?api-key=a&n=1&token=b", "https://host/v1?api-key=***&n=1&token=***"),
    ],
)
def test_urls_lose_their_user_and_password(text, shown):
    assert without_passwords(text) == shown


def test_settings_lose_texts_under_keys_of_secrets_and_passwords_in_urls():
    settings = {
        "api_key": "a",
        "hf_token": "b",
        "nested": [{"Password": "c", "base_url": "https://me:pw@host"}],
        "key_env": "JUDGE_KEY",
        "apiKey": "d",
        "headers": {"x-api-key": "e", "Authorization": "Bearer f"},
        "api_keys": ["g", "h"],
        "max_tokens": 16,
        "stop_token_ids": [1],
        "token": None,
    }
    assert without_secrets(settings) == settings | {
        "api_key": "***",
        "hf_token": "***",
        "nested": [{"Password": "***", "base_url": "https://***@host"}],
        "apiKey": "***",
        "headers": {"x-api-key": "***", "Authorization": "***"},
        "api_keys": ["***", "***"],
    }
