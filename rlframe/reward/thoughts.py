"""Splits a completion at its tags into thoughts and answer."""

from __future__ import annotations

from typing import Literal, TypeAlias

Show: TypeAlias = Literal["answer", "all"]  # the text of a completion that a grader reads
THINK_TAGS = ["<think>", "</think>"]
ANSWER_TAGS = ["<answer>", "</answer>"]


def shown(text: str, show: Show) -> str:
    """All of `text`, or the answer after the last `</think>`. Unfinished thoughts have no answer.

    A chat template may end in `<think>`, so the closing tag alone counts. A text without tags is all answer.

    >>> shown("2 + 3</think> 5", "answer"), shown("<think>2 +", "answer"), shown("5", "answer")
    (' 5', '', '5')
    """
    if show == "all":
        return text
    _, closing_tag, answer = text.rpartition("</think>")
    return answer if closing_tag else text.partition("<think>")[0]


def chain_of_thought(text: str) -> str:
    """The thoughts: the text before the last `</think>`, if any, and after the first `<think>` of that, if any."""
    before, closing_tag, _ = text.rpartition("</think>")
    thoughts = before if closing_tag else text
    _, opening_tag, inside = thoughts.partition("<think>")
    return inside if opening_tag else thoughts


def last_tagged(text: str) -> str | None:
    """The text in the last `<answer>…</answer>`."""
    before, closing_tag, _ = text.rpartition("</answer>")
    _, opening_tag, answer = before.rpartition("<answer>")
    return answer if closing_tag and opening_tag else None
