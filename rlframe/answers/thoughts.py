"""Splits a completion at its tags into thoughts and answer."""

from __future__ import annotations

from typing import Literal, TypeAlias

Show: TypeAlias = Literal["answer", "all"]  # the text of a completion that a grader reads
THINK_TAGS = ["<think>", "</think>"]
ANSWER_TAGS = ["<answer>", "</answer>"]


def shown(text: str, show: Show, *, opened: bool) -> str:
    """All of a completion's `text`, or the answer after the last `</think>`. Unfinished thoughts have no answer.

    `opened`: the prompt ends with `<think>`, so a text without tags is all thoughts; else it is all answer.

    >>> shown("2 + 3</think> 5", "answer", opened=True), shown("2 + 3 is", "answer", opened=True)
    (' 5', '')
    >>> shown("<think>2 +", "answer", opened=False), shown("5", "answer", opened=False)
    ('', '5')
    """
    if show == "all":
        return text
    _, closing_tag, answer = text.rpartition("</think>")
    if closing_tag:
        return answer
    return "" if opened else text.partition("<think>")[0]


def check_opened(prompt: str, tag: str, opened: bool) -> None:
    """Raises ValueError where a rendered prompt ends with the opening `tag` and `opened` is false, or the other way."""
    ending = prompt.rstrip()[-40:]
    opens = prompt.rstrip().endswith(tag)
    if opens and not opened:
        raise ValueError(
            f"opened: false, but the prompt ends with {ending!r}: completions start inside the thoughts and will not "
            f"write {tag} again; use true"
        )
    if opened and not opens:
        raise ValueError(
            f"opened: true, but the prompt ends with {ending!r}: nothing opens {tag} before the completion; use false"
        )


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
