"""Fields of a record: nested values by dotted names, and the conversion of a value to text or to messages."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rlframe.types import Message

LISTED_NAMES = 20  # of the fields that a record has, in an error


def value_of(record: Mapping[str, Any], name: str, where: str) -> Any:
    """The value under a name, or under a dotted path: `reward_model.ground_truth` is the layout of verl.

    Raises ValueError, whose message starts with `where`, for a field that the record does not have.
    """
    if name in record:
        return record[name]
    value: Any = record
    for key in name.split("."):
        if not isinstance(value, dict) or key not in value:
            raise ValueError(f"{where}: {unknown(name, _names(record))}")
        value = value[key]
    return value


def unknown(name: str, names: Iterable[str]) -> str:
    """The problem with a field that does not exist, with the existing names and the nearest of them.

    >>> unknown("promt", ["prompt", "answer"])
    "no field 'promt'; it has 'prompt', 'answer'; did you mean 'prompt'?"
    """
    names = list(names)
    listed = ", ".join(map(repr, names[:LISTED_NAMES])) + (", ..." if len(names) > LISTED_NAMES else "")
    near = difflib.get_close_matches(name, names, n=3)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"no field {name!r}; it has {listed or 'none'}{hint}"


def text_of(record: Mapping[str, Any], name: str, where: str) -> str:
    """The text or number under a name, as text. Raises ValueError for any other value, and for white space alone."""
    value = value_of(record, name, where)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        hint = "; name a list of messages by messages_field" if isinstance(value, list) else ""
        raise ValueError(f"{where}: field {name!r} holds {_kind(value)}, not text or a number{hint}")
    text = str(value)
    if not text or text.isspace():
        raise ValueError(f"{where}: field {name!r} is empty")
    return text


def reference_of(record: Mapping[str, Any], name: str, where: str) -> str:
    """The text, number, list or object under a name, as text; lists and objects, such as tests of code, as JSON."""
    value = value_of(record, name, where)
    return _json(value, name, where) if isinstance(value, list | dict) else text_of(record, name, where)


def references_of(record: Mapping[str, Any], names: list[str], where: str) -> str:
    """The values under several names as a JSON object; its keys are the names, without the path before a dot."""
    values = {name.rpartition(".")[2]: value_of(record, name, where) for name in names}
    return _json(values, ", ".join(names), where)


def _json(value: Any, name: str, where: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except TypeError as error:  # a date or bytes
        raise ValueError(f"{where}: field {name!r} holds a value that JSON does not know: {error}") from error


def messages_of(record: Mapping[str, Any], name: str, where: str) -> list[Message]:
    """The conversation under a name: a list of {role, content} that ends with the user.

    Raises ValueError that counts messages from 1.
    """
    value = value_of(record, name, where)
    if not isinstance(value, list) or not value:
        hint = "; name text by prompt_field" if isinstance(value, str) else ""
        raise ValueError(f"{where}: field {name!r} holds {_kind(value)}, not a list of messages{hint}")
    messages = []
    for number, message in enumerate(value, start=1):
        if fault := _fault(message):
            raise ValueError(f"{where}: field {name!r}, message {number} {fault}")
        messages.append({"role": message["role"], "content": message["content"]})
    if messages[-1]["role"] != "user":
        raise ValueError(
            f"{where}: field {name!r} ends with {messages[-1]['role']!r}, not with 'user', whom the policy answers"
        )
    return messages


def _fault(message: Any) -> str | None:
    """The reason that a value is no {role, content}; None for a message."""
    if not isinstance(message, dict):
        return f"is {_kind(message)}, not an object with role and content"
    for key in ("role", "content"):
        if not isinstance(message.get(key), str):
            return f"has {_kind(message.get(key))} as {key}, not text"
    # A Parquet file has a null where the message of another row has a key.
    unused = [key for key, value in message.items() if key not in ("role", "content") and value is not None]
    return f"has {unused[0]!r}, and a message can have role and content only" if unused else None


def _kind(value: Any) -> str:
    return "null" if value is None else "an empty list" if value == [] else type(value).__name__


def _names(record: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of all fields, each before the fields inside it."""
    for key, value in record.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _names(value, f"{prefix}{key}.")
