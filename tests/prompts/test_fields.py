"""Values of a record: text, references and conversations."""

import pytest

from rlframe.prompts.fields import messages_of, reference_of, unknown, value_of

RECORD = {"a": {"b": 1, "c": {"d": "text"}}, "a.b": 2}


def test_a_name_with_dots_is_a_key_or_else_a_path():
    assert value_of(RECORD, "a.b", "row 0") == 2
    assert value_of(RECORD, "a.c.d", "row 0") == "text"


def test_a_missing_field_is_refused_with_nested_and_near_names():
    with pytest.raises(
        ValueError, match=r"^row 0: no field 'a.c.e'; it has 'a', 'a.b', 'a.c', 'a.c.d', 'a.b'; did you"
    ):
        value_of(RECORD, "a.c.e", "row 0")
    with pytest.raises(ValueError, match=r"no field 'a.b.x'"):
        value_of(RECORD, "a.b.x", "row 0")


def test_only_the_first_fields_of_a_wide_record_are_listed():
    assert unknown("z", [f"x{n}" for n in range(30)]).endswith("'x19', ...")


@pytest.mark.parametrize(
    "value, reference",
    [("5", "5"), (5, "5"), (0.5, "0.5"), (["a", 1], '["a", 1]'), ({"cases": ["é"]}, '{"cases": ["é"]}')],
)
def test_a_reference_is_text_a_number_or_json(value, reference):
    assert reference_of({"answer": value}, "answer", "row 0") == reference


@pytest.mark.parametrize(
    "value, message",
    [
        (None, "holds null, not text or a number"),
        (True, "holds bool, not text or a number"),
        (" ", "is empty"),
        ({"image": b"PNG"}, "holds a value that JSON does not know: Object of type bytes"),
    ],
)
def test_a_reference_that_is_no_text_is_refused(value, message):
    with pytest.raises(ValueError, match=f"^row 0: field 'answer' {message}"):
        reference_of({"answer": value}, "answer", "row 0")


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def test_a_conversation_keeps_its_system_message_and_its_turns():
    system, answer = {"role": "system", "content": "s"}, {"role": "assistant", "content": "b", "tool_calls": None}
    messages = messages_of({"prompt": [system, user("a"), answer, user("c")]}, "prompt", "row 0")
    assert messages == [system, user("a"), {"role": "assistant", "content": "b"}, user("c")]


@pytest.mark.parametrize(
    "value, message",
    [
        ("2 + 3?", "holds str, not a list of messages; name text by prompt_field"),
        ([], "holds an empty list, not a list of messages"),
        (["2 + 3?"], "message 1 is str, not an object with role and content"),
        ([user("a"), {"role": "user"}], "message 2 has null as content, not text"),
        ([user("a") | {"content": [{"type": "text"}]}], "message 1 has list as content, not text"),
        ([user("a") | {"tool_calls": [1]}], "message 1 has 'tool_calls', and a message can have role and content only"),
        ([user("a"), {"role": "assistant", "content": "b"}], "ends with 'assistant', not with 'user'"),
    ],
)
def test_a_list_that_is_no_conversation_is_refused(value, message):
    with pytest.raises(ValueError, match=f"^row 0: field 'prompt',? {message}"):
        messages_of({"prompt": value}, "prompt", "row 0")
