"""The conversation around a question."""

import pytest
from pydantic import ValidationError

from rlframe.prompts.template import Template
from rlframe.types import Problem

PROBLEM = Problem(id="p", messages=[{"role": "user", "content": "What is 2 + 3?"}], reference="5", task="math")


def test_system_message_and_examples_precede_the_question():
    template = Template.model_validate(
        {"system": "Be brief.", "user": "Q: {question}", "examples": [{"question": "1 + 1?", "answer": "2"}]}
    )
    assert template.messages(PROBLEM) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Q: 1 + 1?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "Q: What is 2 + 3?"},
    ]


def test_an_empty_system_message_adds_no_message():
    template = Template(system="", user="{question}", examples=[])
    assert template.messages(PROBLEM) == PROBLEM.messages


def test_a_system_message_of_the_problem_takes_the_place_of_the_templates():
    template = Template.model_validate(
        {"system": "Be brief.", "user": "Q: {question}", "examples": [{"question": "1 + 1?", "answer": "2"}]}
    )
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "3?"}]
    messages = template.messages(Problem(id="p", messages=turns, reference="", task="math"))
    assert [message["content"] for message in messages] == ["Be kind.", "Q: 1 + 1?", "2", "Q: 3?"]


def test_braces_of_latex_stay_unchanged():
    template = Template(system="", user=r"{question} Answer in \boxed{}.", examples=[])
    assert template.wrap(r"$\frac{1}{2}$?")["content"] == r"$\frac{1}{2}$? Answer in \boxed{}."


def test_a_template_without_the_question_is_refused():
    with pytest.raises(ValidationError, match=r"must contain \{question\}"):
        Template(system="", user="Answer!", examples=[])
