"""The endless stream of prompts, with a tokenizer that makes one token per word."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rlframe.errors import ConfigError
from rlframe.prompts.overlap import HeldOut
from rlframe.prompts.stream import PromptStream
from rlframe.types import Problem, Prompt, Skipped
from tests.tiny.templates import make_template

WORDS = ["<unk>", "<user>", "<assistant>", "What", "is", "0", "1", "2", "3", "4", "+", "?"]
PROBLEMS = [
    Problem(id=f"p{n}", messages=[{"role": "user", "content": f"What is {n} + 1 ?"}], reference=str(n + 1), task="math")
    for n in range(5)
]

LONG = Problem(id="long", messages=[{"role": "user", "content": "1 " * 9}], reference="", task="math")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word: token for token, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    turns = "{% for message in messages %}<{{ message.role }}> {{ message.content }} {% endfor %}"
    template = turns + "{% if add_generation_prompt %}<assistant>{% endif %}"
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", chat_template=template)


@pytest.fixture
def stream(tokenizer):
    def make(problems=PROBLEMS, seed: int = 7, max_prompt_tokens: int = 8, overlong="error", heldout=None):
        template = make_template()
        return PromptStream(problems, tokenizer, template, seed, max_prompt_tokens, overlong=overlong, heldout=heldout)

    return make


def first(count: int, stream: PromptStream) -> list[Prompt]:
    return [stream.at(position) for position in range(count)]


def test_a_prompt_ends_where_the_assistant_begins(stream):
    prompt = stream(problems=[PROBLEMS[2]]).at(0)
    spelled = ["<user>", "What", "is", "2", "+", "1", "?", "<assistant>"]
    assert prompt.token_ids == [WORDS.index(word) for word in spelled]
    assert (prompt.id, prompt.reference, prompt.task) == ("p2@0", "3", "math")
    assert prompt.messages == PROBLEMS[2].messages


def test_every_epoch_holds_every_problem_once(stream):
    ids = [prompt.id for prompt in first(15, stream())]
    for epoch in range(3):
        assert sorted(ids[epoch * 5 : epoch * 5 + 5]) == [f"p{n}@{epoch}" for n in range(5)]


def test_seed_and_epoch_decide_the_order(stream):
    def order(prompts) -> list[str]:
        return [prompt.id.split("@")[0] for prompt in prompts]

    twenty = [Problem(id=f"q{n}", messages=PROBLEMS[0].messages, reference="1", task="math") for n in range(20)]
    prompts = first(40, stream(twenty))
    assert prompts == first(40, stream(twenty))
    assert order(prompts[:20]) != order(prompts[20:])
    assert order(prompts[:20]) != order(first(20, stream(twenty, seed=8)))


def test_a_position_gives_the_same_prompt_in_any_order_of_calls(stream):
    prompts = first(13, stream())
    resumed = stream()
    for position in [12, 0, 7, 3, 12, 5, 11, 0]:
        assert resumed.at(position) == prompts[position]


def test_a_negative_position_is_refused(stream):
    with pytest.raises(ValueError, match="a stream has no position -1"):
        stream().at(-1)


def test_a_prompt_over_the_bound_is_refused_by_id_length_and_key(stream):
    assert len(stream(max_prompt_tokens=8).at(0).token_ids) == 8
    long = stream(problems=PROBLEMS[:1], max_prompt_tokens=7)
    with pytest.raises(ValueError, match=r"prompt p0@0 is 8 tokens long, more than prompts\.max_tokens = 7"):
        long.at(0)


def test_a_prompt_over_the_bound_can_be_skipped(stream):
    mixed = stream(problems=[*PROBLEMS, LONG], overlong="skip")
    entries = [mixed.at(position) for position in range(12)]
    assert [entry.id for entry in entries if isinstance(entry, Skipped)] == ["long@0", "long@1"]
    assert {entry.reason for entry in entries if isinstance(entry, Skipped)} == {"overlong"}
    resumed = stream(problems=[*PROBLEMS, LONG], overlong="skip")
    assert [resumed.at(position) for position in reversed(range(12))] == entries[::-1]
    assert sorted(prompt.id for prompt in mixed.first_epoch()) == [f"p{n}@0" for n in range(5)]


def test_a_broken_row_is_an_error_for_a_person(stream):
    class Broken:
        def __len__(self):
            return 1

        def __getitem__(self, index):
            raise ValueError("train.jsonl, line 7: no JSON")

    with pytest.raises(ConfigError, match=r"prompts: train\.jsonl, line 7: no JSON"):
        stream(problems=Broken()).at(0)


def test_a_held_out_problem_is_skipped_whatever_its_white_space(stream):
    asked = [{"role": "user", "content": " What is\n3 + 1 ?"}]
    heldout = HeldOut([[Problem(id="test/1", messages=asked, reference="4", task="math")]])
    entries = [stream(heldout=heldout).at(position) for position in range(5)]
    assert [entry for entry in entries if isinstance(entry, Skipped)] == [Skipped(id="p3@0", reason="heldout")]


def test_some_problems_can_be_tokenized_before_a_run(stream):
    assert stream(problems=[*PROBLEMS, LONG], overlong="skip").count_skipped([*PROBLEMS[:2], LONG]) == 1
    with pytest.raises(ConfigError, match="prompt long@0 is 11 tokens long"):
        stream(problems=[*PROBLEMS, LONG]).count_skipped([*PROBLEMS, LONG])
    with pytest.raises(
        ConfigError, match=r"all 1 problems of a sample are held out, or longer than prompts\.max_tokens"
    ):
        stream(problems=[*PROBLEMS, LONG], overlong="skip").count_skipped([LONG])


def test_the_order_of_a_million_problems_takes_4_bytes_each(stream):
    order = stream(problems=PROBLEMS * 200_000)._epoch_order(0)
    assert order.itemsize * len(order) == 4_000_000
    assert sorted(order) == list(range(1_000_000))


def test_a_stream_without_problems_is_refused(stream):
    with pytest.raises(ValueError, match="at least one problem"):
        stream(problems=[])
