"""`check_rendered`: the first prompt as the model sees it, looked at before an actor starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rlframe.errors import ConfigError

if TYPE_CHECKING:
    from rlframe.prompts.rendering import Renderer
    from rlframe.prompts.template import Template
    from rlframe.reward.base import Reward
    from rlframe.types import Problem


def check_rendered(renderer: Renderer, template: Template, problem: Problem, terms: Mapping[str, Reward]) -> None:
    """Raises ConfigError with a line for each text that the chat template loses and each reward that cannot score.

    Chat templates of reasoning models leave out the thoughts of earlier turns, or open new thoughts in the prompt.
    """
    text = renderer.text(template.messages(problem))
    problems = _lost_texts(template, problem, text)
    for name, term in terms.items():
        try:
            term.check_prompt(text)
        except ValueError as error:
            problems.append(f"reward.terms.{name}.{error}")
        if lost := [tag for tag in term.tags() if not renderer.survives(tag)]:
            problems.append(
                f"reward.terms.{name}: {' and '.join(lost)} are special tokens of this model, which the text of a "
                "completion leaves out, so the reward never finds them; choose other tags, or a tokenizer in which "
                "they are not special"
            )
    if problems:
        raise ConfigError("\n".join(problems))


def _lost_texts(template: Template, problem: Problem, text: str) -> list[str]:
    """A line for each part of the template, and for a question, that the rendered prompt does not hold."""
    lost = []
    messages = template.messages(problem)
    if messages[0]["role"] == "system" and messages[0]["content"].strip() not in text:
        lost.append("prompts.template.system: the chat template leaves it out; write it into prompts.template.user")
    for number, example in enumerate(template.examples, start=1):
        if example.answer.strip() not in text:
            lost.append(
                f"prompts.template.examples: the chat template leaves out a part of the answer of example {number}, "
                f"{example.answer!r}, as templates of reasoning models do with the thoughts of earlier turns; write "
                "the example into prompts.template.system or .user, or set a prompts.template.chat_template that keeps "
                "it"
            )
    if messages[-1]["content"].strip() not in text:
        lost.append(
            f"prompts.template: the chat template leaves out a part of the question of problem {problem.id}; set "
            "another prompts.template.chat_template"
        )
    return lost
