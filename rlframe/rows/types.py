"""The three kinds of rows that `rlframe tune` learns from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from rlframe.types import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """A conversation and the answer to imitate.

    >>> Demonstration(id="rows.jsonl:1", messages=[{"role": "user", "content": "What is 2 + 3?"}], answer="5",
    ...               task="math", source="rows.jsonl:1").token_ids is None
    True
    """

    id: str  # unique in its source, and readable: "rows.jsonl:7"
    messages: list[Message]  # everything before the answer
    answer: str  # the completion's text, thoughts in their tags included
    task: str
    source: str  # place where the row was made: "select-1f0c/part_000003.jsonl:17"
    reasoning: str | None = None  # thoughts kept apart from `answer`, which the chat template puts into their tags
    token_ids: list[int] | None = None  # [L] of the answer as an engine sampled it; None: the text is tokenized
    tokenizer: str | None = None  # digest of the tokenizer of `token_ids`; None exactly when there are none


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two answers to a conversation, the better one first."""

    id: str
    messages: list[Message]  # everything before the answers
    chosen: str
    rejected: str
    margin: float | None  # by how much `chosen` is better; None: not graded
    task: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """An answer in steps with a label for each; an answer that is judged as a whole is a single step.

    >>> Assessment(id="steps.jsonl:1", messages=[{"role": "user", "content": "What is 2 + 3 + 4?"}],
    ...            steps=["2 + 3 = 5.", " 5 + 4 = 8."], labels=[1.0, 0.0], task="math", source="steps.jsonl:1").answer
    '2 + 3 = 5. 5 + 4 = 8.'
    """

    id: str
    messages: list[Message]  # everything before the answer
    steps: list[str]  # the answer's text, cut behind each step
    labels: list[float]  # [steps] in [0, 1]: 1 right or safe, 0 wrong or unsafe; between: share of right continuations
    task: str
    source: str

    @property
    def answer(self) -> str:
        return "".join(self.steps)


Row: TypeAlias = Demonstration | Comparison | Assessment
