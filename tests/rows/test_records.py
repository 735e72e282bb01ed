"""Rows as JSON objects: what is written is read, and what users have is understood or refused in a line."""

from pathlib import Path

import pytest

from rlframe.rows.files import read_rows, write_rows
from rlframe.rows.records import row_of
from rlframe.rows.types import Assessment, Comparison, Demonstration, Row
from rlframe.types import Message

ASK: list[Message] = [{"role": "user", "content": "What is 2 + 3?"}]
SAY: Message = {"role": "assistant", "content": "5"}


def read(record: dict) -> Row:
    return row_of(record, "rows.jsonl:7", "rows.jsonl, line 7")


def test_rows_survive_a_file_unchanged(tmp_path: Path) -> None:
    drawn = Demonstration(
        id="a", messages=ASK, answer="5", task="math", source="s", reasoning="2+3", token_ids=[4, 5], tokenizer="d"
    )
    rows = [
        drawn,
        Demonstration(id="b", messages=ASK, answer="fünf", task="math", source="s"),
        Comparison(id="c", messages=ASK, chosen="5", rejected="6", margin=2.0, task="math", source="s"),
        Assessment(id="d", messages=ASK, steps=["2+3=5.", " 5"], labels=[1.0, 0.25], task="math", source="s"),
    ]
    assert write_rows(rows, tmp_path / "part_000000.jsonl") == 4
    assert list(read_rows(tmp_path)) == list(read_rows(tmp_path / "part_000000.jsonl")) == rows


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [*ASK, SAY]},
        {"prompt": "What is 2 + 3?", "completion": "5"},
        {"prompt": ASK, "completion": [SAY]},
        {"prompt": ASK, "completion": "5"},
        {"prompt": "What is 2 + 3?", "completion": [*ASK, SAY]},
        {"messages": ASK, "answer": "5"},
        {"messages": [*ASK, {**SAY, "reasoning_content": None}], "level": 3},
        {"prompt": ASK, "completion": "5", "answer": "42"},
        {"prompt": "What is 2 + 3?", "messages": [*ASK, SAY], "answer": "42"},
        {"messages": [*ASK, SAY], "answer": "42"},
    ],
)
def test_every_shape_of_a_demonstration_is_read(record: dict) -> None:
    row = read(record)
    assert isinstance(row, Demonstration)
    assert (row.messages, row.answer, row.id, row.task) == (ASK, "5", "rows.jsonl:7", "general")


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "What is 2 + 3?", "chosen": "5", "rejected": "6"},
        {"prompt": ASK, "chosen": [SAY], "rejected": [{**SAY, "content": "6"}]},
        {"chosen": [*ASK, SAY], "rejected": [*ASK, {**SAY, "content": "6"}]},
        {"prompt": "What is 2 + 3?", "chosen": [*ASK, SAY], "rejected": [*ASK, {**SAY, "content": "6"}]},
    ],
)
def test_every_shape_of_a_comparison_is_read(record: dict) -> None:
    row = read(record)
    assert isinstance(row, Comparison)
    assert (row.messages, row.chosen, row.rejected, row.margin) == (ASK, "5", "6", None)


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "What is 2 + 3?", "completion": "5", "label": True},
        {"messages": [*ASK, SAY], "label": 1},
        {"prompt": ASK, "steps": ["5"], "labels": [1]},
        {"prompt": "What is 2 + 3?", "completions": ["5"], "labels": [True]},
    ],
)
def test_every_shape_of_an_assessment_is_read(record: dict) -> None:
    row = read(record)
    assert isinstance(row, Assessment)
    assert (row.messages, row.steps, row.labels, row.answer) == (ASK, ["5"], [1.0], "5")


SYSTEM: Message = {"role": "system", "content": "Add."}
FIRST: list[Message] = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]


@pytest.mark.parametrize(
    "prompt, before, conversation",
    [
        ("What is 2 + 3?", [SYSTEM, *ASK], [SYSTEM, *ASK]),
        ("What is 2 + 3?", [*FIRST, *ASK], [*FIRST, *ASK]),  # the last question stands beside the conversation
        ("Hi.", [*FIRST, *ASK], [*FIRST, *ASK]),  # or the first one
        ([SYSTEM, *ASK], ASK, [SYSTEM, *ASK]),  # the system message stands in the prompt alone
        (FIRST[:1], [FIRST[1], *ASK], [*FIRST, *ASK]),  # what follows the prompt
    ],
)
def test_a_prompt_beside_whole_conversations_is_not_repeated(prompt, before, conversation) -> None:
    row = read({"prompt": prompt, "chosen": [*before, SAY], "rejected": [*before, {**SAY, "content": "6"}]})
    assert isinstance(row, Comparison)
    assert (row.messages, row.chosen, row.rejected) == (conversation, "5", "6")


def test_a_label_that_is_a_topic_makes_no_assessment() -> None:
    assert isinstance(read({"prompt": "What is 2 + 3?", "completion": "5", "label": "sums"}), Demonstration)
    assert isinstance(read({"prompt": "What is 2 + 3?", "completion": "5", "labels": ["sums"]}), Demonstration)


def test_thoughts_beside_the_content_are_kept() -> None:
    thought = {**SAY, "reasoning_content": "2 and 3 make 5"}
    row = read({"messages": [*ASK, thought, *ASK, thought]})
    assert isinstance(row, Demonstration)
    assert row.reasoning == "2 and 3 make 5"
    assert row.messages[1] == thought


@pytest.mark.parametrize("shape", [{"completion": "5"}, {"answer": "5"}])
def test_a_field_of_thoughts_belongs_to_any_answer(shape: dict) -> None:
    row = read({"prompt": "What is 2 + 3?", "reasoning": "2 and 3 make 5"} | shape)
    assert isinstance(row, Demonstration) and (row.answer, row.reasoning) == ("5", "2 and 3 make 5")


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ({"prompt": "What?", "steps": ["a", "b"], "labels": [1]}, "holds no list of 2 labels, one for each step"),
        ({"prompt": "What?", "completions": ["a", "b"], "labels": [1, 0]}, "without white space between them"),
        ({"prompt": "What?", "steps": ["a"], "labels": [2]}, "holds 2, not a number from 0 to 1"),
        ({"prompt": "What?", "steps": "a", "labels": [1]}, "field 'steps' holds no list of texts"),
        ({"messages": ASK}, "has no answer: messages ends with 'user', not with 'assistant'"),
        ({"prompt": "What?"}, "has no answer: it has 'prompt'; a row has messages and answer; "),
        ({"prompt": "What?", "completion": " \n"}, "has no answer: it is empty"),
        ({"messages": [SAY, SAY]}, "has no question"),
        (
            {"messages": [*ASK, {**SAY, "tool_calls": []}]},
            "field 'messages', message 2 has 'tool_calls', and a message",
        ),
        ({"messages": [{"role": "user"}, SAY]}, "field 'messages', message 1 has no 'content'"),
        ({"prompt": "What?", "chosen": "5", "rejected": "5"}, "chosen and rejected are equal"),
        ({"prompt": "What?", "chosen": "5"}, "has no field 'rejected'"),
        ({"chosen": [*ASK, SAY], "rejected": [*ASK, *ASK, SAY]}, "must begin with the same messages"),
        ({"prompt": "Who?", "chosen": [*ASK, SAY], "rejected": "6"}, "prompt and chosen hold different questions"),
        ({"prompt": "What?", "chosen": "5", "rejected": "6", "margin": float("nan")}, "no number from -1e+06 to 1e+06"),
        ({"prompt": "What?", "chosen": "5", "rejected": "6", "margin": 10**400}, "no number from -1e+06 to 1e+06"),
        ({"messages": ASK, "answer": "5", "token_ids": [4]}, "not the digest of their tokenizer"),
    ],
)
def test_a_record_that_is_no_row_is_refused_by_its_line(record: dict, problem: str) -> None:
    with pytest.raises(ValueError, match=r"^rows\.jsonl, line 7: ") as refused:
        read(record)
    assert problem in str(refused.value)
