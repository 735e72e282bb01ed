"""Where a completion's thoughts end and its answer begins."""

from __future__ import annotations

from typing import Literal, TypeAlias

Show: TypeAlias = Literal["answer", "all"]  # what a grader sees of a completion


def shown(text: str, show: Show) -> str:
    """All of it, or what follows the last `</think>`; thoughts that never end have no answer after them.

    A chat template may end in `<think>`, so the closing tag alone tells; without either tag all is answer.

    >>> shown("2 + 3</think> 5", "answer"), shown("<think>2 +", "answer"), shown("5", "answer")
    (' 5', '', '5')
    """
    if show == "all":
        return text
    _, closed, answer = text.rpartition("</think>")
    return answer if closed else text.partition("<think>")[0]
