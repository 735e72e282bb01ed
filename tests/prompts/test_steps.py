"""Cuts at separators: as by decoding from the first token for every place, in linear time."""

from __future__ import annotations

import random
import re
import time
from bisect import bisect_left
from typing import Any

import pytest

from rlframe.prompts.steps import TextOf, cut
from rlframe.prompts.visible_text import VisibleText
from tests.tiny.drawn import text_of
from tests.tiny.models import byte_tokenizer

PIECES = ["a", "+ki", "Ü", "。", "😀", "👩‍🚀", " ", "  ", "\n", "\n\n", ". ", "\ufffd"]
TAGS = ["<think>", "</think>", "<|user|>"]


def slow_cut(text: str, token_ids: list[int], separator: str, text_of: TextOf) -> tuple[list[str], list[int]]:
    """The steps by decoding all tokens from the first one, for every place that is tried."""
    steps: list[str] = []
    ends: list[int] = []
    begin, tokens, escaped = 0, 0, re.escape(separator)
    for found in re.finditer(rf"{escaped}(?:\s*{escaped})*", text):
        if not text[begin : found.start()].strip():
            continue
        tokens = bisect_left(range(len(token_ids)), found.end(), lo=tokens, key=lambda n: len(text_of(token_ids[:n])))
        while len(whole := text_of(token_ids[:tokens])) < found.end() or not text.startswith(whole):
            tokens += 1
        if text[len(whole) :].strip():
            steps.append(text[begin : len(whole)])
            ends.append(tokens)
            begin = len(whole)
    return [*steps, text[begin:]], ends


def tokenizer_of(kind: str) -> Any:
    """Trained on PIECES: merged bytes, or words that begin with a mark of the space, some without their characters."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if kind == "bytes":
        return byte_tokenizer()
    alphabet = pre_tokenizers.ByteLevel.alphabet() if kind == "merged bytes" else []
    fallback = [f"<0x{byte:02X}>" for byte in range(256)] if kind == "llama" else []
    tokenizer = Tokenizer(models.BPE(byte_fallback=bool(fallback), unk_token="<unk>"))
    if kind == "merged bytes":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.decoder = decoders.ByteLevel()
    elif kind == "metaspace":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    chance = random.Random(0)
    shown = [piece for piece in PIECES[:-1] if kind != "llama" or piece not in "😀👩‍🚀"]  # bytes spell the others
    texts = ["".join(chance.choices(shown, k=12)) for _ in range(200)]
    trainer = trainers.BpeTrainer(
        vocab_size=400 + len(fallback),
        special_tokens=["<unk>", *fallback],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<|end|>")
    fast.add_special_tokens({"additional_special_tokens": TAGS})
    return fast


@pytest.mark.parametrize("kind", ["bytes", "merged bytes", "metaspace", "llama"])
def test_steps_are_those_of_decoding_from_the_first_token(kind: str):
    tokenizer, chance = tokenizer_of(kind), random.Random(kind)
    spell = VisibleText(tokenizer).of
    several = 0
    for turn in range(100):
        text = "".join(chance.choices(PIECES + TAGS, k=chance.randrange(50)))
        token_ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
        if turn % 2:  # as a policy samples at first: parts of characters, marks in a row
            token_ids = [chance.choice(range(len(tokenizer))) if chance.random() < 0.05 else one for one in token_ids]
            token_ids = [one for one in token_ids if chance.random() < 0.8]
        for separator in ("\n", "\n\n", ".", "ki", " ", "。", "\ufffd"):
            text = spell(token_ids)
            found = cut(text, token_ids, separator, spell)
            assert found == slow_cut(text, token_ids, separator, spell), (token_ids, separator)
            several += len(found[1]) > 1
    assert several > 100
    assert cut("", [], "\n", spell) == ([""], [])


def test_a_cut_of_a_hundred_thousand_tokens_takes_linear_time():
    token_ids = list(b"2 + 3 = 5\n" * 10_000)
    started = time.process_time()
    steps, ends = cut(text_of(token_ids), token_ids, "\n", text_of)
    assert time.process_time() - started < 10  # decoding from the first token for every step takes minutes
    assert len(steps) == 10_000 and ends[-1] == 99_990
