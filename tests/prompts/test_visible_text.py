"""The text of completions, under tokenizers with special tokens."""

import pytest

from rlframe.prompts.visible_text import VisibleText
from tests.tiny.models import byte_tokenizer


def visible(text: str, special: list[str]) -> str:
    tokenizer = byte_tokenizer()  # <|end|> ends texts, <|pad|> pads; <|assistant|> is a role of a chat
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    return VisibleText(tokenizer).of(tokenizer(text, add_special_tokens=False)["input_ids"])


THOUGHT = "<think>2 + 3 = 5</think>5"


def test_a_pair_of_special_tags_stays_and_control_tokens_go():
    assert visible(f"{THOUGHT}<|end|>", ["<think>", "</think>"]) == THOUGHT
    assert visible(f"<|assistant|>{THOUGHT}<|pad|><|end|>", ["<think>", "</think>"]) == THOUGHT


def test_tags_that_are_no_special_tokens_stay():
    assert visible(THOUGHT, []) == THOUGHT


@pytest.mark.parametrize("special", [["<start_of_turn>", "<end_of_turn>"], ["<answer>"], ["[INST]", "[/INST]"]])
def test_special_tokens_that_are_no_pair_of_tags_go(special):
    assert visible("".join(special) + "5", special) == "5"


def test_tokens_that_begin_and_end_texts_are_no_pair_of_tags():
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    token_ids = tokenizer("<s>5</s>", add_special_tokens=False)["input_ids"]
    assert len(token_ids) == 3
    assert VisibleText(tokenizer).of(token_ids) == "5"
