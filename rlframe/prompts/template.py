"""`Template`: turns a raw question into the conversation that the policy completes."""

from __future__ import annotations

from pydantic import field_validator

from rlframe.schema import Config
from rlframe.types import Message, Problem


class Example(Config):
    """A worked example, shown as an earlier turn."""

    question: str
    answer: str


class Template(Config):
    """System message, worked examples, and the words around the question.

    >>> Template(system="", user="{question} Answer with a number.", examples=[]).wrap("What is 2 + 3?")
    {'role': 'user', 'content': 'What is 2 + 3? Answer with a number.'}
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
        return [*system, *worked, *turns[:-1], self.wrap(turns[-1]["content"])]

    def wrap(self, question: str) -> Message:
        # str.format would fail on the braces of LaTeX, which questions and templates are full of.
        return {"role": "user", "content": self.user.replace("{question}", question)}
