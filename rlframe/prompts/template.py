"""`Template`: turns a raw question into the conversation that the policy completes; `ChatTemplate`: that into text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import field_validator

from rlframe.schema import Config
from rlframe.types import Message, Problem


class Example(Config):
    """A worked example, shown as an earlier turn."""

    question: str
    answer: str


class ChatTemplate(Config):
    """The way from a conversation to the text that the policy completes."""

    chat_template: str | None  # Jinja text, or the path of a file of it; None: the model's
    chat_template_kwargs: dict[str, Any] | None  # variables of the chat template
    raw: bool  # no chat template: plain text, for base models

    @field_validator("chat_template")
    @classmethod
    def _chat_template_exists(cls, chat_template: str | None) -> str | None:
        if chat_template is not None and not _is_jinja(chat_template) and not _file(chat_template).is_file():
            raise ValueError(f"there is no file {_file(chat_template)}, and Jinja text would have {{{{ or {{%")
        return chat_template

    def jinja(self) -> str | None:
        """The text of the chat template; None: the model's."""
        if self.chat_template is None or _is_jinja(self.chat_template):
            return self.chat_template
        return _file(self.chat_template).read_text(encoding="utf-8")


class Template(ChatTemplate):
    """System message, worked examples, and the words around the question.

    >>> template.user
    '{question} Answer with a number.'
    >>> template.wrap("What is 2 + 3?")
    {'role': 'user', 'content': 'What is 2 + 3? Answer with a number.'}

    Further fields of a record (`extra_fields: [test_list]`) stand in `user` by their names: `{test_list}`.
    """

    system: str  # of problems without a system message of their own; empty: none
    user: str
    examples: list[Example]

    @field_validator("user")
    @classmethod
    def _user_holds_the_question(cls, user: str) -> str:
        if "{question}" not in user:
            raise ValueError("must contain {question}, which becomes the problem's question")
        return user

    def messages(self, problem: Problem) -> list[Message]:
        """The conversation to complete. Turns of the problem before its last question stay unchanged.

        A problem's own system message takes the place of `system`.
        """
        system = [{"role": "system", "content": self.system}] if self.system else []
        turns = problem.messages
        if turns[0]["role"] == "system":
            system, turns = turns[:1], turns[1:]
        worked = [
            message
            for example in self.examples
            for message in (self.wrap(example.question), {"role": "assistant", "content": example.answer})
        ]
        return [*system, *worked, *turns[:-1], self.wrap(turns[-1]["content"], problem.extra)]

    def wrap(self, question: str, extra: Mapping[str, Any] = MappingProxyType({})) -> Message:
        """The question in its words. `{name}` becomes a further field of the problem, a list its lines."""
        names = ["question", *extra]
        # str.format would fail on the braces of LaTeX, which questions and templates are full of.
        pieces = re.split("|".join(re.escape(f"{{{name}}}") for name in names).join("()"), self.user)
        fields = {"{question}": question, **{f"{{{name}}}": _text(value) for name, value in extra.items()}}
        return {"role": "user", "content": "".join(fields.get(piece, piece) for piece in pieces)}


def _text(value: Any) -> str:
    """A field of a record as text; null is empty."""
    lines = value if isinstance(value, list) else [] if value is None else [value]
    return "\n".join(map(str, lines))


def _is_jinja(text: str) -> bool:
    return "{{" in text or "{%" in text


def _file(path: str) -> Path:
    return Path(path).expanduser().resolve()
