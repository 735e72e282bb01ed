"""The prompts of a run, checked before an actor starts."""

import json

import pytest
from transformers import AutoTokenizer

from rlframe.errors import ConfigError
from rlframe.train import prompts as module
from rlframe.train.prompts import open_prompts
from rlframe.types import Prompt
from tests.conftest import compose


@pytest.fixture
def opened(tmp_path, tiny_model):
    """Opens the prompts of a run on two files -> its stream, its held-out prompts, and the console's lines."""

    def write(name: str, questions: list[str], **values) -> None:
        lines = [json.dumps({"question": text, "answer": "#### 5", **values}) for text in questions]
        (tmp_path / name).write_text("\n".join(lines))

    def make(train: list[str], heldout: list[str], *overrides: str, **values):
        write("train.jsonl", train, **values)
        write("test.jsonl", heldout, **values)
        paths = [
            f"prompts.{part}.path={tmp_path}/{name}.jsonl" for part, name in (("train", "train"), ("heldout", "test"))
        ]
        sizes = ["prompts.heldout.size=null", "prompts.max_tokens=128", "prompts.template.system=''"]
        run = compose([f"model.path={tiny_model}", "prompts=jsonl", *paths, *sizes, *overrides])
        lines: list[str] = []
        tokenizer = AutoTokenizer.from_pretrained(tiny_model)
        stream, prompts = open_prompts(run, tokenizer, lines.append)
        return stream, prompts["heldout"], lines

    return make


def sums(numbers: range) -> list[str]:
    return [f"{number} + 1?" for number in numbers]


def test_files_without_a_common_question_open_without_a_word(opened):
    stream, heldout, lines = opened(sums(range(8)), sums(range(8, 11)))
    assert {stream.at(position).id for position in range(8)} == {f"train.jsonl:{line}@0" for line in range(1, 9)}
    assert {prompt.id for prompt in heldout} == {f"test.jsonl:{line}@0" for line in range(1, 4)}
    assert lines == []


def test_a_held_out_training_problem_refuses_the_run_and_names_two(opened):
    message = (
        r"^prompts: overlap: 3 of 8 training problems have the conversation of a held-out problem: train\.jsonl:6 is "
        r"test\.jsonl:1 and train\.jsonl:7 is test\.jsonl:2; .* set prompts\.overlap=drop"
    )
    with pytest.raises(ConfigError, match=message):
        opened(sums(range(8)), [" 5 + 1?\n", *sums(range(6, 12))])


def test_dropped_problems_are_never_trained_on(opened):
    stream, heldout, lines = opened(sums(range(8)), sums(range(5, 12)), "prompts.overlap=drop")
    entries = [stream.at(position) for position in range(16)]
    trained = {entry.id.partition("@")[0] for entry in entries if isinstance(entry, Prompt)}
    assert trained == {f"train.jsonl:{line}" for line in range(1, 6)}
    assert len(heldout) == 7
    assert lines[0].startswith("prompts.overlap: 3 of 8 training problems are held out and dropped: train.jsonl:6 is")
    assert lines[1].startswith("prompts.train: 3 of a sample of 8 problems are skipped")


def test_all_problems_held_out_leaves_nothing_to_train_on(opened):
    with pytest.raises(ConfigError, match="all 4 problems of a sample are held out"):
        opened(sums(range(4)), sums(range(4)), "prompts.overlap=drop")


def test_a_comparison_that_ran_out_of_time_says_so_and_still_holds(opened, monkeypatch):
    monkeypatch.setattr(module, "COMPARE_S", 0.0)
    stream, _, lines = opened(sums(range(8)), sums(range(5, 9)))
    assert lines[0].startswith("prompts.train: 1 of 8 problems were compared with held-out ones in 0 s; the others")
    entries = [stream.at(position) for position in range(8)]
    assert sorted(entry.id for entry in entries if not isinstance(entry, Prompt)) == [
        "train.jsonl:6@0", "train.jsonl:7@0", "train.jsonl:8@0",
    ]  # fmt: skip


def test_a_long_prompt_stops_the_run_or_is_skipped_with_a_count(opened):
    train, heldout = [*sums(range(3)), "1 + " * 40], [*sums(range(3, 5)), "2 + " * 40]
    with pytest.raises(
        ConfigError, match=r"prompt train\.jsonl:4@0 is \d+ tokens long, more than prompts\.max_tokens = 128"
    ):
        opened(train, heldout)
    _, prompts, lines = opened(train, heldout, "prompts.overlong=skip")
    assert sorted(prompt.id for prompt in prompts) == ["test.jsonl:1@0", "test.jsonl:2@0"]
    assert lines == [
        "prompts.train: 1 of a sample of 4 problems are skipped: held out, or too long",
        "prompts.heldout: 1 of 3 problems are too long (prompts.overlong=skip)",
    ]


def test_a_held_out_set_of_long_prompts_alone_is_refused(opened):
    with pytest.raises(ConfigError, match=r"prompts\.heldout: every prompt is longer than prompts\.max_tokens=128"):
        opened(sums(range(3)), ["2 + " * 40], "prompts.overlong=skip")


def test_extra_values_reach_the_prompt(opened):
    fields = ["prompts.train.extra_fields=[level]", "prompts.heldout.extra_fields=[level]"]
    stream, heldout, _ = opened(sums(range(4)), sums(range(5, 6)), *fields, level={"of": 3})
    assert stream.at(0).extra == heldout[0].extra == {"level": {"of": 3}}


def test_a_broken_row_refuses_the_run_with_file_line_and_field(opened):
    with pytest.raises(
        ConfigError, match=r"^prompts: .*train\.jsonl, line 1: no field 'anwser'; .*; did you mean 'answer'\?"
    ):
        opened(sums(range(4)), sums(range(5, 6)), "prompts.train.reference_field=anwser")


def test_extra_values_that_json_does_not_know_are_refused(opened, tmp_path):
    (tmp_path / "dated.py").write_text(
        "import datetime\n"
        "from rlframe.prompts import Source\n"
        "from rlframe.types import Problem\n"
        "class Dated(Source):\n"
        "    def load(self):\n"
        "        ask = [{'role': 'user', 'content': 'When?'}]\n"
        "        return [Problem(id='d', messages=ask, reference='5', task='math', extra={'day': datetime.date.min})]\n"
    )
    with pytest.raises(ConfigError, match="problem d: extra holds a value that JSON does not know"):
        opened(["1?"], ["2?"], "~prompts.train", f"+prompts.train={{name: '{tmp_path}/dated.py:Dated'}}")
    with pytest.raises(ConfigError, match="problem d: extra holds a value that JSON does not know"):
        opened(["1?"], ["2?"], "~prompts.heldout", f"+prompts.heldout={{name: '{tmp_path}/dated.py:Dated'}}")


def test_every_held_out_set_is_kept_out_of_training(opened, tmp_path):
    (tmp_path / "more.jsonl").write_text(json.dumps({"question": "2 + 1?", "answer": "#### 5"}))
    with pytest.raises(ConfigError, match=r"overlap: 1 of 8 .* problem: train\.jsonl:3 is more\.jsonl:1;"):
        opened(sums(range(8)), sums(range(8, 11)), f"+evaluate.sets.more={{source: {{path: '{tmp_path}/more.jsonl'}}}}")


def test_a_set_that_its_reward_does_not_judge_is_refused(opened):
    code = ["prompts.train.task=code", "+reward.terms.math.tasks=[math]"]
    with pytest.raises(
        ConfigError, match=r"prompts\.heldout: the reward 'math' decides what is right, and scores none"
    ):
        opened(sums(range(4)), sums(range(5, 6)), *code, "prompts.heldout.task=code")


def test_a_stop_token_beyond_the_vocabulary_is_refused(opened):
    with pytest.raises(ConfigError, match=r"evaluate\.sets\.a\.stop_token_ids: 9999 is no token; the tokenizer has"):
        opened(sums(range(4)), sums(range(5, 6)), "+evaluate.sets.a={stop_token_ids: [9999]}")
