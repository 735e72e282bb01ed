"""The endless stream of prompts, with a tokenizer that makes one token per word."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rlframe.prompts.stream import PromptStream
from rlframe.prompts.template import Template
from rlframe.types import Problem, Prompt

WORDS = ["<unk>", "<user>", "<assistant>", "What", "is", "0", "1", "2", "3", "4", "+", "?"]
PROBLEMS = [
    Problem(id=f"p{n}", messages=[{"role": "user", "content": f"What is {n} + 1 ?"}], reference=str(n + 1), task="math")
    for n in range(5)
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({word: token for token, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    turns = "{% for message in messages %}<{{ message.role }}> {{ message.content }} {% endfor %}"
    template = turns + "{% if add_generation_prompt %}<assistant>{% endif %}"
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", chat_template=template)


@pytest.fixture
def stream(tokenizer):
    def make(problems=PROBLEMS, user: str = "{question}", seed: int = 7, max_prompt_tokens: int = 8) -> PromptStream:
        template = Template(system="", user=user, examples=[])
        return PromptStream(problems, tokenizer, template, seed, max_prompt_tokens)

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


def test_lengths_can_be_checked_at_once(stream):
    mixed = [*PROBLEMS, Problem(id="long", messages=[{"role": "user", "content": "1 " * 9}], reference="", task="math")]
    with pytest.raises(ValueError, match="prompt long@0 is 11 tokens long"):
        stream(problems=mixed).check_lengths()
    stream().check_lengths()


def test_a_stream_without_problems_is_refused(stream):
    with pytest.raises(ValueError, match="at least one problem"):
        stream(problems=[])
