"""A conversation as text and tokens: chat templates in the manner of known models, one of one's own, or none."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from rlframe.errors import ConfigError
from rlframe.prompts.rendering import Renderer
from rlframe.types import Message
from tests.tiny.models import byte_tokenizer
from tests.tiny.templates import QWEN3, R1_DISTILL, SMOLLM2, make_template

ASK: list[Message] = [{"role": "user", "content": "2 + 3?"}]


def tokenizer_with(chat_template: str | None) -> PreTrainedTokenizerFast:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = chat_template
    return tokenizer


def rendered(models: str | None, messages: list[Message] = ASK, **settings: Any) -> str:
    """The text under a model's chat template, or under what `settings` put in its place."""
    return Renderer(tokenizer_with(models), make_template(**settings)).text(messages)


def test_the_models_own_template_renders_by_default():
    assert rendered(R1_DISTILL) == "<|user|>2 + 3?<|assistant|><think>\n"
    assert rendered(SMOLLM2) == ("<|system|>You are a helpful AI assistant.<|end|><|user|>2 + 3?<|end|><|assistant|>")


@pytest.mark.parametrize("chat_template", [SMOLLM2, QWEN3, R1_DISTILL])
def test_tokens_are_those_of_the_tokenizers_own_application(chat_template):
    tokenizer = tokenizer_with(chat_template)
    messages = [
        {"role": "system", "content": "Add."},
        *ASK,
        {"role": "assistant", "content": "<think>x</think>5"},
        *ASK,
    ]
    expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert Renderer(tokenizer, make_template()).token_ids(messages) == expected


def test_arguments_reach_the_chat_template():
    assert rendered(QWEN3) == "<|user|>2 + 3?<|end|><|assistant|>"
    closed = rendered(QWEN3, chat_template_kwargs={"enable_thinking": False})
    assert closed == "<|user|>2 + 3?<|end|><|assistant|><think>\n\n</think>\n\n"


def test_an_argument_that_the_chat_template_never_reads_is_refused():
    with pytest.raises(ValueError, match=r"^template\.chat_template_kwargs\.enable_thinking: the chat template never"):
        rendered(SMOLLM2, chat_template_kwargs={"enable_thinking": False})
    with pytest.raises(ValueError, match=r"^template\.chat_template_kwargs\.tokenize: rlframe sets this argument"):
        rendered(QWEN3, chat_template_kwargs={"tokenize": True})


def test_a_template_of_ones_own_takes_the_place_of_the_models():
    own = "{% for message in messages %}[{{ message.role }}] {{ message.content }} {% endfor %}[{{ name }}]"
    assert rendered(QWEN3, chat_template=own, chat_template_kwargs={"name": "me"}) == "[user] 2 + 3? [me]"
    assert rendered(None, chat_template=own) == "[user] 2 + 3? []"


def test_a_model_without_a_chat_template_is_refused_with_both_remedies():
    with pytest.raises(ValueError, match=r"no chat template.*raw=true.*\.chat_template=FILE\.jinja"):
        rendered(None)


@pytest.mark.parametrize("broken", ["{{ raise_exception('No system role') }}", "{% for message in messages %}"])
def test_a_chat_template_that_fails_is_told_with_the_roles(broken):
    with pytest.raises(ConfigError, match="the chat template fails on a conversation of user: "):
        rendered(broken)


def test_raw_text_joins_by_blank_lines_and_answers_follow_directly():
    messages = [
        {"role": "system", "content": "Add."},
        {"role": "user", "content": "Q: 1 + 1? A:"},
        {"role": "assistant", "content": " 2"},
        {"role": "user", "content": "Q: 2 + 3? A:"},
    ]
    text = "Add.\n\nQ: 1 + 1? A: 2\n\nQ: 2 + 3? A:"
    for chat_template in (None, QWEN3):  # raw prompts ignore the model's
        assert rendered(chat_template, messages, raw=True) == text
    assert Renderer(tokenizer_with(None), make_template(raw=True)).token_ids(messages) == [
        *byte_tokenizer()(text)["input_ids"]
    ]


@pytest.mark.parametrize(
    "post_processor, first",
    [(None, []), ("<|pad|> $A", ["<|pad|>"]), ("<|pad|> $A <|end|>", ["<|pad|>"]), ("$A <|end|>", [])],
)
def test_raw_text_starts_with_bos_if_the_tokenizer_does(post_processor, first):
    tokenizer = tokenizer_with(None)
    tokenizer.bos_token = "<|pad|>"  # in the vocabulary already
    if post_processor:
        special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<|pad|>", "<|end|>")]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=post_processor, special_tokens=special)
    token_ids = Renderer(tokenizer, make_template(raw=True)).token_ids(ASK)
    assert tokenizer.convert_ids_to_tokens(token_ids)[: len(first)] == first
    assert tokenizer.decode(token_ids[len(first) :]) == "2 + 3?"


def test_a_chat_template_writes_its_special_tokens_itself():
    tokenizer = tokenizer_with(R1_DISTILL)
    tokenizer.bos_token = "<|pad|>"
    bos = tokenizer.bos_token_id
    special = [("<|pad|>", bos)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<|pad|> $A", special_tokens=special)
    assert Renderer(tokenizer, make_template()).token_ids(ASK).count(bos) == 1


def test_a_special_token_does_not_survive_in_a_completion():
    tokenizer = tokenizer_with(SMOLLM2)
    tokenizer.add_tokens(["<think>"])  # added, and not special: as in Qwen3
    tokenizer.add_special_tokens({"additional_special_tokens": ["<answer>"]})
    renderer = Renderer(tokenizer, make_template())
    assert [renderer.survives(tag) for tag in ("<think>", "</think>", "<answer>")] == [True, True, False]
