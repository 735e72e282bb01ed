"""Problems from a JSONL file."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import ValidationError

from rlframe.prompts import Jsonl
from rlframe.prompts.base import in_order
from rlframe.types import Problem

APPLES = {"question": "Two apples and three?", "answer": "2 + 3 = <<2+3=5>>5 apples.\n#### 5"}
MILES = {"question": "Half of 2,400 miles?", "answer": "2400 / 2 = 1200.\n#### 1,200 "}
PEARS = {"question": "Four pears less one?", "answer": "4 - 1 = 3.\n#### 3"}


@pytest.fixture
def jsonl(tmp_path):
    """Writes the lines to a file and returns its source."""

    def write(*lines: dict | str, **changes) -> Jsonl:
        file = tmp_path / "train.jsonl"
        file.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
        fields = {
            "name": "jsonl", "path": str(file), "prompt_field": "question", "messages_field": None,
            "reference_field": "answer", "reference_pattern": r"####\s*(.+)", "task": "math", "task_field": None,
            "extra_fields": [], "offset": 0, "size": None,
        }  # fmt: skip
        return Jsonl(**(fields | changes))

    return write


def test_the_pattern_of_gsm8k_cuts_out_the_reference(jsonl):
    problems = jsonl(APPLES, MILES).load()
    question = {"role": "user", "content": "Two apples and three?"}
    assert problems[0] == Problem(id="train.jsonl:1", messages=[question], reference="5", task="math")
    assert problems[1].reference == "1,200"


def test_without_a_pattern_the_whole_field_is_the_reference(jsonl):
    assert jsonl({"question": "2 + 3?", "answer": 5}, reference_pattern=None).load()[0].reference == "5"


def test_a_slice_selects_records_and_null_selects_the_rest(jsonl):
    two, rest = (jsonl(APPLES, MILES, PEARS, offset=1, size=size).load() for size in (1, None))
    assert [problem.id for problem in in_order(two)] == ["train.jsonl:2"]
    assert [problem.id for problem in in_order(rest)] == ["train.jsonl:2", "train.jsonl:3"]


def test_a_slice_holds_at_most_its_size(jsonl):
    assert len(jsonl(APPLES, MILES, PEARS, offset=2, size=128).load()) == 1


def test_a_slice_beyond_the_file_is_refused(jsonl):
    with pytest.raises(ValueError, match=r"train\.jsonl: offset 3 skips all of its 3 records"):
        jsonl(APPLES, MILES, PEARS, offset=3, size=2).load()


@pytest.mark.parametrize(
    "second_line, message",
    [
        ({"question": "?"}, "line 2: no field 'answer'; it has 'question'"),
        ({"question": ["?"], "answer": "#### 5"}, "line 2: field 'question' holds list, not text"),
        ({"question": " ", "answer": "#### 5"}, "line 2: field 'question' is empty"),
        ({"question": "?", "answer": "five"}, "line 2: field 'answer': reference_pattern .* finds nothing in 'five'"),
        ("[1, 2]", "line 2: list where an object should be"),
        ('{"question": ', "line 2: no JSON: Expecting value"),
    ],
)
def test_an_error_in_a_record_names_file_line_and_field(jsonl, second_line, message):
    problems = jsonl(APPLES, second_line).load()
    assert problems[0].reference == "5"
    with pytest.raises(ValueError, match=f"train.jsonl, {message}"):
        problems[1]


def test_a_blank_line_is_no_record_but_counts_in_line_numbers(jsonl):
    problems = jsonl(APPLES, "", "  ", MILES, "oops").load()
    assert [problems[0].id, problems[1].id, len(problems)] == ["train.jsonl:1", "train.jsonl:4", 3]
    with pytest.raises(ValueError, match="line 5: no JSON"):
        problems[2]


def test_a_missing_file_is_named_with_its_absolute_path(jsonl, tmp_path):
    with pytest.raises(ValueError, match=f"there is no file {tmp_path}/test.jsonl"):
        jsonl(path=f"{tmp_path}/test.jsonl").load()


@pytest.mark.parametrize(
    "pattern, message", [("####", "has 0 groups"), ("(a)(b)", "has 2 groups"), ("(", "no regular")]
)
def test_a_pattern_must_have_exactly_one_group(jsonl, pattern, message):
    with pytest.raises(ValidationError, match=message):
        jsonl(reference_pattern=pattern)


def test_the_task_of_a_record_overrides_the_task_of_the_source(jsonl):
    rows = [{"question": "2 + 3?", "answer": "5", "kind": "sums"}, {"question": "4 + 1?", "answer": "5", "kind": None}]
    problems = jsonl(*rows, reference_pattern=None, task_field="kind").load()
    assert [problem.task for problem in in_order(problems)] == ["sums", "math"]


def test_a_misspelled_task_field_is_refused_with_the_nearest_name(jsonl):
    problems = jsonl({"question": "2 + 3?", "answer": "#### 5", "kind": "sums"}, task_field="kinds").load()
    with pytest.raises(ValueError, match=r"no field 'kinds'; it has .*; did you mean 'kind'\?"):
        problems[0]


CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 3?"}]


def test_a_record_can_hold_messages_nested_fields_and_extra_values(jsonl):
    record = {"prompt": CHAT, "reward_model": {"ground_truth": 5, "style": "rule"}, "info": {"level": [1, 2]}}
    fields = {"prompt_field": None, "messages_field": "prompt", "reference_field": "reward_model.ground_truth"}
    problems = jsonl(record, **fields, reference_pattern=None, extra_fields=["info.level", "reward_model"]).load()
    extra = {"info.level": [1, 2], "reward_model": {"ground_truth": 5, "style": "rule"}}
    assert problems[0] == Problem(id="train.jsonl:1", messages=CHAT, reference="5", task="math", extra=extra)


def test_without_a_reference_field_the_reference_is_empty(jsonl):
    assert jsonl(APPLES, reference_field=None).load()[0].reference == ""


def test_several_reference_fields_become_an_object(jsonl):
    record = {"question": "Add.", "tests": ["assert add(1, 2) == 3"], "info": {"setup": "import math", "level": 3}}
    fields = {"reference_field": ["tests", "info.setup"], "reference_pattern": None}
    [problem] = in_order(jsonl(record, **fields).load())
    assert json.loads(problem.reference) == {"tests": ["assert add(1, 2) == 3"], "setup": "import math"}
    with pytest.raises(ValueError, match=r"no field 'test'; it has .*; did you mean 'tests'\?"):
        jsonl(record, reference_field=["test"], reference_pattern=None).load()[0]


@pytest.mark.parametrize(
    "fields, what", [(["answer"], "reference_pattern: cuts"), ([], "an empty list names no field")]
)
def test_a_list_of_reference_fields_has_no_pattern_and_is_not_empty(jsonl, fields, what):
    with pytest.raises(ValidationError, match=what):
        jsonl(APPLES, reference_field=fields)


@pytest.mark.parametrize("prompt_field, messages_field", [("question", "prompt"), (None, None)])
def test_a_source_reads_either_text_or_messages(jsonl, prompt_field, messages_field):
    with pytest.raises(ValidationError, match="one of prompt_field and messages_field must name a field"):
        jsonl(APPLES, prompt_field=prompt_field, messages_field=messages_field)


def test_two_threads_read_their_own_lines(jsonl):
    rows = [{"question": f"{n}?", "answer": f"#### {n}"} for n in range(400)]
    problems = jsonl(*rows).load()
    with ThreadPoolExecutor(2) as threads:
        references = list(threads.map(lambda n: problems[n].reference, [*range(400), *range(399, -1, -1)]))
    assert references == [str(n) for n in [*range(400), *range(399, -1, -1)]]
