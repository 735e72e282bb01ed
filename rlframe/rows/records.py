"""`row_of` and `record_of`: a row as the JSON object of a line, read and written here alone. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from rlframe.rows.types import Assessment, Comparison, Demonstration, Row
from rlframe.types import Message

TASK = "general"  # of a record that names none
LARGEST_MARGIN = 1e6
REASONING = "reasoning_content"  # the key of thoughts that a message keeps apart from its content
KEYS = ("role", "content", REASONING)  # of a message
FIELDS = (  # of a record
    *("id", "messages", "prompt", "completion", "answer", "reasoning", "token_ids", "tokenizer"),
    *("chosen", "rejected", "margin", "steps", "completions", "labels", "label", "task", "source"),
)
SHAPES = (
    "messages and answer; messages that end with the assistant; prompt and completion; chosen and rejected, with "
    "prompt or messages before them or as whole conversations; or an answer with its label, or steps with their labels"
)


def record_of(row: Row) -> dict[str, Any]:
    """The object of a line, without optional values that the row does not have."""
    record: dict[str, Any] = {"id": row.id, "messages": row.messages}
    if isinstance(row, Demonstration):
        record |= {"answer": row.answer, "reasoning": row.reasoning}
        record |= {"token_ids": row.token_ids, "tokenizer": row.tokenizer}
    elif isinstance(row, Comparison):
        record |= {"chosen": row.chosen, "rejected": row.rejected, "margin": row.margin}
    else:
        record |= {"steps": row.steps, "labels": row.labels}
    record |= {"task": row.task, "source": row.source}
    return {key: value for key, value in record.items() if value is not None}


def row_of(record: Mapping[str, Any], row_id: str, where: str) -> Row:
    """The row in a record of `record_of`, or of a user's file.

    A user's record has one of these shapes, in which a conversation is a list of {role, content} with
    `reasoning_content` beside `content` where thoughts are kept apart, and `prompt` may be a text:

        {"messages": [..., {"role": "assistant", "content": "5"}]}
        {"prompt": "What is 2 + 3?", "completion": "5"}                 each a text or a list of messages
        {"prompt": "What is 2 + 3?", "chosen": "5", "rejected": "6"}    each a text or a list of messages
        {"chosen": [..., {...}], "rejected": [..., {...}]}              conversations with a common beginning
        {"prompt": "Is 7 prime?", "answer": "Yes.", "label": 1}         an answer that is judged as a whole
        {"prompt": "...", "steps": ["2 + 3 = 5.", ...], "labels": [1, ...]}     or step by step; true and false will do

    An `answer` beside a completion, or beside messages that end with the assistant, is a reference, and no part of the
    row.

    `row_id`: of a record without an id. Raises ValueError, whose message starts with `where`, for any other shape.
    """
    record = {key: value for key, value in record.items() if value is not None}
    try:
        row_id = str(record.get("id", row_id))
        shared: dict[str, Any] = {
            "id": row_id,
            "task": str(record.get("task", TASK)),
            "source": str(record.get("source", row_id)),
        }
        if "chosen" in record or "rejected" in record:
            return Comparison(**_comparison(record), **shared)
        if _judges(record):
            return Assessment(**_assessment(record), **shared)
        return Demonstration(**_demonstration(record), **shared)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _demonstration(record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a demonstration that hold its texts and tokens."""
    if "completion" in record:
        before, answer = _conversation(record, "completion")
    elif "answer" in record and not _is_whole(record):
        before, answer = _conversation(record, "answer")
    elif "messages" in record:
        before, answer = _split(_messages(record["messages"], "messages"), "messages")
    else:
        raise ValueError(f"has no answer: it has {', '.join(map(repr, record)) or 'no field'}; a row has {SHAPES}")
    if "reasoning" in record:
        answer = {**answer, REASONING: _text(record["reasoning"], "reasoning")}
    texts = {"messages": before, "answer": answer["content"], "reasoning": answer.get(REASONING)}
    return texts | _tokens(record)


def _is_whole(record: Mapping[str, Any]) -> bool:
    """True for messages that end with the assistant."""
    return "messages" in record and _messages(record["messages"], "messages")[-1]["role"] == "assistant"


def _tokens(record: Mapping[str, Any]) -> dict[str, Any]:
    token_ids, tokenizer = record.get("token_ids"), record.get("tokenizer")
    if token_ids is None:
        return {}
    if not isinstance(token_ids, list) or not token_ids or not all(type(token_id) is int for token_id in token_ids):
        raise ValueError("field 'token_ids' holds no list of token ids")
    if not isinstance(tokenizer, str):
        raise ValueError("has token_ids, but not the digest of their tokenizer; add 'tokenizer', or leave both out")
    return {"token_ids": token_ids, "tokenizer": tokenizer}


def _comparison(record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a comparison that hold its texts and its margin."""
    for name in ("chosen", "rejected"):
        if name not in record:
            raise ValueError(f"has no field {name!r}, which a comparison has beside the other answer")
    before, chosen = _conversation(record, "chosen")
    rejected_before, rejected = _conversation(record, "rejected")
    if before != rejected_before:
        raise ValueError("chosen and rejected must begin with the same messages, and differ in the last one")
    if chosen == rejected:
        raise ValueError("chosen and rejected are equal, so the row compares nothing")
    if REASONING in chosen or REASONING in rejected:
        raise ValueError(f"an answer has {REASONING!r}; write its thoughts into content, as <think>...</think>")
    margin = record.get("margin")
    if isinstance(margin, bool) or not isinstance(margin, int | float | None):
        raise ValueError(f"field 'margin' holds {type(margin).__name__}, not a number")
    if margin is not None and not -LARGEST_MARGIN <= margin <= LARGEST_MARGIN:
        raise ValueError(f"field 'margin' holds no number from {-LARGEST_MARGIN:g} to {LARGEST_MARGIN:g}")
    texts = {"messages": before, "chosen": chosen["content"], "rejected": rejected["content"]}
    return texts | {"margin": None if margin is None else float(margin)}


def _judges(record: Mapping[str, Any]) -> bool:
    """True for a record with labels of an answer. A `label` that is no number from 0 to 1, as a topic, is none."""
    label = record.get("label")
    steps = "labels" in record and ("steps" in record or isinstance(record.get("completions"), list))
    return steps or (isinstance(label, bool | int | float) and 0 <= label <= 1)


def _assessment(record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an assessment that hold its texts and labels."""
    if "labels" not in record:
        whole = _demonstration({key: value for key, value in record.items() if key not in ("token_ids", "tokenizer")})
        if whole["reasoning"] is not None:
            raise ValueError(f"the answer has {REASONING!r}; write its thoughts into content, as <think>...</think>")
        return {"messages": whole["messages"], "steps": [whole["answer"]], "labels": [float(record["label"])]}
    steps, labels = record.get("steps", record.get("completions")), record["labels"]
    if not isinstance(steps, list) or not steps or not all(isinstance(step, str) and step for step in steps):
        raise ValueError("field 'steps' holds no list of texts")
    glued = any(not one[-1].isspace() and not two[0].isspace() for one, two in pairwise(steps))
    if glued and "steps" not in record:
        raise ValueError(
            "field 'completions' holds steps without white space between them; write what stands between two steps "
            "(as a newline) at the end of the first one"
        )
    if not isinstance(labels, list) or len(labels) != len(steps):
        raise ValueError(f"field 'labels' holds no list of {len(steps)} labels, one for each step")
    if odd := [label for label in labels if not isinstance(label, bool | int | float) or not 0 <= label <= 1]:
        raise ValueError(f"field 'labels' holds {odd[0]!r}, not a number from 0 to 1")
    before, _ = _conversation({**record, "answer": "".join(steps)}, "answer")
    return {"messages": before, "steps": steps, "labels": [float(label) for label in labels]}


def _conversation(record: Mapping[str, Any], name: str) -> tuple[list[Message], Message]:
    """The messages before an answer, and the answer, which is a text or the end of a conversation."""
    messages: list[Message] = []
    if (before := next((key for key in ("prompt", "messages") if key in record), None)) is not None:
        text = record[before]
        messages = [{"role": "user", "content": text}] if isinstance(text, str) else _messages(text, before)
    value = record[name]
    answer = [{"role": "assistant", "content": value}] if isinstance(value, str) else _messages(value, name)
    *turns, last = answer
    if not turns or answer[0]["role"] in ("assistant", "tool"):
        return _split([*messages, *answer], name)
    # A whole conversation, whose beginning or question stands beside it once more; or only the last turns of it.
    count = len(messages)
    if messages in (turns[:count], turns[-count:], []):
        return _split(answer, name)
    if messages[-len(turns) :] == turns:
        return _split([*messages, last], name)
    raise ValueError(f"{before} and {name} hold different questions; leave {before} out, or give answers alone")


def _split(messages: list[Message], name: str) -> tuple[list[Message], Message]:
    *before, answer = messages
    if answer["role"] != "assistant":
        raise ValueError(f"has no answer: {name} ends with {answer['role']!r}, not with 'assistant'")
    if not before or before[-1]["role"] == "assistant":
        raise ValueError(f"has no question: {name} has no message of a user or a tool before the answer")
    if empty := [message for message in messages if message["role"] == "assistant" and not message["content"].strip()]:
        raise ValueError(
            "has no answer: " + ("it is" if empty[-1] is answer else "one of an earlier turn is") + " empty"
        )
    return before, answer


def _messages(value: Any, name: str) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"field {name!r} holds {type(value).__name__}, not a text or a list of messages")
    return [_message(message, f"field {name!r}, message {number}") for number, message in enumerate(value, start=1)]


def _message(value: Any, where: str) -> Message:
    """The message; a key that a Parquet file fills with null is absent."""
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {type(value).__name__}, not an object with role and content")
    message = {key: text for key, text in value.items() if text is not None}
    if unknown := [key for key in message if key not in KEYS]:
        raise ValueError(f"{where} has {unknown[0]!r}, and a message has texts under {', '.join(KEYS)} only")
    if missing := [key for key in KEYS[:2] if key not in message]:
        raise ValueError(f"{where} has no {missing[0]!r}")
    return {key: _text(text, f"{where}, {key}") for key, text in message.items()}


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} holds {type(value).__name__}, not text")
    return value
