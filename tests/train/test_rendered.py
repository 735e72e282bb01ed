"""The look at the first rendered prompt: lost thoughts, opened thoughts, tags that are special tokens."""

from __future__ import annotations

from typing import Any

import pytest

from rlframe.errors import ConfigError
from rlframe.prompts.rendering import Renderer
from rlframe.reward import build
from rlframe.train.rendered import check_rendered
from rlframe.types import Problem
from tests.tiny.models import byte_tokenizer
from tests.tiny.templates import QWEN3, R1_DISTILL, SMOLLM2, make_template

PROBLEM = Problem(id="p1", messages=[{"role": "user", "content": "What is 2 + 3?"}], reference="5", task="math")
WORKED = [{"question": "1 + 1?", "answer": "<think>1 + 1 = 2</think><answer>2</answer>"}]
NO_SYSTEM = "{% for message in messages %}{% if message.role != 'system' %}{{ message.content }}{% endif %}{% endfor %}"


def look(models: str, *, opened: bool = False, special: list[str] | None = None, **settings: Any) -> list[str]:
    """The lines of the refusal; empty: accepted."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = models
    tokenizer.add_special_tokens({"additional_special_tokens": special or []})
    shape = {"think": "think", "answer": "answer", "opened": opened, "partial": False}
    terms = {"shape": build({"name": "format", "weight": 1.0, **shape})}
    template = make_template(**settings)
    try:
        check_rendered(Renderer(tokenizer, template), template, PROBLEM, terms)
    except ConfigError as error:
        return str(error).splitlines()
    return []


@pytest.mark.parametrize("chat_template", [SMOLLM2, QWEN3])
def test_templates_without_thoughts_are_accepted(chat_template):
    assert look(chat_template, system="Think first.") == []


def test_with_thinking_off_completions_write_the_tags_themselves():
    assert look(QWEN3, chat_template_kwargs={"enable_thinking": False}) == []


def test_a_template_that_opens_thoughts_needs_opened_and_no_other_does():
    [line] = look(R1_DISTILL)
    assert line.startswith(
        "reward.terms.shape.opened: false, but the prompt ends with 'user|>What is 2 + 3?<|assistant|><think>'"
    )
    assert line.endswith("use true")
    assert look(R1_DISTILL, opened=True) == []
    [line] = look(QWEN3, opened=True)
    assert line.startswith("reward.terms.shape.opened: true, but the prompt ends with") and line.endswith("use false")


def test_a_raw_prompt_may_open_thoughts_itself():
    assert look(SMOLLM2, raw=True, opened=True, user="{question}\n<think>") == []


def test_a_worked_example_that_loses_its_thoughts_is_refused():
    assert look(SMOLLM2, examples=WORKED) == []
    for chat_template, opened in ((QWEN3, False), (R1_DISTILL, True)):
        [line] = look(chat_template, opened=opened, examples=WORKED)
        assert "leaves out a part of the answer of example 1, '<think>1 + 1 = 2</think>" in line
    assert look(QWEN3, examples=WORKED, chat_template=SMOLLM2) == []  # a remedy that the line names


def test_a_system_message_that_the_template_drops_is_refused():
    assert look(NO_SYSTEM) == []
    assert look(NO_SYSTEM, system="Think first.") == [
        "prompts.template.system: the chat template leaves it out; write it into prompts.template.user"
    ]


def test_a_question_that_the_template_drops_is_refused():
    [line] = look("{{ messages[0].content[:4] }}")
    assert "leaves out a part of the question of problem p1" in line


def test_tags_that_are_special_tokens_are_refused_by_name():
    [line] = look(SMOLLM2, special=["<think>", "</answer>"])
    assert line.startswith("reward.terms.shape: <think> and </answer> are special tokens of this model")


def test_a_pair_of_special_tags_is_accepted_since_text_keeps_it():
    assert look(SMOLLM2, special=["<think>", "</think>"]) == []


def test_all_problems_are_told_together():
    assert len(look(R1_DISTILL, examples=WORKED, special=["<answer>"])) == 3
