"""The conversation around a question."""

import pytest
from pydantic import ValidationError

from rlframe.types import Problem
from tests.tiny.templates import make_template

PROBLEM = Problem(id="p", messages=[{"role": "user", "content": "What is 2 + 3?"}], reference="5", task="math")


def test_system_message_and_examples_precede_the_question():
    template = make_template(system="Be brief.", user="Q: {question}", examples=[{"question": "1 + 1?", "answer": "2"}])
    assert template.messages(PROBLEM) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Q: 1 + 1?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "Q: What is 2 + 3?"},
    ]


def test_an_empty_system_message_adds_no_message():
    template = make_template()
    assert template.messages(PROBLEM) == PROBLEM.messages


def test_a_system_message_of_the_problem_takes_the_place_of_the_templates():
    template = make_template(system="Be brief.", user="Q: {question}", examples=[{"question": "1 + 1?", "answer": "2"}])
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "3?"}]
    messages = template.messages(Problem(id="p", messages=turns, reference="", task="math"))
    assert [message["content"] for message in messages] == ["Be kind.", "Q: 1 + 1?", "2", "Q: 3?"]


def test_braces_of_latex_stay_unchanged():
    template = make_template(user=r"{question} Answer in \boxed{}.")
    assert template.wrap(r"$\frac{1}{2}$?")["content"] == r"$\frac{1}{2}$? Answer in \boxed{}."


def test_further_fields_of_the_record_stand_in_the_text():
    template = make_template(user="{question} Pass:\n{test_list}{notes}{other}")
    extra = {"test_list": ["assert a", "assert {question}"], "notes": None}
    assert template.wrap("Add {notes}.", extra)["content"] == "Add {notes}. Pass:\nassert a\nassert {question}{other}"


def test_a_template_without_the_question_is_refused():
    with pytest.raises(ValidationError, match=r"must contain \{question\}"):
        make_template(user="Answer!")


def test_a_chat_template_is_a_file_or_text(tmp_path):
    file = tmp_path / "mine.jinja"
    file.write_text("{{ messages[-1].content }}")
    assert make_template(chat_template=str(file)).jinja() == "{{ messages[-1].content }}"
    assert make_template(chat_template="{% for m in messages %}").jinja() == "{% for m in messages %}"
    assert make_template().jinja() is None
    with pytest.raises(
        ValidationError, match=r"there is no file .*yours\.jinja, and Jinja text would have \{\{ or \{%"
    ):
        make_template(chat_template=str(tmp_path / "yours.jinja"))
